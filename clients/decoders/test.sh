#!/usr/bin/env bash
# Decodes the golden responses with the protobuf decoders of other languages, which README.md lists. Downloads them with
# the ordinary package clients into the build folder; for C++ it installs the system's libprotobuf if it is missing.
set -euo pipefail

java_versions=(2.6.1 3.25.8 4.31.1)

cd "$(dirname "$0")/../.."
golden=$PWD/tests/golden/wire
decoders=$PWD/clients/decoders
build=${CARGO_TARGET_DIR:-target}/decoders
mkdir -p "$build"
build=$(realpath "$build")

for tool in go java javac mvn node npm python3; do
    command -v "$tool" >/dev/null ||
        { echo "make test-decoders needs $tool; all that it needs: clients/decoders/README.md" >&2 && exit 1; }
done
if ! { command -v g++ && command -v protoc && command -v pkg-config && pkg-config --exists protobuf; } >/dev/null; then
    echo "Installing a C++ compiler and libprotobuf (apt)" >&2
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends g++ pkg-config protobuf-compiler libprotobuf-dev >/dev/null
fi

# compare NAME COMMAND...: the command must print the expected output.
compare() {
    local name=$1
    shift
    "$@" >"$build/$name.jsonl"
    python3 "$decoders/compare.py" "$name" "$golden/expected.jsonl" "$build/$name.jsonl"
}

python3 -m venv "$build/venv"
"$build/venv/bin/pip" install --quiet --disable-pip-version-check -r "$decoders/python/requirements.txt"
protos=(log/v1/log.proto seriatim/v1/errors.proto seriatim/v1/log_service.proto seriatim/v1/cluster_service.proto)
protos+=(grpc/health/v1/health.proto)
protos+=(google/rpc/status.proto google/rpc/error_details.proto)
descriptors=$build/descriptors.bin
"$build/venv/bin/python" -m grpc_tools.protoc -I proto --include_imports --descriptor_set_out="$descriptors" "${protos[@]}"
for implementation in upb python; do
    PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=$implementation compare "python-$implementation" \
        "$build/venv/bin/python" -W ignore "$decoders/python/decode.py" "$implementation" "$golden" "$descriptors"
done

for version in "${java_versions[@]}"; do
    classes=$build/java-$version
    mkdir -p "$classes"
    jar=$classes/protobuf-java-$version.jar
    test -e "$jar" || mvn -q -B -ntp -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        "-Dartifact=com.google.protobuf:protobuf-java:$version" "-DoutputDirectory=$classes"
    javac -nowarn -d "$classes" -cp "$jar" "$decoders/java/Decode.java"
    compare "protobuf-java-$version" java -cp "$jar:$classes" Decode "$golden" "$descriptors"
done

# Code of both packages in one program. That of log.v1 gets an import path of its own here: the project publishes none.
clients/generate.sh "$build/generated"
tools=$(realpath "$build/..")/clients/generators
module=github.com/seriatim-log/seriatim/clients/decoders/go
rm -rf "$build/go"
cp -r "$decoders/go" "$build/go"
PATH="$tools:$PATH" "$build/venv/bin/python" -m grpc_tools.protoc -I proto log/v1/log.proto \
    --go_out="$build/go" --go_opt="module=$module,Mlog/v1/log.proto=$module/oldlogv1;oldlogv1"
go -C "$build/go" mod edit -replace "github.com/seriatim-log/seriatim/clients/go=$PWD/clients/go"
go -C "$build/go" build -buildvcs=false -o "$build/decode-go" .
for code in generated dynamic; do
    compare "go-$code" "$build/decode-go" "$code" "$golden" "$descriptors"
done

mkdir -p "$build/js"
cp "$decoders"/js/{package.json,package-lock.json,decode.js} "$build/js"
npm --prefix "$build/js" ci --silent --ignore-scripts --no-audit --no-fund
compare protobufjs node "$build/js/decode.js" "$golden" "$PWD/proto"

mkdir -p "$build/cpp"
protoc -I proto --cpp_out="$build/cpp" "${protos[@]}"
read -ra flags < <(pkg-config --cflags --libs protobuf)
sources=("${protos[@]/#/$build/cpp/}")
g++ -std=c++17 -O1 -w -I "$build/cpp" -o "$build/decode-cpp" "$decoders/cpp/decode.cc" \
    "${sources[@]/%.proto/.pb.cc}" "${flags[@]}"
compare "cpp-$(protoc --version | cut -d ' ' -f 2)" "$build/decode-cpp" "$golden"
