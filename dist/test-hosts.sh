#!/usr/bin/env bash
# Three hosts with systemd, each a container with Debian on one network: installs the .deb, copies
# certificates and ONE configuration file to all of them, and starts the services. They must form a
# cluster. A fourth host runs `seriatim quickstart` as root, which starts the service.
#
# Usage: dist/test-hosts.sh [SUITE]        (default: bookworm)
#
#   PACKAGES=directory  where `make package` has put the .deb (default: package in the build folder)
#   ROOTS=directory     keeps the new system there, as a tar file, for the next run
#
# Needs root, debootstrap, systemd-nspawn, iproute2, overlayfs and a mirror of Debian. The network is
# in a namespace of its own. Without root it is SKIPPED, which is said.
set -euo pipefail

cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
packages=$(realpath -m "${PACKAGES:-$target/package}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
skip() { echo "SKIPPED: dist/test-hosts.sh: $1: NO HOST WAS TESTED" >&2; exit 0; }
[ "$(id -u)" = 0 ] || skip "needs root"
for tool in debootstrap systemd-nspawn ip nsenter unshare; do
    command -v $tool >/dev/null || skip "$tool is missing"
done
suite=${1:-bookworm}
libraries=libssl3
unless='~deb11_'
# The package for Debian 11 has an OpenSSL of its own.
if [ "$suite" = bullseye ]; then libraries=libc6 unless='~deb1[^1]_'; fi
package=$(ls -t "$packages"/seriatim_*.deb 2>/dev/null | grep -v "$unless" | head -n 1) || true
[ -n "$package" ] || { echo "no package in $packages; type: make package" >&2; exit 1; }

# Downloads happen before the network is left.
if [ -z "${SERIATIM_TEST_HOSTS_WORK:-}" ]; then
    work=$(mktemp -d)
    trap 'rm -rf --one-file-system "$work"' EXIT
    kept=${ROOTS:+$ROOTS/$suite-systemd.tar}
    mkdir "$work/base"
    if [ -n "$kept" ] && [ -e "$kept" ]; then
        tar -xf "$kept" -C "$work/base"
    else
        debootstrap --variant=minbase --include="systemd,systemd-sysv,dbus,iproute2,adduser,libstdc++6,libgcc-s1,$libraries" \
            "$suite" "$work/base" "$mirror" >"$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
        if [ -n "$kept" ]; then mkdir -p "$ROOTS" && tar -cf "$kept" -C "$work/base" .; fi
    fi
    SERIATIM_TEST_HOSTS_WORK=$work unshare --net --mount --propagation private "$0" "$@"
    exit
fi

work=$SERIATIM_TEST_HOSTS_WORK
declare -A leader nspawn
clean() {
    status=$?
    for host in "${!leader[@]}"; do kill -s RTMIN+4 "${leader[$host]}" 2>/dev/null || true; done
    for host in "${!nspawn[@]}"; do
        # A container that does not power off is killed.
        timeout 20 tail --pid="${nspawn[$host]}" -f /dev/null 2>/dev/null || kill -9 "${nspawn[$host]}" 2>/dev/null || true
        find /sys/fs/cgroup -depth -type d -path "*/seriatim-$host-$$*" -exec rmdir {} + 2>/dev/null || true
        umount "$work/$host/root" 2>/dev/null || umount -l "$work/$host/root" 2>/dev/null || true
        umount "$work/$host/disk" 2>/dev/null || umount -l "$work/$host/disk" 2>/dev/null || true
    done
    exit $status
}
trap clean EXIT

fail() {
    tail -n 5 "$work"/*/console >&2 2>/dev/null || true
    echo "  FAILED: $1" >&2
    exit 1
}
on() { # on HOST COMMAND...
    local host=$1
    shift
    nsenter --target "${leader[$host]}" --mount --pid --net --uts --ipc --root \
        env -i -C / HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
until_true() { # until_true SECONDS TEXT COMMAND...
    local end=$((SECONDS + $1)) text=$2
    shift 2
    until "$@" >"$work/output" 2>&1; do
        [ $SECONDS -lt $end ] || { cat "$work/output" >&2; fail "$text"; }
        read -r -t 0.1 <> <(:) || true
    done
}

ip link set lo up
ip link add seriatim0 type bridge
ip link set seriatim0 up

boot() { # boot HOST NUMBER
    local host=$1 dir=$work/$1
    mkdir -p "$dir/root" "$dir/disk"
    mount -t tmpfs -o size=1g seriatim-host "$dir/disk"
    mkdir "$dir/disk/upper" "$dir/disk/work"
    mount -t overlay overlay -o "lowerdir=$work/base,upperdir=$dir/disk/upper,workdir=$dir/disk/work" "$dir/root"
    echo "$host" >"$dir/root/etc/hostname"
    rm -f "$dir/root/etc/machine-id" "$dir/root/etc/resolv.conf"
    # Two addresses, as a host with a container runtime has.
    printf '[Match]\nName=host0\n[Network]\nAddress=192.0.2.%s/24\nAddress=198.51.100.%s/24\n' "$2" "$2" \
        >"$dir/root/etc/systemd/network/10-host0.network"
    chroot "$dir/root" systemctl --quiet enable systemd-networkd.service
    cp "$package" "$dir/root/root/seriatim.deb"
    (
        keep=
        if [ ! -d /run/systemd/system ]; then
            # Without a systemd that makes a scope for it, each container needs a control group of its own.
            keep=--keep-unit
            for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
                [ -e $hierarchy/cgroup.procs ] || continue
                mkdir -p "$hierarchy/seriatim-$host-$$"
                echo $BASHPID >"$hierarchy/seriatim-$host-$$/cgroup.procs"
            done
        fi
        exec systemd-nspawn --quiet --register=no $keep --directory="$dir/root" --machine="$host" --hostname="$host" \
            --network-bridge=seriatim0 --link-journal=no --resolv-conf=off --timezone=off --boot --console=pipe
    ) >"$dir/console" 2>&1 </dev/null &
    nspawn[$host]=$!
    until_true 60 "systemd does not start on $host" started "$host"
}

# The first process that nspawn starts is not always that of the container: it is looked up each time.
started() { # started HOST
    leader[$1]=$(pgrep --parent "${nspawn[$1]}" | head -n 1) && [ -n "${leader[$1]}" ] &&
        on "$1" systemctl --quiet is-active multi-user.target systemd-networkd
}

hosts="n1 n2 n3"
number=0
for host in $hosts; do boot $host $((number += 1)); done
echo "three hosts run systemd $(on n1 systemctl --version | awk 'NR == 1 {print $2}')"

begin=$(date +%s.%N)
for host in $hosts; do
    on $host dpkg --install /root/seriatim.deb >"$work/output" 2>&1 || { cat "$work/output" >&2; fail "install on $host"; }
    ! on $host systemctl --quiet is-enabled seriatim || fail "the installation has enabled the service on $host"
    ! on $host systemctl --quiet is-active seriatim || fail "the installation has started the service on $host"
done
if on n1 systemctl start seriatim >"$work/output" 2>&1; then fail "a service without certificates starts"; fi
grep -qi assert "$work/output" || { cat "$work/output" >&2; fail "the reason is missing"; }
echo "installed; a service without certificates does not start: $(head -n 1 "$work/output")"

on n1 seriatim certs --out /root/certs --hosts 192.0.2.1,192.0.2.2,192.0.2.3,localhost,127.0.0.1 --peers n1,n2,n3 --clients root >/dev/null
cat >"$work/seriatim.toml" <<END
config_version = 1
[cluster]
join = ["192.0.2.1:8401", "192.0.2.2:8401", "192.0.2.3:8401"]
bootstrap_expect = 3
[listen.client]
addr = "0.0.0.0:8400"
[listen.peer]
addr = "0.0.0.0:8401"
deny_file = "/etc/seriatim/denied-peers"
END
for host in $hosts; do
    for file in ca server server-key $host/peer $host/peer-key; do
        on n1 cat /root/certs/$file.pem | on $host sh -c "umask 77; cat >/etc/seriatim/tls/$(basename $file).pem"
    done
    on $host sh -c 'cat >/etc/seriatim/seriatim.toml' <"$work/seriatim.toml"
done
for host in $hosts; do on $host systemctl enable --quiet --now --no-block seriatim; done
client() { # client HOST COMMAND...: asks the node of that host
    local host=$1
    shift
    on n1 env SERIATIM_CLIENT_CERTS=/root/certs SERIATIM_CLIENT_ADDR="192.0.2.${host#n}" "$@"
}
three_voters() { client n1 seriatim status --check && client n1 seriatim status | grep -q "3 of 3 voters"; }
until_true 60 "no cluster of three" three_voters
client n1 sh -c 'echo first | seriatim produce' >/dev/null
[ "$(client n3 seriatim consume --from earliest)" = first ] || fail "another node has another record"
end=$(date +%s.%N)
client n1 seriatim status
awk -v a="$begin" -v b="$end" 'BEGIN { printf "from three hosts without the package to a record that all have: %.1f s\n", b - a }'

# An upgrade does not restart the node, and says how.
before=$(on n2 systemctl show --property MainPID seriatim)
on n2 dpkg --install /root/seriatim.deb >"$work/output" 2>&1 || { cat "$work/output" >&2; fail "upgrade"; }
[ "$before" = "$(on n2 systemctl show --property MainPID seriatim)" ] || fail "an upgrade restarts the node"
grep -q "Restart one host after the other (systemctl restart seriatim)" "$work/output" || { cat "$work/output" >&2; fail "the upgrade says nothing"; }
on n2 systemctl restart seriatim
until_true 60 "no cluster of three after a restart" three_voters
echo "an upgrade leaves the node running; it is restarted by hand"

on n3 systemctl stop seriatim
on n3 runuser -u seriatim -- seriatim data verify >"$work/output" 2>&1 || { cat "$work/output" >&2; fail "verify as the user of the service"; }
verified=$(tail -n 1 "$work/output")
on n3 systemctl start seriatim
until_true 60 "no cluster of three after a stop" three_voters
echo "the user of the service verifies the data of a stopped node: $verified"

on n3 dpkg --purge seriatim >"$work/output" 2>&1 || { cat "$work/output" >&2; fail "purge"; }
on n3 test -e /var/lib/seriatim/node.toml || fail "a purge removes records"
on n3 test -e /etc/seriatim/tls/peer-key.pem || fail "a purge removes keys"
on n3 test ! -e /etc/seriatim/policy.csv || fail "a purge leaves the configuration"
echo "a purge stops the service, removes the configuration, and keeps records and keys"

echo "quickstart as root, on a fourth host:"
boot n4 4
on n4 dpkg --install /root/seriatim.deb >/dev/null 2>&1
begin=$(date +%s.%N)
on n4 seriatim quickstart >"$work/output" 2>&1 || { cat "$work/output" >&2; fail "quickstart as root"; }
end=$(date +%s.%N)
sed 's/^/  | /' "$work/output"
awk -v a="$begin" -v b="$end" 'BEGIN { printf "  %.1f s\n", b - a }'
on n4 systemctl --quiet is-active seriatim || fail "the service does not run"
on n4 systemctl --quiet is-enabled seriatim || fail "the service is not enabled"
[ "$(on n4 seriatim consume --from earliest)" = "hello from seriatim quickstart" ] || fail "no record"
on n4 systemctl restart seriatim
[ "$(on n4 seriatim consume --from earliest)" = "hello from seriatim quickstart" ] || fail "no record after a restart"
! on n4 seriatim quickstart >"$work/output" 2>&1 || fail "a second quickstart is not refused"
on n4 seriatim quickstart --undo
! on n4 systemctl --quiet is-active seriatim || fail "the service runs after --undo"
! on n4 systemctl --quiet is-enabled seriatim || fail "the service is enabled after --undo"
on n4 sh -c '! ls -d /var/lib/seriatim /etc/seriatim/quickstart /etc/systemd/system/seriatim.service.d /etc/seriatim/tls/* 2>/dev/null' ||
    fail "something is left"
on n4 dpkg --verify seriatim || fail "a file of the package has changed"
echo "passed: $suite"
