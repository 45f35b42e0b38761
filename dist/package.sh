#!/usr/bin/env bash
# Builds packages: a .deb, a .rpm, and a tarball for systems without either.
#
# Usage: dist/package.sh [deb] [rpm] [tarball]     (all three by default)
#
#   VENDORED=1          also the .deb and the .rpm contain an OpenSSL of their own (see
#                       docs/DECISIONS.md, "Packages"), as the tarball always does
#   SERIATIM=program    package this program instead of building one
#   TOOLS=directory     where cargo-deb and cargo-generate-rpm are, or are installed to
#
# A package runs on the release on which it was built and on newer ones, if their OpenSSL is of the
# same version. dist/package-debian11.sh builds one for Debian 11. Nothing is installed outside of
# the build folder.
set -euo pipefail

cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=${TOOLS:-$target/package-tools}
out=$target/package
stage=$target/release/package       # cargo-deb and cargo-generate-rpm look below target/release
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
machine=$(uname -m)
wanted=${*:-tarball deb rpm}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)}

has() { case " $wanted " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
for kind in $wanted; do
    case $kind in deb | rpm | tarball) ;; *)
        echo "package.sh: \"$kind\" is not a kind of package: deb, rpm, tarball" >&2
        exit 2
        ;;
    esac
done

# The versions are pinned: another one may write other packages. `cargo install` does nothing if
# this one is installed.
tool() { # tool NAME VERSION
    if [ ! -x "$tools/bin/$1" ] || ! grep -q "\"$1 $2 " "$tools/.crates.toml"; then
        echo "Installing $1 $2 into $tools" >&2
        CARGO_TARGET_DIR=$tools/target cargo install --quiet --locked --root "$tools" --version "$2" "$1"
    fi
}

# Builds the program, and puts it with everything that is generated from it into $stage.
prepare() { # prepare FEATURES
    local program=${SERIATIM:-}
    # Where an OpenSSL of its own looks for openssl.cnf: a directory that only root writes, and that
    # usually does not exist. The default is in /usr/local, and the system's file may be for another
    # version.
    if [ "$1" = vendored-openssl ]; then export OPENSSL_CONFIG_DIR=/etc/seriatim/openssl; else unset OPENSSL_CONFIG_DIR; fi
    if [ -z "$program" ]; then
        cargo build --release --locked ${1:+--features "$1"}
        program=$target/release/seriatim
    fi
    rm -rf "$stage"
    mkdir -p "$stage/man" "$stage/completions" "$out"
    install -m 755 "$program" "$stage/seriatim"
    # The symbols are kept apart: gdb and perf find them by the build id, or beside the program.
    objcopy --only-keep-debug --compress-debug-sections "$stage/seriatim" "$stage/seriatim.debug"
    strip --strip-unneeded --remove-section=.comment "$stage/seriatim"
    objcopy --add-gnu-debuglink="$stage/seriatim.debug" "$stage/seriatim"
    "$stage/seriatim" man "$stage/man" >/dev/null
    gzip -9n "$stage"/man/*
    for shell in bash zsh fish; do
        "$stage/seriatim" completion $shell >"$stage/completions/$shell"
    done
    dist/licences.sh ${1:+--features "$1"} >"$stage/THIRD-PARTY-LICENCES"
    sed 's|/usr/local/bin/seriatim|/usr/bin/seriatim|' dist/seriatim.service >"$stage/seriatim.service"
    cp dist/seriatim.sysusers "$stage/seriatim.conf"
    for document in docs/OPERATIONS.md CHANGELOG.md THIRD-PARTY-LICENCES; do
        local from=$document
        [ -f "$from" ] || from=$stage/$document
        gzip -9nc "$from" >"$stage/${document##*/}.gz"
    done
    cat >"$stage/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: seriatim
Comment: The libraries that the program contains are listed with their licences in
 /usr/share/doc/seriatim/THIRD-PARTY-LICENCES.gz.

Files: *
Copyright: 2026 The Seriatim authors
License: Apache-2.0
 The text of the licence is in /usr/share/common-licenses/Apache-2.0 on Debian.
END
}

# Debian sorts ~deb11 before ~deb12, and both before the version without it.
revision() {
    local id= release=
    eval "$(sed -n 's/^ID=/id=/p; s/^VERSION_ID=/release=/p' /etc/os-release)"
    if [ "$id" = debian ] && [ -n "$release" ]; then echo "1~deb$release"; else echo 1; fi
}

deb() {
    tool cargo-deb 3.8.0
    local revision maintainer
    revision=$(revision)
    maintainer=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)
    printf 'seriatim (%s-%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n' "$version" "$revision" \
        "$maintainer" "$(date -R --date="@$SOURCE_DATE_EPOCH")" | gzip -9n >"$stage/changelog.Debian.gz"
    "$tools/bin/cargo-deb" deb --quiet --locked --no-build --no-strip --deb-revision "$revision" --output "$out"
}

rpm() {
    tool cargo-generate-rpm 0.21.1
    local release=1
    # With an OpenSSL of its own, it needs the C library only.
    [ -z "${VENDORED:-}" ] || release=1.$(getconf GNU_LIBC_VERSION | tr -d ' ')
    "$tools/bin/cargo-generate-rpm" generate-rpm --auto-req builtin --set-metadata "release = '$release'" --output "$out"
}

# Runs on every Linux with the C and C++ libraries of the build's release or newer.
tarball() {
    local name=seriatim-$version-$machine-linux
    local root=$stage/tar/$name
    rm -rf "$stage/tar"
    mkdir -p "$root"/{bin,etc,systemd,man/man1,completions,doc}
    cp "$stage/seriatim" "$root/bin/"
    cp dist/seriatim.toml acl/policy.csv dist/denied-peers "$root/etc/"
    cp dist/seriatim.service "$root/systemd/"
    cp dist/seriatim.sysusers "$root/systemd/"
    cp "$stage"/man/* "$root/man/man1/"
    cp "$stage"/completions/* "$root/completions/"
    cp README.md CHANGELOG.md docs/OPERATIONS.md "$stage/THIRD-PARTY-LICENCES" LICENSE "$root/doc/"
    tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        --directory "$stage/tar" "$name" | gzip -9n >"$out/$name.tar.gz"
}

symbols() { # symbols NAME
    xz -T0 --stdout "$stage/seriatim.debug" >"$out/$1.debug.xz"
}

if has tarball; then
    prepare vendored-openssl
    tarball
    symbols "seriatim-$version-$machine-linux"
fi
if has deb || has rpm; then
    # The tarball's program is not built again for them.
    if [ -z "${VENDORED:-}" ]; then prepare ""; elif ! has tarball; then prepare vendored-openssl; fi
    if has deb; then deb; fi
    if has rpm; then rpm; fi
    [ -n "${VENDORED:-}" ] && has tarball || symbols "seriatim-$version-$(revision)-$machine"
fi

stripped=$(stat -c %s "$stage/seriatim")
echo "The program without symbols has $((stripped / 1024)) KiB and needs:"
ldd "$stage/seriatim" | sed 's/ (0x.*//; s/^[[:space:]]*/  /'
echo "Packages in $out:"
(cd "$out" && ls -l -- *"$version"* | awk '{printf "  %8d KiB  %s\n", $5 / 1024, $NF}')
