#!/usr/bin/env bash
# Installs the .deb in new, minimal Debian systems, and tries it there: the libraries are found, the
# unit is accepted, quickstart works for an ordinary user, an upgrade keeps the configuration, and a
# purge keeps the records. Then the program of the tarball, if there is one that was built on Debian
# 11: it runs on all of them, with an OpenSSL of its own.
#
# Usage: dist/test-package.sh [SUITE...]      (default: bullseye bookworm trixie)
#
#   PACKAGES=directory  where `make package` has put them (default: package in the build folder)
#   ROOTS=directory     keeps the new systems there, as tar files, for the next run
#
# Needs root, debootstrap and a mirror of Debian. Without root it is SKIPPED, which is said.
set -euo pipefail

cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
packages=$(realpath -m "${PACKAGES:-$target/package}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suites=${*:-bullseye bookworm trixie}

if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo "SKIPPED: dist/test-package.sh: needs root and debootstrap: NO PACKAGE WAS TESTED" >&2
    exit 0
fi

work=$(mktemp -d)
mounted=()
clean() {
    for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do umount "${mounted[i]}" || umount -l "${mounted[i]}"; done
    rm -rf --one-file-system "$work"
}
trap clean EXIT

# The newest package that was built for this release or an older one with the same OpenSSL.
package_for() {
    case $1 in
    bullseye) ls -t "$packages"/seriatim_*~deb11_*.deb ;;
    *) ls -t "$packages"/seriatim_*.deb | grep -v '~deb11_' ;;
    esac 2>/dev/null | head -n 1
}

new_root() { # new_root SUITE DIRECTORY
    local kept=${ROOTS:+$ROOTS/$1.tar}
    if [ -n "$kept" ] && [ -e "$kept" ]; then
        mkdir "$2" && tar -xf "$kept" -C "$2"
        return
    fi
    debootstrap --variant=minbase --include=ca-certificates "$1" "$2" "$mirror" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
    cp /etc/resolv.conf "$2/etc/resolv.conf"
    chroot "$2" apt-get update -qq
    if [ -n "$kept" ]; then mkdir -p "$ROOTS" && tar -cf "$kept" -C "$2" .; fi
}

check() { # check TEXT COMMAND...: runs it inside; prints its output if it fails
    local text=$1
    shift
    if ! chroot "$root" "$@" >"$work/output" 2>&1; then
        echo "  FAILED: $text: $*" >&2
        sed 's/^/    /' "$work/output" >&2
        exit 1
    fi
    echo "  $text"
}

apt() { chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o Dpkg::Use-Pty=0 "$@"; }

