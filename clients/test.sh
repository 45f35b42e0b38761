#!/usr/bin/env bash
# Runs the Python and the Go client against each of three nodes: `make test-clients`. The one check that may download.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath "${CARGO_TARGET_DIR:-target}")
tools=$target/clients
for need in python3 go; do
    command -v "$need" >/dev/null || { echo "Missing: $need (Debian: apt-get install python3-venv golang-go; go 1.24 or newer)" >&2; exit 1; }
done
mkdir -p "$tools"
if ! [ -x "$tools/venv/bin/python" ]; then
    python3 -m venv "$tools/venv" || { rm -rf "$tools/venv"; echo "Missing: Python's venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
fi
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check -r clients/python/requirements.txt
(cd clients/go && go build -o "$tools/go-client" .)
printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$tools/venv/bin/python" "$PWD/clients/python/example.py" >"$tools/python-client"
chmod +x "$tools/python-client"
SERIATIM_TEST_CLIENTS=$tools/python-client:$tools/go-client \
    ${SERIATIM_TEST_E2E:-cargo test --release --locked --test e2e --} clients:: --nocapture
