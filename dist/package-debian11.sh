#!/usr/bin/env bash
# Builds the .deb for Debian 11, and a .rpm and the tarball for every Linux with glibc 2.31 or newer, in
# a directory with a Debian 11 of its own. They contain an OpenSSL of their own.
#
# Usage: dist/package-debian11.sh [ROOT]      ROOT: where Debian 11 is, or is installed to
#                                             (default: package-debian11 in the build folder)
#
# Needs root (debootstrap and chroot), debootstrap, and Rust in $RUSTUP_HOME and $CARGO_HOME (by
# default ~/.rustup and ~/.cargo), which are used in there. The first build takes about ten minutes
# on two idle cores.
set -euo pipefail

cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "package-debian11.sh: needs root, for debootstrap and chroot" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "package-debian11.sh: needs debootstrap; type: apt-get install debootstrap" >&2; exit 1; }
source=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
root=$(realpath -m "${1:-$target/package-debian11}")
build=$target/debian11
rustup=${RUSTUP_HOME:-$HOME/.rustup}
cargo=${CARGO_HOME:-$HOME/.cargo}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

if [ ! -e "$root/etc/debian_version" ]; then
    echo "Installing Debian 11 into $root"
    mkdir -p "$root"
    debootstrap --variant=minbase --include=ca-certificates bullseye "$root" "$mirror" >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; exit 1; }
fi

mounted=()
unmount() {
    for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do umount "${mounted[i]}"; done
}
trap unmount EXIT
bind() { # bind DIRECTORY: the same path inside
    mkdir -p "$1" "$root$1"
    mount --bind "$1" "$root$1"
    mounted+=("$root$1")
}
mount -t proc proc "$root/proc"
mounted+=("$root/proc")
# Keys of the host's certificate authorities, through which cargo downloads.
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt" 2>/dev/null || true
for directory in "$source" "$build" "$rustup" "$cargo"; do bind "$directory"; done

inside() {
    chroot "$root" env -i HOME="$HOME" RUSTUP_HOME="$rustup" CARGO_HOME="$cargo" CARGO_TARGET_DIR="$build" \
        CARGO_NET_OFFLINE="${CARGO_NET_OFFLINE:-false}" CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-$(nproc)}" \
        SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}" VENDORED=1 \
        ${TOOLS:+TOOLS="$TOOLS"} PATH="$cargo/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@"
}
# Perl builds OpenSSL; dpkg-dev finds the libraries that the package depends on.
inside sh -c 'command -v dpkg-shlibdeps c++ cmake perl xz file >/dev/null ||
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        g++ make cmake pkg-config perl dpkg-dev xz-utils file; } >/dev/null'
inside sh -c "cd '$source' && dist/package.sh tarball deb rpm"
mkdir -p "$target/package"
cp "$build"/package/* "$target/package/"
echo "Copied to $target/package"
