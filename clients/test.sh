#!/usr/bin/env bash
# Tests the generated code of seriatim.v1 in six languages, then the client libraries and grpcurl: each library against fake
# servers (clients/conformance/table.py) and against three nodes. Downloads their packages into the build folder, and for Java into
# Maven's own repository. SERIATIM is the program under test. clients/roundtrip/README.md lists what it needs. ONLY=test_behaviour,
# for example, runs one file of clients/conformance or clients/tests; LANGUAGES="go java" tests these libraries.
set -euo pipefail

grpcurl=1.9.3

cd "$(dirname "$0")/.."
seriatim=$(realpath "${SERIATIM:?the program under test}")
only=${ONLY:-}
languages=" ${LANGUAGES:-python go java rust node cpp} "
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/clients"
target=$(realpath "$target")
build=$target/clients

if ! command -v go >/dev/null || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    echo "make test-clients needs Go (1.24 or newer) and Python 3.11 or newer with venv (Debian: golang-go, python3-venv)" >&2
    exit 1
fi
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "make test-clients needs Node.js (20 or newer) and npm (Debian: nodejs, npm)" >&2
    exit 1
fi
if ! command -v javac >/dev/null || ! command -v mvn >/dev/null; then
    echo "make test-clients needs a JDK (17 or newer) and Maven (Debian: openjdk-17-jdk-headless, maven)" >&2
    exit 1
fi

# A build folder of another clone is not continued. It compiles faster without -O2.
grep -qsx "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD/clients/cpp" "$build/cpp/CMakeCache.txt" || rm -rf "$build/cpp"
if [[ $languages == *" cpp "* ]] &&
    ! cmake -S clients/cpp -B "$build/cpp" -DSERIATIM_WERROR=ON -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O1 >/dev/null; then
    echo "make test-clients needs CMake and gRPC for C++ (Debian: g++, cmake, libgrpc++-dev, libprotobuf-dev, protobuf-compiler-grpc)" >&2
    exit 1
fi

rm -rf "$build/generated"
clients/generate.sh "$build/generated"
diff -r "$build/generated/python/seriatim/v1" clients/python/seriatim/v1 --exclude=__pycache__ ||
    { echo "the generated Python code differs from proto/: run make proto" >&2 && exit 1; }
diff -r "$build/generated/go/seriatimv1" clients/go/seriatimv1 ||
    { echo "the generated Go code differs from proto/: run make proto" >&2 && exit 1; }
diff -r "$build/generated/node/src/generated" clients/node/src/generated ||
    { echo "the generated code for Node.js differs from proto/: run make proto" >&2 && exit 1; }

[ -n "$only" ] || clients/roundtrip/test.sh

# Installed from a copy: the build writes into its folder. The tests use the installed package, like an application.
python3 -m venv "$build/venv"
rm -rf "$build/python"
cp -r clients/python "$build/python"
"$build/venv/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps "$build/python"
"$build/venv/bin/pip" install --quiet --disable-pip-version-check -r clients/python/requirements.txt
GOBIN=$build/grpcurl-$grpcurl go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$grpcurl"

# Builds the driver of each library and names it to the tests. The test reports a library without one as skipped.
unset DRIVER_PYTHON DRIVER_GO DRIVER_JAVA DRIVER_RUST DRIVER_NODE LIBRARY_NODE DRIVER_CPP
wanted() { [[ $languages == *" $1 "* ]]; }
if wanted python; then
    export DRIVER_PYTHON="$build/venv/bin/python $PWD/clients/python/conformance_driver.py"
fi
if wanted go; then
    go -C clients/go vet ./...
    go -C clients/go test ./...
    if [ -d clients/go/conformance ]; then
        go -C clients/go build -buildvcs=false -o "$build/driver-go" ./conformance
        export DRIVER_GO=$build/driver-go
    fi
fi
if wanted java; then
    mvn -q -B -ntp -Dstyle.color=never -f clients/java/pom.xml package "-Dclient.build=$build/java"
    if [ -e "$build/java/driver.jar" ]; then
        # Threads for one processor, and the fast compiler only: each case starts a program.
        export DRIVER_JAVA="java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -jar $build/java/driver.jar"
    fi
fi
if wanted rust && { [ -e examples/client_driver.rs ] || grep -q '"client_driver"' Cargo.toml; }; then
    CARGO_TARGET_DIR=$target cargo build --quiet --release --locked --example client_driver
    export DRIVER_RUST=$target/release/examples/client_driver
fi

if wanted node; then
    # A copy, as for Python. Its packages stay from run to run.
    mkdir -p "$build/node"
    find "$build/node" -mindepth 1 -maxdepth 1 ! -name node_modules ! -name installed -exec rm -rf {} +
    (cd clients/node && find . -mindepth 1 -maxdepth 1 ! -name node_modules ! -name dist -exec cp -r {} "$build/node" \;)
    if ! cmp -s "$build/node/package-lock.json" "$build/node/installed"; then
        npm --prefix "$build/node" ci --silent --ignore-scripts --no-audit --no-fund
        cp "$build/node/package-lock.json" "$build/node/installed"
    fi
    npm --prefix "$build/node" run --silent build
    npm --prefix "$build/node" test --silent
    export LIBRARY_NODE=$build/node
    export DRIVER_NODE="node --no-deprecation $build/node/dist/conformance/driver.js"
fi
if wanted cpp; then
    cmake --build "$build/cpp" >/dev/null
    (cd "$build/cpp" && ctest --output-on-failure)
    export DRIVER_CPP=$build/cpp/conformance/seriatim-driver
fi

# gRPC's own log contains every connection that breaks.
export SERIATIM=$seriatim GRPCURL=$build/grpcurl-$grpcurl/grpcurl PYTHONDONTWRITEBYTECODE=1 GRPC_VERBOSITY=NONE
for folder in clients/conformance clients/tests; do
    [ -n "$only" ] && [ ! -e "$folder/$only.py" ] && continue
    "$build/venv/bin/python" -m unittest discover --verbose --start-directory "$folder" --pattern "${only:-test_*}.py"
done
