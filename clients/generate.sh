#!/usr/bin/env bash
# Generates the clients' code from proto/log/v1/log.proto; what it writes is committed. Needs Python 3 with pip, Go, and the
# network: it downloads grpcio-tools (which has protoc) and Go's two plugins.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check 'grpcio-tools==1.74.0'
GOBIN=$tools/bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.6
GOBIN=$tools/bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1
PATH=$tools/bin:$PATH "$tools/venv/bin/python" -m grpc_tools.protoc --proto_path=proto \
    --python_out=clients/python --pyi_out=clients/python --grpc_python_out=clients/python \
    --go_out=clients/go --go_opt=module=seriatim/clients/go \
    --go-grpc_out=clients/go --go-grpc_opt=module=seriatim/clients/go \
    log/v1/log.proto
