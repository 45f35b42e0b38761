#!/usr/bin/env bash
# Compiles the code that protobuf generates from seriatim.v1 in each language, decodes and encodes the golden messages with it,
# and compares bytes and JSON. README.md lists the languages. ONLY=go, for example, tests one.
# UPDATE_GOLDENFILES=1 writes the golden messages first.
set -euo pipefail

cd "$(dirname "$0")/../.."
programs=$PWD/clients/roundtrip
golden=$PWD/tests/golden/wire-v1
build=${CARGO_TARGET_DIR:-target}/clients/roundtrip
mkdir -p "$build"
build=$(realpath "$build")
tools=$(realpath "$build/..")/generators

for tool in cargo go javac mvn node npm python3; do
    command -v "$tool" >/dev/null ||
        { echo "the round trip needs $tool; all that it needs: clients/roundtrip/README.md" >&2 && exit 1; }
done

if ! { command -v g++ && command -v protoc && command -v pkg-config && pkg-config --exists protobuf; } >/dev/null; then
    echo "Installing a C++ compiler and libprotobuf (apt)" >&2
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends g++ pkg-config protobuf-compiler libprotobuf-dev >/dev/null
fi

# The generators of Go and Python, and the descriptors for Rust.
clients/generate.sh "$build/generated"
protos=(seriatim/v1/errors.proto seriatim/v1/log_service.proto seriatim/v1/cluster_service.proto)
compile=("$tools/venv/bin/python" -m grpc_tools.protoc -I proto)

python3 -m venv "$build/venv"
python=$build/venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check -r clients/python/requirements.txt
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PWD/clients/python
rm -rf "$build/golden"
"$python" "$programs/golden.py" "$build/golden"
if [ -n "${UPDATE_GOLDENFILES:-}" ]; then
    rm -rf "$golden"
    cp -r "$build/golden" "$golden"
fi
diff -rq "$build/golden" "$golden" ||
    { echo "golden.py writes other messages than tests/golden/wire-v1 contains: run UPDATE_GOLDENFILES=1 $0" >&2 && exit 1; }

# check NAME COMMAND...: the command must print the golden messages.
check() {
    local name=$1
    shift
    "$@" >"$build/$name.jsonl"
    python3 "$programs/check.py" "$name" "$golden" "$build/$name.jsonl"
}

test_python() {
    check python "$python" "$programs/python/roundtrip.py" "$golden"
}

# The code of log.v1 gets an import path of its own here: the project publishes none.
test_go() {
    local module=github.com/seriatim-log/seriatim/clients/roundtrip/go
    rm -rf "$build/go"
    cp -r "$programs/go" "$build/go"
    PATH="$tools:$PATH" "${compile[@]}" log/v1/log.proto \
        --go_out="$build/go" --go_opt="module=$module,Mlog/v1/log.proto=$module/oldlogv1;oldlogv1"
    go -C "$build/go" mod edit -replace "github.com/seriatim-log/seriatim/clients/go=$PWD/clients/go"
    go -C "$build/go" vet ./...
    go -C "$build/go" build -buildvcs=false -o "$build/roundtrip-go" .
    check go-with-log-v1 "$build/roundtrip-go" "$golden"
}

test_java() {
    mvn -q -B -ntp -Dstyle.color=never -f "$programs/java/pom.xml" package "-Droundtrip.build=$build/java"
    check java-with-log-v1 java -jar "$build/java/roundtrip.jar" "$golden"
}

test_js() {
    mkdir -p "$build/js/es"
    cp "$programs"/js/* "$build/js"
    if ! cmp -s "$build/js/package-lock.json" "$build/js/installed"; then
        npm --prefix "$build/js" ci --silent --ignore-scripts --no-audit --no-fund
        cp "$build/js/package-lock.json" "$build/js/installed"
    fi
    PATH="$build/js/node_modules/.bin:$PATH" "${compile[@]}" "${protos[@]}" \
        --es_out="$build/js/es" --es_opt=target=js,import_extension=js
    check protobuf-es node "$build/js/protobuf-es.js" "$golden"
    "$build/js/node_modules/.bin/pbjs" --target static-module --wrap commonjs --force-long --path proto \
        --out "$build/js/protobufjs-static.cjs" "${protos[@]/#/proto/}"
    check protobufjs node "$build/js/protobufjs.js" "$golden"
}

test_cpp() {
    local flags
    mkdir -p "$build/cpp"
    protoc -I proto --cpp_out="$build/cpp" "${protos[@]}"
    read -ra flags < <(pkg-config --cflags --libs protobuf)
    local sources=("${protos[@]/#/$build/cpp/}")
    g++ -std=c++17 -O0 -Wall -Wextra -I "$build/cpp" -o "$build/roundtrip-cpp" "$programs/cpp/roundtrip.cc" \
        "${sources[@]/%.proto/.pb.cc}" "${flags[@]}"
    check cpp "$build/roundtrip-cpp" "$golden"
}

test_rust() {
    "${compile[@]}" --include_imports --descriptor_set_out="$build/descriptors.bin" "${protos[@]}"
    DESCRIPTORS=$build/descriptors.bin CARGO_TARGET_DIR=$build/rust \
        cargo run --quiet --locked --manifest-path "$programs/rust/Cargo.toml" -- "$golden" >"$build/rust.jsonl"
    check prost cat "$build/rust.jsonl"
}

for language in ${ONLY:-python go java js cpp rust}; do
    "test_$language"
done
