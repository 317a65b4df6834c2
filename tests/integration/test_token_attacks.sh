#!/usr/bin/env bash
# tokend against callers that do what no stock client does: write before they are answered, become another
# program, hand their connection on, end or stop in the middle, flood, come as many users, take all descriptors.
# The processes that tokend asks are small real servers (tests/support/token); whod is the product's own.
set -euo pipefail
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || { echo "no p11-kit-client.so (package p11-kit-modules)"; exit 77; }
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
children=()
end_all() {
    local pid
    for pid in ${children[@]+"${children[@]}"}; do
        kill -KILL "$pid" 2> /dev/null || true
    done
    rig_end
}
trap end_all EXIT
client=$RIG_BIN/../tests-bin/token-client
export P11_KIT_SERVER_ADDRESS=unix:path=$RIG_SOCKET
began=$(date +%s%3N)
ok() { printf 'ok %5d ms: %s\n' $(($(date +%s%3N) - began)) "$*"; }
skipped() { printf 'not tried: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    grep -v level=debug "$RIG/tokend.log" | tail -n 20 >&2
    exit 1
}
rpc() { timeout 60 /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/token/rpc.py" "$1" "$RIG_SOCKET" "${@:2}"; }
signs() { timeout 60 "$client" "$module" sign "${1:-1}" > "$RIG/signs" 2>&1 < /dev/null; }
tokens() { pgrep -c -P "$RIG_TOKEND" || true; }
no_tokens() { [ "$(tokens)" = 0 ]; }
lines() { grep -c -- "$1" "$RIG/tokend.log" || true; }

# script NAME COMMAND ARGUMENT…: in the background; it goes on at "go NAME"
declare -A script_pid
script() {
    local name=$1
    shift
    mkfifo "$RIG/$name.in"
    rpc "$@" < "$RIG/$name.in" > "$RIG/$name.out" 2>&1 &
    script_pid[$name]=$!
    children+=($!)
    exec {in}> "$RIG/$name.in"
    script_in[$name]=$in
}
declare -A script_in
go() {
    local in=${script_in[$1]}
    echo >&"$in"
    exec {in}>&-
    wait "${script_pid[$1]}"
}
says() { rig_wait grep -q -- "$2" "$RIG/$1.out" || { cat "$RIG/$1.out"; fail "$1 does not say $2"; }; }

rig_store market-data
rig_server attestd
attestd=$RIG_LAST
rig_server keyd
rig_tokend
"$RIG_BIN/attestd-whod" --config "$RIG/attestd.yaml" 2> "$RIG/whod.log" &
whod=$!
rig_pids+=("$whod")
rig_wait test -S "$RIG/run/whod.sock"
touch "$RIG/store/real-whod"
signs 3 || { cat "$RIG/signs"; fail "the rig"; }

# ---- a process that writes ahead, ends, and leaves its pid to another ----
kill -STOP "$RIG_TOKEND"
script early early
says early connected
kill -CONT "$RIG_TOKEND"
go early || fail "early: $(cat "$RIG/early.out")"
grep -q 'turned away' "$RIG/early.out" || { cat "$RIG/early.out"; fail "served what was written before anybody looked"; }
rig_wait grep -q 'more than a version came before ours' "$RIG/tokend.log" || fail "no line about it"
ok "what was written before its writer was looked at is not served"

if [ -w /proc/sys/kernel/ns_last_pid ]; then
    kill -STOP "$RIG_TOKEND"
    script reuse reuse
    says reuse reused
    kill -CONT "$RIG_TOKEND"
    reused=$(sed -n 's/^reused //p' "$RIG/reuse.out")
    go reuse || fail "reuse: $(cat "$RIG/reuse.out")"
    if [ -n "$reused" ]; then
        grep -qE '^(turned away|lost)$' "$RIG/reuse.out" || { cat "$RIG/reuse.out"; fail "a pid's new owner's token for its old owner's connection"; }
        ok "a pid that was another's when it connected"
    else
        skipped "a pid used again: others were faster"
    fi
else
    skipped "a pid used again (root is needed)"
fi

# ---- exec, tools, passed connections ----
rpc exec > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "exec"; }
[ "$(tr '\n' ' ' < "$RIG/out")" = "refused 0x200 again 0x200 " ] || { cat "$RIG/out"; fail "another script on the same connection"; }
written() { [ "$(lines "$1")" = "$2" ]; }
rig_wait written tokend.caller-changed 1 || fail "the log does not say that the caller changed, once"
ok "the same interpreter with another script is another caller, for good"
refused=$(lines 'another process wrote')
rpc tool > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "tool"; }
grep -q 'lost for both' "$RIG/out" || { cat "$RIG/out"; fail "a tool wrote, and its agent signs on"; }
rpc pass > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "pass"; }
grep -qx lost "$RIG/out" || { cat "$RIG/out"; fail "a passed connection was served"; }
rig_wait written 'another process wrote' $((refused + 2)) || fail "the log does not name both"
ok "an agent's tool and whoever was handed the connection: refused, and the log says so"

