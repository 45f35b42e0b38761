#!/usr/bin/env bash
# Three nodes on this machine, a real file line by line into one of them over mutual TLS, a follower killed half-way and
# started again, and the file read back from that one. `make demo` runs it; FILE=... chooses the file.
set -euo pipefail
cd "$(dirname "$0")/.."
seriatim=$(realpath "${SERIATIM:-target/release/seriatim}")
demo=$PWD/demo
declare -A pid rpc bind

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { echo "demo: $*; the nodes' logs are in $demo" >&2; exit 1; }
stop_all() { for name in "${!pid[@]}"; do kill "${pid[$name]}" 2>/dev/null || true; done; wait; }
trap stop_all EXIT

# A text file of 10 to 100 MB; if there is none, the sources of what was built, one behind the other.
default_file() {
    local file
    while IFS= read -r file; do
        if [ -r "$file" ] && grep -Iq . "$file" &&
            LC_ALL=C awk 'length > 1000000 { exit 1 }' "$file"; then
            echo "$file"
            return
        fi
    done < <(find /var/lib/apt/lists /usr/share /usr/lib /var/log "${RUSTUP_HOME:-$HOME/.rustup}" -xdev -type f \
        -size +10M -size -100M 2>/dev/null | sort | head -n 40)
    file=$demo/sources.txt
    find "${CARGO_HOME:-$HOME/.cargo}/registry/src" src -name '*.rs' -size -500k -print0 | sort -z | xargs -0 cat 2>/dev/null |
        head -c 16000000 >"$file" || true
    echo >>"$file"
    echo "$file"
}

# start NAME [ARGUMENTS]: starts a node and waits for the line that says that it takes calls.
start() {
    local name=$1 line
    shift
    : >"$demo/$name.out"
    "$seriatim" serve --node-name "$name" --data-dir "$demo/$name" --acl-policy-file acl/policy.csv \
        --client-ca-file "$demo/certs/ca.pem" --peer-ca-file "$demo/certs/ca.pem" \
        --server-cert-file "$demo/certs/server.pem" --server-key-file "$demo/certs/server-key.pem" \
        --peer-cert-file "$demo/certs/peer.pem" --peer-key-file "$demo/certs/peer-key.pem" \
        --bind-addr "${bind[$name]:-127.0.0.1:0}" --rpc-addr "${rpc[$name]:-127.0.0.1:0}" "$@" \
        >"$demo/$name.out" 2>>"$demo/$name.log" 3>&- &
    pid[$name]=$!
    for _ in $(seq 300); do
        if line=$(grep -m 1 '^ready ' "$demo/$name.out"); then
            [[ $line =~ bind_addr=([^ ]+)\ rpc_addr=([^ ]+) ]]
            bind[$name]=${BASH_REMATCH[1]} rpc[$name]=${BASH_REMATCH[2]}
            echo "$name: process ${pid[$name]}, for clients at ${rpc[$name]}, for peers at ${bind[$name]}"
            return
        fi
        kill -0 "${pid[$name]}" 2>/dev/null || fail "$name did not start: $(tail -n 5 "$demo/$name.log")"
        sleep 0.1
    done
    fail "$name is not ready after 30 s"
}

status() { "$seriatim" status --addr "${rpc[n1]},${rpc[n2]},${rpc[n3]}" "$@"; }

rm -rf "$demo"
mkdir -p "$demo"
file=${FILE:-$(default_file)}
[ -r "$file" ] && [ -f "$file" ] || fail "$file is no file that can be read"
bytes=$(stat -L -c %s "$file")
export SERIATIM_CERTS=$demo/certs

say "Certificates: an authority, one for the servers, one for the peers, one for the client root"
"$seriatim" certs --out "$demo/certs" --hosts localhost,127.0.0.1 --clients root >"$demo/certs.out" || fail "no certificates"
ls "$demo/certs"

say "Three nodes; the second and the third are told where the first is"
start n1 --bootstrap
start n2 --join "${bind[n1]}"
start n3 --join "${bind[n1]}"
for _ in $(seq 300); do
    if status >"$demo/status.out" 2>&1 && [ "$(grep -cE ' (leader|follower) ' "$demo/status.out")" = 3 ]; then break; fi
    sleep 0.1
done
status || fail "no cluster of three after 30 s"

leader=$(status | awk '$3 == "leader" { print $1 }')
victim=$(status | awk '$3 == "follower" { print $1 }' | tail -n 1)
say "$file ($bytes bytes) goes line by line into $leader; $victim is killed half-way (kill -9) and started again"
before=$(date +%s%N)
mkfifo "$demo/pipe"
"$seriatim" produce --addr "${rpc[$leader]}" <"$demo/pipe" &
producer=$!
# Nobody else must hold this end: the input ends when it is closed.
exec 3>"$demo/pipe"
half=$((bytes / 2)) quarter=$((bytes / 4))
head -c "$half" "$file" >&3
kill -9 "${pid[$victim]}"
wait "${pid[$victim]}" 2>/dev/null || true
echo "$victim: killed"
tail -c "+$((half + 1))" "$file" | { head -c "$quarter" >&3; cat >/dev/null; }
start "$victim" --join "${bind[$leader]}"
tail -c "+$((half + quarter + 1))" "$file" >&3
exec 3>&-
wait "$producer" || fail "the file did not go in"
echo "acknowledged: on the disk of a majority, $((($(date +%s%N) - before) / 1000000)) ms with the pause for $victim's start"

say "Read back from $victim"
"$seriatim" consume --addr "${rpc[$victim]}" >"$demo/read-back" || fail "it can't be read"
# Every record becomes a line: where the file has no newline at its end, the last one is not its own.
if [ "$bytes" -gt 0 ] && [ "$(tail -c 1 "$file" | od -An -tx1 | tr -d ' ')" != 0a ]; then truncate -s -1 "$demo/read-back"; fi
sum_in=$(sha256sum <"$file") sum_out=$(sha256sum <"$demo/read-back")
printf '%s  %s\n' "${sum_in%% *}" "$file" "${sum_out%% *}" "what $victim has"
[ "$sum_in" = "$sum_out" ] || fail "THE SUMS DIFFER"
echo "equal"

say "seriatim status"
status
