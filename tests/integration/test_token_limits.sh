#!/usr/bin/env bash
# The token service and whod at the limits of their resources (RLIMIT_NPROC, FSIZE, NOFILE; AS in builds without
# sanitizers), set under them while they serve: who signs already signs on, who comes gets a clean refusal, nobody
# ends, and all is well when the limit is gone. Descriptors of tokend: test_token_attacks.sh. keyd: test_keyd_limits.sh.
set -euo pipefail
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || { echo "skipped: no p11-kit-client.so (package p11-kit-modules)"; exit 77; }
command -v prlimit > /dev/null || { echo "skipped: no prlimit (package util-linux)"; exit 77; }
if [ "$(id -u)" = 0 ]; then # the limit of processes is not for root
    command -v setpriv > /dev/null || { echo "skipped: no setpriv"; exit 77; }
    exec setpriv --reuid 65201 --regid 65201 --clear-groups "$0" "$@"
fi
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
children=()
end_all() {
    local pid
    for pid in ${children[@]+"${children[@]}"}; do kill -KILL "$pid" 2> /dev/null || true; done
    rig_end
}
trap end_all EXIT
client=$RIG_BIN/../tests-bin/token-client
export P11_KIT_SERVER_ADDRESS=unix:path=$RIG_SOCKET
ok() { printf 'ok: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    grep -v level=debug "$RIG/tokend.log" | tail -n 20 >&2
    exit 1
}
rig_store market-data
rig_server attestd
rig_server keyd
rig_tokend
"$RIG_BIN/attestd-whod" --config "$RIG/attestd.yaml" 2> "$RIG/whod.log" &
whod=$!
rig_pids+=("$whod")
rig_wait test -S "$RIG/run/whod.sock"
touch "$RIG/store/real-whod"
sanitized=no
! grep -q 'sanitizer build' "$RIG/tokend.log" || sanitized=yes
signs() { timeout 60 "$client" "$module" sign "${1:-1}" > "$RIG/signs" 2>&1 < /dev/null; }
signs_soon() { timeout 4 "$client" "$module" sign > "$RIG/signs" 2>&1 < /dev/null; }
alive() { [ -d "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status"; }
soft() { prlimit --pid "$1" --noheadings --output SOFT "--$2"; }
size_of() { awk '/^VmSize/ {print $2 * 1024}' "/proc/$1/status"; }
loop_begin() {
    : > "$RIG/loop"
    timeout 300 "$client" "$module" loop "$1" > "$RIG/loop" 2>&1 < /dev/null &
    loop=$!
    children+=("$loop")
    rig_wait grep -q '^signs$' "$RIG/loop" || { cat "$RIG/loop"; fail "a caller"; }
}
loop_end() { # loop_end REGEX: of its line
    wait "$loop" || { cat "$RIG/loop"; fail "a running caller"; }
    grep -qE "$1" "$RIG/loop" || { cat "$RIG/loop"; fail "a running caller: wanted $1"; }
}
# limited WHO PID LIMIT VALUE: the soft one; unlimited PID LIMIT: as it was
declare -A was
limited() {
    was[$2]=$(soft "$1" "$2")
    prlimit --pid "$1" "--$2=$3:"
}
unlimited() { prlimit --pid "$1" "--$2=${was[$2]}:"; }
signs 2 || { cat "$RIG/signs"; fail "the rig"; }

# ---- tokend --------------------------------------------------------------------------------------------------------
loop_begin 5
limited "$RIG_TOKEND" nproc 0
! signs || fail "a token without a process: the limit is none, and the test no test"
rig_wait grep -q 'event=tokend.no-process' "$RIG/tokend.log" || fail "no line about the want of processes"
loop_end 'failed 0 '
alive "$RIG_TOKEND" || fail "tokend ended for want of processes"
unlimited "$RIG_TOKEND" nproc
rig_wait signs || { cat "$RIG/signs"; fail "after the limit of processes"; }
ok "tokend, no process more: newcomers are refused, callers sign on, and newcomers are served again"
loop_begin 4
limited "$RIG_TOKEND" fsize 0 # its log is a file here
rig_wait signs || { cat "$RIG/signs"; fail "with no file's size left"; }
loop_end 'failed 0 '
alive "$RIG_TOKEND" || fail "tokend ended by a limit of file sizes"
unlimited "$RIG_TOKEND" fsize
ok "tokend, no byte more in any file: it serves, only its log is silent"
if [ $sanitized = no ]; then
    loop_begin 8
    limited "$RIG_TOKEND" as "$(size_of "$RIG_TOKEND")"
    mkfifo "$RIG/hold.in"
    timeout 60 /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/token/rpc.py" hold "$RIG_SOCKET" 150 < "$RIG/hold.in" > "$RIG/hold" 2>&1 &
    children+=($!)
    exec 8> "$RIG/hold.in"
    rig_wait grep -q . "$RIG/hold" || fail "hold"
    alive "$RIG_TOKEND" || fail "tokend ended for want of memory"
    exec 8>&-
    loop_end 'failed 0 '
    unlimited "$RIG_TOKEND" as
    rig_wait signs || { cat "$RIG/signs"; fail "after the limit of memory"; }
    ok "tokend, no memory more: $(cat "$RIG/hold") of 150 newcomers are served, callers sign on"
fi

# ---- whod ----------------------------------------------------------------------------------------------------------
whod_at() { # whod_at LIMIT VALUE WHAT
    loop_begin 14 # longer than the limit, and what waits because of it
    limited "$whod" "$1" "$2"
    signs_soon || true # served or refused: what it must not is hang, or be served for another
    alive "$whod" || fail "whod ended: $3"
    alive "$RIG_TOKEND" || fail "tokend ended: whod with $3"
    unlimited "$whod" "$1"
    loop_end 'error 0x(0|30) last 0x0'
    rig_wait signs || { cat "$RIG/signs"; fail "after whod had $3"; }
    ok "whod with $3: nobody ends, and callers are served again"
}
whod_at nproc 0 "no thread more"
whod_at fsize 0 "no byte more in any file"
# fewer descriptors than it has: the next /proc/PID cannot be opened
loop_begin 14
limited "$whod" nofile 3
! signs_soon || fail "told who is calling without a descriptor: the test is no test"
alive "$whod" || fail "whod ended for want of descriptors"
unlimited "$whod" nofile
loop_end 'error 0x(0|30) last 0x0'
rig_wait signs || { cat "$RIG/signs"; fail "after whod had no descriptors"; }
ok "whod without descriptors: newcomers are refused; a running caller gets at most CKR_DEVICE_ERROR, and signs again"
if [ $sanitized = no ]; then
    whod_at as "$(size_of "$whod")" "no memory more"
fi
ok "done"
