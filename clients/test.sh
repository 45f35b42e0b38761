#!/usr/bin/env bash
# The Python and the Go client against three nodes. Needs Python with venv, and Go; downloads their packages into the
# build folder. SERIATIM is the program under test.
set -euo pipefail

cd "$(dirname "$0")/.."
seriatim=$(realpath "${SERIATIM:?the program under test}")
build=${CARGO_TARGET_DIR:-target}/clients
mkdir -p "$build"
build=$(realpath "$build")

if ! command -v go >/dev/null || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    echo "make test-clients needs Go (1.24 or newer) and Python 3 with venv (Debian: golang-go, python3-venv)" >&2
    exit 1
fi

python3 -m venv "$build/venv"
"$build/venv/bin/pip" install --quiet --disable-pip-version-check -r clients/python/requirements.txt
go -C clients/go vet ./...
go -C clients/go build -buildvcs=false -o "$build/client-go" .

rm -rf "$build/generated"
clients/generate.sh "$build/generated"
diff -r "$build/generated/python/log" clients/python/log --exclude=__pycache__ ||
    { echo "the generated Python code is not what proto/ gives: make proto" >&2 && exit 1; }
diff -r "$build/generated/go/logv1" clients/go/logv1 ||
    { echo "the generated Go code is not what proto/ gives: make proto" >&2 && exit 1; }

SERIATIM=$seriatim CLIENT_GO=$build/client-go PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=clients/python \
    "$build/venv/bin/python" -m unittest discover --verbose --start-directory clients/tests