# ---- in the middle of an operation ----
echo 1500 > "$RIG/store/slow"
rpc leave || fail "leave"
rm "$RIG/store/slow"
signs 3 || { cat "$RIG/signs"; fail "after a caller that left"; }
rig_wait no_tokens || fail "a token outlives its caller"
ok "a caller ends while its signature is made: nothing is left of it"
echo 300 > "$RIG/store/slow"
script wait wait
says wait asked
asker=$(pgrep -n -f "rpc.py wait $RIG_SOCKET") # and no other test's
kill -STOP "$asker"
rm "$RIG/store/slow"
signs 20 || { cat "$RIG/signs"; fail "beside a stopped caller"; }
kill -CONT "$asker"
go wait || { cat "$RIG/wait.out"; fail "a caller that was stopped"; }
grep -q '^0x0 69$' "$RIG/wait.out" || { cat "$RIG/wait.out"; fail "the answer of a caller that was stopped"; }
ok "a caller stopped while its signature is made gets it when it goes on"
script deaf deaf 3000
says deaf deaf
signs 20 || { cat "$RIG/signs"; fail "beside a caller that reads no answers"; }
go deaf || fail "deaf"
rig_wait no_tokens || fail "a token outlives a caller that reads nothing"
ok "a caller that reads no answers holds up itself only"

# ---- those whom tokend asks are stopped: nothing is lost, and who needs them not, waits not ----
signing() { # signing SECONDS: one signs for so long, and has begun
    : > "$RIG/loop"
    timeout 300 "$client" "$module" loop "$1" > "$RIG/loop" 2>&1 < /dev/null &
    loop=$!
    rig_wait grep -q '^signs$' "$RIG/loop" || { cat "$RIG/loop"; fail "a caller"; }
}
signing 8
kill -STOP "$attestd"
wait "$loop" || { cat "$RIG/loop"; fail "a running caller needs attestd"; }
grep -q 'failed 0' "$RIG/loop" || { cat "$RIG/loop"; fail "a running caller needs attestd"; }
kill -CONT "$attestd"
rig_wait signs || { cat "$RIG/signs"; fail "after attestd was stopped"; }
signing 8
before=$(lines event=tokend.refused)
kill -STOP "$whod"
more_refused() { [ "$(lines event=tokend.refused)" -gt "$before" ]; }
rig_wait more_refused || fail "signed without whod"
kill -CONT "$whod"
wait "$loop" || { cat "$RIG/loop"; fail "a caller did not recover from a stopped whod"; }
grep -q 'error 0x30' "$RIG/loop" || { cat "$RIG/loop"; fail "signed without whod, or other than CKR_DEVICE_ERROR"; }
rig_wait signs || { cat "$RIG/signs"; fail "after whod was stopped"; }
ok "attestd stopped: callers sign on; whod stopped: CKR_DEVICE_ERROR, then they sign again"

