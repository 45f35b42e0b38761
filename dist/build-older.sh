#!/usr/bin/env bash
# Builds an earlier version from the history of this repository, and prints the path of its program. It is built once: the
# result is kept beside cargo's target folder. `make upgrade` runs the upgrade test with it.
#
#   dist/build-older.sh [REVISION]      by default the newest tag, or without tags the revision in tests/older-version
set -euo pipefail
cd "$(dirname "$0")/.."
revision=${1:-$(git describe --tags --abbrev=0 HEAD^ 2>/dev/null || cat tests/older-version)}
commit=$(git rev-parse --verify --quiet "$revision^{commit}") || {
    echo "$revision is not in the history of this clone: fetch it (git fetch --unshallow --tags)" >&2
    exit 1
}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
program=$target/older/$commit/seriatim
if [ ! -x "$program" ]; then
    sources=$(mktemp -d)
    trap 'rm -rf -- "$sources"' EXIT
    git archive "$commit" | tar -x -C "$sources"
    # The same target folder: gRPC's C++ core and most other dependencies are compiled already.
    (cd "$sources" && CARGO_TARGET_DIR=$target cargo build --release --locked --quiet --bin seriatim) >&2
    mkdir -p "$(dirname "$program")"
    # This version builds under the same name.
    cp "$target/release/seriatim" "$program.new"
    mv "$program.new" "$program"
    touch -c src/main.rs
fi
echo "$program"
