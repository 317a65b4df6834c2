#!/usr/bin/env bash
# spiffed on a kernel without SO_PEERPIDFD (Debian 12's 6.1): the caller is held by its number, and nothing is served
# before whoever is held has answered a PING. A process that asked and ended, whose number is an agent's before spiffed
# looks, gets nothing by it. The kernel is this one; a filter answers ENOPROTOOPT (tests/support/token/old_kernel.py).
# attestd and keyd are small real servers, whod is the product's own. In a PID namespace of its own, so that nobody
# else takes the numbers.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "skipped: to choose a pid needs root"; exit 77; }
/usr/bin/python3 -c 'import hpack' 2> /dev/null || { echo "skipped: no python3-hpack"; exit 77; }
if [ -z "${ATT_OWN_PIDS:-}" ]; then
    unshare --pid --fork --kill-child --mount-proc true 2> /dev/null || { echo "skipped: no PID namespace of its own"; exit 77; }
    ATT_OWN_PIDS=1 exec unshare --pid --fork --kill-child --mount-proc bash "$0"
fi
[ -w /proc/sys/kernel/ns_last_pid ] || { echo "skipped: no ns_last_pid"; exit 77; }
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
trap rig_end EXIT
support=$ATT_SOURCE_DIR/tests/support
socket=$RIG/run/public/api.sock
ok() { printf 'ok: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    cat "$RIG/out" "$RIG/spiffed.out" >&2 || true
    tail -n 20 "$RIG/spiffed.log" >&2
    exit 1
}
rig_store market-data
rig_server attestd
rig_server keyd
touch "$RIG/store/real-whod"
cat > "$RIG/attestd.yaml" << YAML
state_dir: $RIG/state
run_dir: $RIG/run
log_level: debug
YAML
"$RIG_BIN/attestd-whod" --config "$RIG/attestd.yaml" 2> "$RIG/whod.log" &
rig_pids+=($!)
mkdir -p "$RIG/run/public"
/usr/bin/python3 "$support/token/old_kernel.py" "$RIG/hold" "$RIG_BIN/attestd-spiffed" --config "$RIG/attestd.yaml" \
    > "$RIG/spiffed.out" 2> "$RIG/spiffed.log" &
spiffed=$!
rig_pids+=("$spiffed")
rig_wait test -S "$socket" || {
    ! grep -q seccomp "$RIG/spiffed.log" || { echo "skipped: no seccomp listener"; exit 77; }
    fail "spiffed does not start"
}
rig_wait test -S "$RIG/run/whod.sock"
streams() { timeout 60 /usr/bin/python3 "$support/spiffe/streams.py" "$@"; }

streams chain "$socket" > "$RIG/out" 2>&1 || fail "chain"
[ "$(cat "$RIG/out")" = '{"answered": 1, "ended": [0]}' ] || fail "a caller held by its number is not served"
ok "a caller is held by its number, answers the PING, and is served"

# ---- descriptors that come along ----
kill -STOP "$spiffed"
mkfifo "$RIG/lingers"
streams linger "$socket" < "$RIG/lingers" > "$RIG/linger.out" 2>&1 &
lingers=$!
exec 7> "$RIG/lingers"
rig_wait grep -q sent "$RIG/linger.out" || { cat "$RIG/linger.out"; fail "linger"; }
[ "$(cat "$RIG/linger.out")" = '{"sent": 6}' ] || { cat "$RIG/linger.out"; fail "the filter does not hold: descriptors are refused by the kernel"; }
kill -CONT "$spiffed"
began=$(date +%s)
streams chain "$socket" > "$RIG/out" 2>&1 || fail "chain beside descriptors"
[ "$(cat "$RIG/out")" = '{"answered": 1, "ended": [0]}' ] || fail "not served beside descriptors"
[ $(($(date +%s) - began)) -lt 15 ] || fail "a stranger's sockets hold everybody up: $(($(date +%s) - began)) s"
rig_wait grep -q 'event=spiffed.cut .*it sends descriptors' "$RIG/spiffed.log" || fail "the log does not say why"
exec 7>&-
wait $lingers || fail "linger"
ok "sockets that are sent along, and whose close waits a minute, hold nobody up"

kill -STOP "$spiffed"
mkfifo "$RIG/in"
streams reuse "$socket" < "$RIG/in" > "$RIG/out" 2>&1 &
asker=$!
exec 8> "$RIG/in"
rig_wait grep -q '^reused' "$RIG/out" || fail "no reused number"
kill -CONT "$spiffed"
echo >&8
exec 8>&-
wait $asker || fail "reuse"
[ "$(tail -n 1 "$RIG/out")" = '{"answered": 0, "ended": [], "over": true}' ] || fail "served by another's number"
rig_wait grep -q 'event=spiffed.cut .*a PING is not answered in time' "$RIG/spiffed.log" || fail "the log does not say why"
[ "$(grep -c '^identify' "$RIG/attestd.out")" = 2 ] || fail "asked who it is"
ok "who had the number before gets nothing by its new owner"
