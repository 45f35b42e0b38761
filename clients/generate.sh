#!/usr/bin/env bash
# Generates the clients' committed code from proto/log/v1/log.proto. Downloads the generators, in these versions.
# With a folder as its argument, it writes there instead.
# The Python generator is an older one on purpose: its code runs with every newer grpcio, but not with an older one.
set -euo pipefail

grpcio_tools=1.74.0
protoc_gen_go=1.36.6
protoc_gen_go_grpc=1.5.1

cd "$(dirname "$0")/.."
out=${1:-clients}
mkdir -p "$out/python" "$out/go"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "grpcio-tools==$grpcio_tools"
export GOBIN=$work/bin
go install "google.golang.org/protobuf/cmd/protoc-gen-go@v$protoc_gen_go"
go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v$protoc_gen_go_grpc"

# shellcheck disable=SC2054 # The commas belong to the options.
PATH="$work/bin:$PATH" "$work/venv/bin/python" -m grpc_tools.protoc -I proto log/v1/log.proto \
    --python_out="$out/python" --pyi_out="$out/python" --grpc_python_out="$out/python" \
    --go_out="$out/go" --go_opt=module=seriatim/clients/go \
    --go-grpc_out="$out/go" --go-grpc_opt=module=seriatim/clients/go
