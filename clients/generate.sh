#!/usr/bin/env bash
# Generates the clients' committed code of seriatim.v1 from proto/. Downloads the generators, in these versions.
# With a folder as its argument, it writes there instead. Needs Python, Go and Node.js.
# The Python generator is an older one on purpose: its code runs with every newer grpcio, but not with an older one.
# The generators are kept in the build folder, so that the next run does not download them.
set -euo pipefail

grpcio_tools=1.74.0
protoc_gen_go=1.36.6
protoc_gen_go_grpc=1.5.1
protos=(seriatim/v1/errors.proto seriatim/v1/log_service.proto seriatim/v1/cluster_service.proto)

cd "$(dirname "$0")/.."
out=${1:-clients}
tools=${CARGO_TARGET_DIR:-target}/clients/generators
mkdir -p "$out/python" "$out/go" "$out/node/src/generated" "$tools"
tools=$(realpath "$tools")

if ! "$tools/venv/bin/pip" show grpcio-tools 2>/dev/null | grep -qx "Version: $grpcio_tools"; then
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check "grpcio-tools==$grpcio_tools"
fi
export GOBIN=$tools
# Go keeps what it has built, so that this is done once.
go install "google.golang.org/protobuf/cmd/protoc-gen-go@v$protoc_gen_go"
go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v$protoc_gen_go_grpc"
# The generator for Node.js has its version in clients/node/package.json.
mkdir -p "$tools/node"
if ! cmp -s clients/node/package-lock.json "$tools/node/installed"; then
    cp clients/node/package.json clients/node/package-lock.json "$tools/node"
    npm --prefix "$tools/node" ci --silent --ignore-scripts --no-audit --no-fund
    cp clients/node/package-lock.json "$tools/node/installed"
fi

module=github.com/seriatim-log/seriatim/clients/go
# shellcheck disable=SC2054 # The commas belong to the options.
PATH="$tools:$PATH" "$tools/venv/bin/python" -m grpc_tools.protoc -I proto "${protos[@]}" \
    --python_out="$out/python" --pyi_out="$out/python" --grpc_python_out="$out/python" \
    --go_out="$out/go" --go_opt="module=$module" \
    --go-grpc_out="$out/go" --go-grpc_opt="module=$module"
# The errors have messages and no service.
rm -f "$out/python/seriatim/v1/errors_pb2_grpc.py"
PATH="$tools/node/node_modules/.bin:$PATH" "$tools/venv/bin/python" -m grpc_tools.protoc -I proto \
    "${protos[@]}" google/rpc/status.proto google/rpc/error_details.proto \
    --es_out="$out/node/src/generated" --es_opt=target=ts,import_extension=js