# ---- floods write few lines ----
before=$(lines event=tokend.limit)
began_s=$(date +%s)
rpc flood 2000 || fail "flood"
rig_wait grep -q 'event=tokend.limit' "$RIG/tokend.log" || fail "no line about a user who connects too fast"
written=$(($(lines event=tokend.limit) - before)) # a line a second, of each of what can be too much
[ "$written" -ge 1 ] && [ "$written" -le $((100 + 2 * ($(date +%s) - began_s))) ] || fail "$written lines about a user who connects too fast"
grep -q 'event=tokend.limit .*leftOut=[1-9]' "$RIG/tokend.log" || rpc flood 300
rig_wait grep -q 'event=tokend.limit' "$RIG/tokend.log"
rig_wait signs || { cat "$RIG/signs"; fail "after a flood"; }
touch "$RIG/store/quota"
before=$(lines event=tokend.refused)
began_s=$(date +%s) from=$(wc -l < "$RIG/tokend.log")
: > "$RIG/out"
timeout 300 "$client" "$module" loop 1 > "$RIG/out" 2>&1 &
loop=$!
# Until some fifty are left out of the log.
left_out() { [ "$(tail -n "+$((from + 1))" "$RIG/tokend.log" | sed -n 's/.*event=tokend.refused .*leftOut=\([0-9]*\).*/\1/p' | awk '{s += $1} END {print s + 0}')" -gt 50 ]; }
rig_wait left_out || fail "no line says how many are left out"
rm "$RIG/store/quota"
wait "$loop" || { cat "$RIG/out"; fail "refused on after the quota was gone"; }
failed=$(sed -n 's/.*failed \([0-9]*\) .*/\1/p' "$RIG/out")
written=$(($(lines event=tokend.refused) - before))
[ "$failed" -gt 50 ] || { cat "$RIG/out"; fail "$failed refusals only"; }
[ "$written" -ge 1 ] && [ "$written" -le $(($(date +%s) - began_s + 2)) ] || fail "$written lines about $failed refusals of one agent"
ok "2000 connections at once, $failed refused signatures: a line a second"

# ---- a container: other mounts and process numbers ----
if unshare --pid --mount --fork --mount-proc true 2> /dev/null; then
    timeout 60 unshare --pid --mount --fork --mount-proc "$client" "$module" sign 2 > "$RIG/out" 2>&1 < /dev/null ||
        { cat "$RIG/out"; fail "a caller in namespaces of its own"; }
    ok "a caller in namespaces of its own"
else
    skipped "namespaces (root is needed)"
fi

# ---- another tokend, with few places ----
restart() {
    kill "$RIG_TOKEND"
    wait "$RIG_TOKEND" || fail "tokend's exit status"
    rig_tokend "$@"
}
if [ "$(id -u)" = 0 ]; then
    restart --connections 40
    echo python3 > "$RIG/store/strangers"
    script users users 60
    says users '^[0-9]'
    signs || { cat "$RIG/signs"; fail "60 users who are nobody's agent keep an agent out"; }
    [ "$(tokens)" -le 20 ] || fail "$(tokens) tokens without an agent, at most half of 40 places"
    go users || fail "users"
    rm "$RIG/store/strangers"
    ok "many users who are nobody's agent have half of the places"
else
    skipped "many users (root is needed)"
fi

# ---- out of descriptors ----
kill "$RIG_TOKEND"
wait "$RIG_TOKEND" || fail "tokend's exit status"
ulimit_was=$(ulimit -S -n)
ulimit -S -n 64
(ulimit -H -n 64; exec "$RIG_BIN/attestd-tokend" --config "$RIG/attestd.yaml" 2>> "$RIG/tokend.log") &
RIG_TOKEND=$!
ulimit -S -n "$ulimit_was"
rig_pids+=("$RIG_TOKEND")
rig_wait test -S "$RIG_SOCKET"
rig_wait grep -q 'tokend.few-files' "$RIG/tokend.log" || fail "no line about few descriptors"
script hold hold 40
says hold '^[0-9]'
served=$(cat "$RIG/hold.out")
[ "$served" -ge 1 ] && [ "$served" -lt 40 ] || fail "$served of 40 connections with 64 descriptors"
go hold || fail "hold"
rig_wait no_tokens
rig_wait signs || { cat "$RIG/signs"; fail "tokend does not recover from a want of descriptors"; }
rig_wait grep -qE 'Too many open files|no descriptor is left' "$RIG/tokend.log" || fail "no line about the want of descriptors"
[ -d "/proc/$RIG_TOKEND" ] || fail "tokend ended"
ok "64 descriptors: $served connections, and new ones when these have ended"
