#!/usr/bin/env bash
# Three nodes on this machine. A real file is appended line by line over mutual TLS; halfway, the leader
# is killed and started again; then the file is read back from that node. Exits with 0 only if both
# checksums are equal. `make demo` runs it. FILE=... chooses the file, and TMPDIR=... the place for
# everything that it writes meanwhile.
set -euo pipefail

[ -z "${FILE:-}" ] || FILE=$(realpath -- "$FILE")
cd "$(dirname "$0")/.."
if [ -z "${SERIATIM:-}" ]; then
    # Called directly, not by make, which builds first (and may be missing: deps.sh installs it).
    dist/deps.sh
    FILE=${FILE:-} exec make --no-print-directory demo
fi
program=$(realpath -- "$SERIATIM")
# Variables that the caller has set for other nodes must not reach these.
unset "${!SERIATIM_@}" SERIATIM
export LC_ALL=C

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
chapter() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
say() { printf '  %s\n' "$@"; }

declare -A pid=() bind=() rpc=()
keep=

# Runs however the demo ends. Leaves no process behind, and no files unless they show why it failed.
leave() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    exec 3>&- || true
    [ ${#pid[@]} -eq 0 ] || kill "${pid[@]}" 2>/dev/null || true
    for _ in $(seq 100); do
        if [ -z "$(jobs -rp)" ]; then break; fi
        sleep 0.1
    done
    [ ${#pid[@]} -eq 0 ] || kill -9 "${pid[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    [ -n "$keep" ] || rm -rf -- "$demo"
    exit "$code"
}

fail() {
    printf '\nThe demo failed: %s\n' "$*" >&2
    for log in "$demo"/*.log; do
        [ -s "$log" ] || continue
        printf '\nThe end of %s:\n%s\n' "$log" "$(tail -n 5 "$log")" >&2
        keep=yes
    done
    [ -z "$keep" ] || printf '\nEverything is kept in %s\n' "$demo" >&2
    exit 1
}

demo=$(mktemp -d "${TMPDIR:-/tmp}/seriatim-demo.XXXXXX")
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Sets `file`, and `why` it was chosen.
choose_file() {
    if [ -n "${FILE:-}" ]; then
        file=$FILE why="chosen by FILE"
        return
    fi
    why="FILE=... chooses another"
    file=$(rustc --print sysroot 2>/dev/null || true)/share/doc/rust/COPYRIGHT.html
    if [ -f "$file" ] && [ "$(stat -L -c %s "$file")" -ge 10000000 ]; then
        why="the licences of everything that Rust contains, a part of its toolchain; $why"
        return
    fi
    file=$demo/sources.txt
    find "${CARGO_HOME:-$HOME/.cargo}/registry/src" src -name '*.rs' -size -500k -print0 2>/dev/null | sort -z |
        xargs -0 cat 2>/dev/null | head -c 16000000 >"$file" || true
    echo >>"$file"
    why="the sources of the crates that this was built from, one after the other; $why"
}

# start NAME [OPTION...]: starts a node, and waits for the line that says that it is ready.
start() {
    local name=$1 line
    shift
    : >"$demo/$name.out"
    # 3 and 4 carry the file: if a node held them open, the producer would not see the end.
    "$program" serve --node-name "$name" --cluster-name demo --data-dir "$demo/$name" \
        --bind-addr "${bind[$name]:-127.0.0.1:0}" --rpc-addr "${rpc[$name]:-127.0.0.1:0}" --http-addr off \
        --client-ca-file "$demo/certs/ca.pem" --peer-ca-file "$demo/certs/ca.pem" \
        --server-cert-file "$demo/certs/server.pem" --server-key-file "$demo/certs/server-key.pem" \
        --peer-cert-file "$demo/certs/$name/peer.pem" --peer-key-file "$demo/certs/$name/peer-key.pem" \
        --acl-policy-file acl/policy.csv "$@" >"$demo/$name.out" 2>>"$demo/$name.log" 3>&- 4<&- &
    pid[$name]=$!
    local until=$((SECONDS + 60))
    while [ $SECONDS -lt $until ]; do
        if line=$(grep -m 1 '^ready ' "$demo/$name.out"); then
            [[ $line =~ bind_addr=([^ ]+)\ rpc_addr=([^ ]+) ]] || fail "$name printed: $line"
            bind[$name]=${BASH_REMATCH[1]} rpc[$name]=${BASH_REMATCH[2]}
            return
        fi
        alive
        sleep 0.1
    done
    fail "$name was not ready within a minute"
}

# Fails if a node has ended by itself.
alive() {
    local name
    for name in "${!pid[@]}"; do
        kill -0 "${pid[$name]}" 2>/dev/null || fail "$name has exited"
    done
}

place() { printf 'process %-8s clients %-17s peers %s' "${pid[$1]}" "${rpc[$1]}" "${bind[$1]}"; }
client() { "$program" "$1" --addr "$2" --certs "$demo/certs" --user root "${@:3}"; }
status() { client status "${rpc[n1]},${rpc[n2]},${rpc[n3]}" "$@"; }
# Prints the names of the nodes with this role.
role() { awk -v role="$1" '$3 == role { print $1 }' "$demo/status" | sort; }

choose_file
[ -f "$file" ] && [ -r "$file" ] || fail "$file cannot be read as a file"
bytes=$(stat -L -c %s "$file")
[ "$bytes" -gt 0 ] || fail "$file is empty"
room=$(($(df -Pk "$demo" | awk 'NR == 2 { print $4 }') * 1024))
[ "$room" -ge $((bytes * 5 + 200000000)) ] || fail "$demo has room for $room bytes only; TMPDIR=... chooses another place"
unfinished=$((1 - $(tail -c 1 "$file" | wc -l)))
lines=$(($(wc -l <"$file") + unfinished))

chapter "1. The file"
say "$file" "$bytes bytes, $lines lines ($why)"

chapter "2. Certificates, created for this run"
"$program" certs --out "$demo/certs" --hosts localhost,127.0.0.1 --peers n1,n2,n3 --clients root --cluster-name demo \
    >"$demo/certs.out" 2>"$demo/certs.log" || fail "no certificates"
say "$(cd "$demo/certs" && echo *)" "Clients and nodes use mutual TLS: without one of these, a connection is rejected."

chapter "3. Three nodes on this machine"
start n1 --bootstrap
say "n1  $(place n1)   founds the cluster"
start n2 --join "${bind[n1]}"
say "n2  $(place n2)   joins via n1"
start n3 --join "${bind[n1]}"
say "n3  $(place n3)   joins via n1"
until=$((SECONDS + 60))
while [ $SECONDS -lt $until ]; do
    if status --check >/dev/null && status >"$demo/status" 2>"$demo/status.log" && [ "$(grep -cE ' (leader|follower) ' "$demo/status")" -eq 3 ]; then break; fi
    alive
    sleep 0.1
done
leader=$(role leader)
entry=$(role follower | head -n 1)
other=$(role follower | tail -n 1)
[ -n "$leader" ] && [ -n "$entry" ] && [ "$entry" != "$other" ] || fail "no cluster of three within a minute"
say "All three are voters, and $leader is the leader."

chapter "4. Line by line into $entry, which forwards every line to the leader $leader; meanwhile $leader is killed"
begin=$(date +%s%N)
seconds() { awk -v begin="$begin" -v now="$(date +%s%N)" 'BEGIN { printf "%5.1f s", (now - begin) / 1e9 }'; }
exec 3> >(client produce "${rpc[$entry]},${rpc[$other]}" 2>"$demo/produce.log")
producer=$!
exec 4<"$file"
# feed N: N more of 64 parts of the file. If the producer has ended, its exit code and log say why.
feed() { dd bs=$((bytes / 64 + 1)) count="$1" status=none <&4 >&3 2>/dev/null || true; }
feed 32
say "$(seconds)  half of the file is sent; kill -9 $leader (process ${pid[$leader]})"
kill -9 "${pid[$leader]}"
wait "${pid[$leader]}" 2>/dev/null || true
feed 16
say "$(seconds)  three quarters; the other two have elected a leader and continue. $leader is restarted"
start "$leader" --join "${bind[$entry]}"
say "$(seconds)  $leader has recovered from its disk, as process ${pid[$leader]}"
cat <&4 >&3 2>/dev/null || true
exec 3>&- 4<&-
wait "$producer" || fail "the file was not produced completely"
say "$(seconds)  $(cat "$demo/produce.log")" "         Acknowledged means synced to the disks of at least two nodes." \
    "         What the dead leader had not answered was sent again, and is in the log once."

chapter "5. Read back from $leader, at once: it first fetches what it lacks from the leader"
begin=$(date +%s%N)
client consume "${rpc[$leader]}" >"$demo/read-back" 2>"$demo/consume.log" || fail "the log can't be read from $leader"
say "$(seconds)  $(wc -l <"$demo/read-back") records"
if [ "$unfinished" -eq 1 ]; then
    truncate -s -1 "$demo/read-back"
    say "         (A record is printed as a line. The file's last line does not end with a newline, so the last one is removed.)"
fi
sum_in=$(sha256sum <"$file") sum_out=$(sha256sum <"$demo/read-back")
say "${sum_in%% *}  produced" "${sum_out%% *}  read from $leader"
[ "$sum_in" = "$sum_out" ] || fail "THE SUMS DIFFER"
say "Equal."

chapter "6. seriatim status"
status --check >"$demo/status.log" || fail "seriatim status reports a problem"
status >"$demo/status" 2>"$demo/status.log" || fail "seriatim status failed"
sed 's/^/  /' "$demo/status"
