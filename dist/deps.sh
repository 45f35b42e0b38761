#!/bin/sh
# Installs what the build needs from the system. Prints nothing if nothing is missing. Plain sh: not
# every system has bash.
#
# Needed: a C and a C++ compiler, make, cmake, pkg-config, OpenSSL's headers, the CA certificates
# with which cargo downloads, bash for the demo, and Rust. This script does not install Rust,
# because there are several ways to do so.
set -eu

cd "$(dirname "$0")/.."
rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

have() { command -v "$1" >/dev/null 2>&1; }

missing=
lacks() { missing="${missing:+$missing, }$1"; }

have cc || lacks "a C compiler"
have c++ || have g++ || lacks "a C++ compiler"
have make || lacks "make"
have cmake || lacks "cmake"
have bash || lacks "bash"
if ! have pkg-config; then
    lacks "pkg-config, OpenSSL's headers"
elif ! pkg-config --exists 'openssl >= 1.1.0'; then
    lacks "OpenSSL's headers"
fi
certificates=
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem \
    /etc/ssl/cert.pem /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem "${SSL_CERT_FILE:-}"; do
    if [ -n "$file" ] && [ -s "$file" ]; then certificates=$file; fi
done
[ -n "$certificates" ] || lacks "CA certificates"

if [ -n "$missing" ]; then
    if have apt-get; then
        install="apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends g++ make cmake pkg-config libssl-dev ca-certificates bash"
    elif have dnf; then
        install="dnf install -y -q gcc-c++ make cmake pkgconf-pkg-config openssl-devel ca-certificates bash"
    elif have pacman; then
        install="pacman -Sy --noconfirm --needed gcc make cmake pkgconf openssl ca-certificates bash"
    elif have zypper; then
        install="zypper --non-interactive install gcc-c++ make cmake pkg-config libopenssl-devel ca-certificates bash"
    elif have apk; then
        install="apk add --no-progress g++ make cmake pkgconf openssl-dev linux-headers ca-certificates bash"
    else
        install=
    fi
    echo "Missing from the system: $missing." >&2
    if [ -z "$install" ]; then
        echo "This script knows none of the package managers here (it knows apt, dnf, pacman, zypper, apk). Install the above by hand, then run the same command again." >&2
        exit 1
    fi
    sudo=
    by_hand="sh -c '$install'"
    if [ "$(id -u)" -ne 0 ]; then
        if have sudo; then by_hand="sudo $by_hand"; else by_hand="su -c \"$install\""; fi
        # Without a terminal, sudo must not ask for a password.
        if have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
            sudo=sudo
        else
            printf '%s\n' "This needs root, and sudo is missing or would ask for a password here. Type:" "  $by_hand" >&2
            exit 1
        fi
    fi
    echo "Installing: $install" >&2
    # Hundreds of lines of output, shown only if the installation fails.
    output=$(mktemp)
    if ! $sudo sh -c "$install" >"$output" 2>&1; then
        cat "$output" >&2
        rm -f "$output"
        printf '%s\n' "The installation failed; the reason is above. When it is corrected, type:" "  $by_hand" >&2
        exit 1
    fi
    rm -f "$output"
    echo "Installed." >&2
fi

if ! have cargo || ! have rustc; then
    printf '%s\n' "Missing: Rust $rust_version or newer. Type:" \
        "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\"" \
        "and then the same command again." >&2
    exit 1
fi
if ! found=$(rustc --version) || ! cargo --version >/dev/null; then
    printf '%s\n' "Rust is installed but does not run; the reason is above. If rustup has no toolchain yet, type:" \
        "  rustup default stable" "and then the same command again." >&2
    exit 1
fi
found=$(echo "$found" | cut -d ' ' -f 2)
if [ "$(printf '%s\n' "$rust_version" "${found%%-*}" | sort -V | head -n 1)" != "$rust_version" ]; then
    printf '%s\n' "Rust $found is older than the $rust_version that this needs. Type:" "  rustup update stable" >&2
    exit 1
fi
