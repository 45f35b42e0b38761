#!/usr/bin/env bash
# Tests the Python, the Go and the Java client against three nodes. Needs Python with venv, Go, and a JDK with Maven.
# Downloads their packages into the build folder, and for Java into Maven's own repository. SERIATIM is the program under
# test.
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
if ! command -v javac >/dev/null || ! command -v mvn >/dev/null; then
    echo "make test-clients needs a JDK (17 or newer) and Maven (Debian: openjdk-17-jdk-headless, maven)" >&2
    exit 1
fi

python3 -m venv "$build/venv"
"$build/venv/bin/pip" install --quiet --disable-pip-version-check -r clients/python/requirements.txt
go -C clients/go vet ./...
go -C clients/go build -buildvcs=false -o "$build/client-go" .
mvn -q -B -ntp -Dstyle.color=never -f clients/java/pom.xml package "-Dclient.build=$build/java"

rm -rf "$build/generated"
clients/generate.sh "$build/generated"
diff -r "$build/generated/python/log" clients/python/log --exclude=__pycache__ ||
    { echo "the generated Python code differs from proto/: run make proto" >&2 && exit 1; }
diff -r "$build/generated/go/logv1" clients/go/logv1 ||
    { echo "the generated Go code differs from proto/: run make proto" >&2 && exit 1; }

SERIATIM=$seriatim CLIENT_GO=$build/client-go CLIENT_JAVA=$build/java/client.jar PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=clients/python \
    "$build/venv/bin/python" -m unittest discover --verbose --start-directory clients/tests