for suite in $suites; do
    package=$(package_for "$suite")
    [ -n "$package" ] || { echo "no package for $suite in $packages; type: make package" >&2; exit 1; }
    echo "$suite: ${package##*/}"
    root=$work/$suite
    new_root "$suite" "$root"
    mount -t proc proc "$root/proc"
    mounted+=("$root/proc")
    cp "$package" "$root/seriatim.deb"

    begin=$(date +%s.%N)
    apt install --no-install-recommends /seriatim.deb >"$work/output" 2>&1 || { cat "$work/output" >&2; exit 1; }
    chroot "$root" useradd --create-home alice
    user="runuser -u alice -- env HOME=/home/alice"
    check "quickstart for an ordinary user" $user seriatim quickstart --port 0
    end=$(date +%s.%N)
    cp "$work/output" "$work/quickstart"
    awk -v a="$begin" -v b="$end" 'BEGIN {
        printf "  from the package to the first record: %.1f s\n", b - a; exit b - a > 60 }' ||
        { echo "  FAILED: more than a minute" >&2; exit 1; }

    check "the libraries are found" sh -c '! ldd /usr/bin/seriatim | grep "not found"'
    chroot "$root" ldd /usr/bin/seriatim | sed 's/^[[:space:]]*/    /; s/ (0x.*//'
    check "$(chroot "$root" seriatim --version)" seriatim --version
    check "records of a second command" sh -c "echo hello | $user seriatim produce && $user seriatim consume --from earliest | grep -x hello"
    check "status" $user seriatim status
    if chroot "$root" $user seriatim quickstart --port 0 >"$work/output" 2>&1; then
        echo "  FAILED: a second quickstart was not refused" >&2
        exit 1
    fi
    check "undo" $user seriatim quickstart --undo
    check "nothing is left of it" test ! -e /home/alice/.local/share/seriatim/quickstart
    check "nothing was enabled" sh -c '! ls /etc/systemd/system/*/seriatim.service'
    check "manual pages and completions" test -s /usr/share/man/man1/seriatim-quickstart.1.gz \
        -a -s /usr/share/bash-completion/completions/seriatim -a -s /usr/share/zsh/vendor-completions/_seriatim \
        -a -s /usr/share/fish/vendor_completions.d/seriatim.fish
    check "the configuration is valid but for the certificates" sh -c '
        seriatim config check /etc/seriatim/seriatim.toml --acl-policy-file /etc/seriatim/policy.csv 2>&1 | tee /dev/stderr |
            grep -v "^  .*\(cert\|key\|ca\)_file.*is missing" | grep -q "6 errors\|5 errors"'

    apt install --no-install-recommends systemd >"$work/output" 2>&1 || { cat "$work/output" >&2; exit 1; }
    if chroot "$root" systemd-analyze verify --man=no /usr/lib/systemd/system/seriatim.service >"$work/output" 2>&1 &&
        ! grep -q seriatim.service "$work/output"; then
        echo "  systemd accepts the unit"
    elif grep -q "Failed to initialize manager" "$work/output"; then
        echo "  the unit is not checked: this systemd-analyze needs control groups (dist/test-hosts.sh runs it)"
    else
        cat "$work/output" >&2
        echo "  FAILED: systemd does not accept the unit" >&2
        exit 1
    fi
    if chroot "$root" systemd-analyze security --offline=yes seriatim.service >"$work/output" 2>&1; then
        echo "  exposure: $(tail -n 1 "$work/output" | sed 's/.*: *//')"
    else
        echo "  exposure: not measured, this systemd-analyze has no --offline"
    fi

    echo "# of the administrator" >>"$root/etc/seriatim/policy.csv"
    chroot "$root" install -d -o seriatim -g seriatim -m 700 /var/lib/seriatim
    chroot "$root" runuser -u seriatim -- touch /var/lib/seriatim/record
    apt install --reinstall --no-install-recommends /seriatim.deb >"$work/output" 2>&1 || { cat "$work/output" >&2; exit 1; }
    check "an upgrade keeps the configuration" grep -q "of the administrator" /etc/seriatim/policy.csv
    apt purge seriatim >"$work/output" 2>&1 || { cat "$work/output" >&2; exit 1; }
    grep -q "records stay in /var/lib/seriatim" "$work/output" ||
        { cat "$work/output"; echo "  FAILED: a purge does not say that the records stay"; exit 1; } >&2
    check "a purge removes the configuration, and neither the records nor their owner" sh -c '
        ! ls /etc/seriatim /usr/bin/seriatim 2>/dev/null && test -e /var/lib/seriatim/record && getent passwd seriatim'

    tarball=$(ls -t "$packages"/seriatim-*-linux.tar.gz 2>/dev/null | head -n 1) || true
    if [ -n "$tarball" ] && ls "$packages"/seriatim_*~deb11_*.deb >/dev/null 2>&1; then
        tar -xzf "$tarball" -C "$root/opt"
        check "the program of the tarball" sh -c '
            cd /opt/seriatim-* && bin/seriatim --version && ! ldd bin/seriatim | grep "ssl\|crypto\|not found"'
        check "quickstart with it" $user sh -c 'cd /opt/seriatim-* && bin/seriatim quickstart --port 0 && bin/seriatim quickstart --undo'
    fi
done
echo "passed: $suites"
