#!/usr/bin/env bash
# Tests the generated code of seriatim.v1 in seven languages, then the Python, the Go and the Java client and grpcurl against three
# nodes. Downloads their packages into the build folder, and for Java into Maven's own repository. SERIATIM is the program under
# test. clients/roundtrip/README.md lists what it needs. ONLY=test_errors, for example, runs one file of clients/tests.
set -euo pipefail

grpcurl=1.9.3

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

rm -rf "$build/generated"
clients/generate.sh "$build/generated"
diff -r "$build/generated/python/seriatim" clients/python/seriatim --exclude=__pycache__ ||
    { echo "the generated Python code differs from proto/: run make proto" >&2 && exit 1; }
diff -r "$build/generated/go/seriatimv1" clients/go/seriatimv1 ||
    { echo "the generated Go code differs from proto/: run make proto" >&2 && exit 1; }

[ -n "${ONLY:-}" ] || clients/roundtrip/test.sh

python3 -m venv "$build/venv"
"$build/venv/bin/pip" install --quiet --disable-pip-version-check -r clients/python/requirements.txt
go -C clients/go vet ./...
go -C clients/go build -buildvcs=false -o "$build/client-go" .
GOBIN=$build/grpcurl-$grpcurl go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$grpcurl"
mvn -q -B -ntp -Dstyle.color=never -f clients/java/pom.xml package "-Dclient.build=$build/java"

export SERIATIM=$seriatim CLIENT_GO=$build/client-go CLIENT_JAVA=$build/java/client.jar GRPCURL=$build/grpcurl-$grpcurl/grpcurl
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=clients/python "$build/venv/bin/python" -m unittest discover --verbose \
    --start-directory clients/tests --pattern "${ONLY:-test_*}.py"
