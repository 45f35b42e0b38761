#!/usr/bin/env bash
# Checks proto/ by the rules in buf.yaml, and compares it with tests/golden/api.txtpb: a change that breaks clients' code or bytes
# fails. `clients/buf.sh baseline` writes that file: at each release, and before the first one after a deliberate change.
# Compiles buf on the first run, which takes some minutes, and keeps it in the build folder.
set -euo pipefail

version=1.59.0

cd "$(dirname "$0")/.."
baseline=tests/golden/api.txtpb
tools=${CARGO_TARGET_DIR:-target}/clients/buf-$version
if [ ! -x "$tools/buf" ]; then
    if ! command -v go >/dev/null; then
        echo "proto/ is not checked with buf: that needs Go (Debian: golang-go)" >&2
        exit 0
    fi
    echo "Compiling buf $version, once" >&2
    mkdir -p "$tools"
    if ! GOBIN=$(realpath "$tools") go install "github.com/bufbuild/buf/cmd/buf@v$version" 2>"$tools/log"; then
        cat "$tools/log" >&2
        echo "proto/ is NOT CHECKED with buf: Go could not download or compile it" >&2
        exit 0
    fi
fi

if [ "${1:-}" = baseline ]; then
    "$tools/buf" build --exclude-source-info -o "$baseline"
    exit
fi
"$tools/buf" lint
"$tools/buf" breaking --against "$baseline"
echo "proto/ keeps the rules of buf.yaml, and breaks nothing of $baseline"
