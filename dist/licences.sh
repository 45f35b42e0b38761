#!/bin/sh
# Prints the licences of everything that the program is linked with, for the packages: each text
# once, after the names of the crates that it covers. The texts come from the crates themselves.
#
# Usage: dist/licences.sh [OPTIONS OF cargo tree]; it needs cargo, whose crates must be downloaded.
set -eu

cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
host=$(rustc -vV | sed -n 's/^host: //p')

cargo tree --locked --edges normal --target "$host" --prefix none --format '{p}|{l}' "$@" |
    sed 's/ (proc-macro)//; s/ (\*)//; /^seriatim /d; /^$/d' >"$work/linked"
# A build dependency, of which the compiled C code is linked nevertheless.
cargo tree --locked --edges normal,build --target "$host" --prefix none --format '{p}|{l}' "$@" |
    grep '^openssl-src ' | sed 's/ (\*)//' >>"$work/linked" || true
sort -u "$work/linked" >"$work/crates"

echo "Seriatim contains these libraries, each under its own licence:"
echo
sed 's/|/: /; s/ v/ /' "$work/crates"

cargo metadata --locked --format-version 1 --filter-platform "$host" |
    grep -o '"manifest_path":"[^"]*"' | sed 's/^"manifest_path":"//; s/"$//' >"$work/manifests"
mkdir "$work/texts" "$work/names"
while IFS='|' read -r crate _; do
    name=$(echo "$crate" | sed 's/ v/-/')
    manifest=$(grep -F "/$name/Cargo.toml" "$work/manifests" | head -n 1) || continue
    directory=${manifest%/Cargo.toml}
    for file in "$directory"/LICEN[CS]E* "$directory"/COPYING* "$directory"/NOTICE* "$directory"/licenses/* \
        "$directory"/grpc/LICENSE* "$directory"/grpc/NOTICE* "$directory"/grpc/third_party/*/LICENSE* \
        "$directory"/grpc/third_party/*/*/LICENSE* "$directory"/grpc/third_party/*/NOTICE* \
        "$directory"/src/zlib/LICENSE* "$directory"/openssl/LICENSE* "$directory"/jemalloc/COPYING*; do
        [ -f "$file" ] || continue
        # The same text with other spaces is the same text.
        sum=$(tr -s '[:space:]' ' ' <"$file" | cksum | tr ' ' -)
        cp "$file" "$work/texts/$sum"
        echo "$name${file#"$directory"}" | sed 's|/[^/]*$||' >>"$work/names/$sum"
    done
done <"$work/crates"

# Rust's standard library.
documents=$(rustc --print sysroot)/share/doc/rust
for file in "$documents"/LICENSE-* "$documents"/licenses/MIT.txt "$documents"/licenses/Apache-2.0.txt; do
    [ -f "$file" ] || continue
    sum=$(tr -s '[:space:]' ' ' <"$file" | cksum | tr ' ' -)
    cp "$file" "$work/texts/$sum"
    echo "rust-$(rustc --version | cut -d ' ' -f 2)" >>"$work/names/$sum"
done

for text in "$work"/texts/*; do
    printf '\n%s\n' ------------------------------------------------------------------------
    sort -u "$work/names/${text##*/}" | tr '\n' ' ' | fold -s -w 72
    printf '\n\n'
    cat "$text"
done
