#!/usr/bin/env bash
# tokend on a kernel without SO_PEERPIDFD (Debian 12's 6.1): the caller is held by its number. A number that is another
# process's before tokend looks, or between its looking at the number and its opening it, serves neither the one nor the
# other. The kernel is this one; a filter answers ENOPROTOOPT and holds pidfd_open (tests/support/token/old_kernel.py).
# attestd and keyd are small real servers, whod is the product's own. In a PID namespace of its own, so that nobody
# else takes the numbers.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "skipped: to choose a pid needs root"; exit 77; }
if [ -z "${ATT_OWN_PIDS:-}" ]; then
    unshare --pid --fork --kill-child --mount-proc true 2> /dev/null || { echo "skipped: no PID namespace of its own"; exit 77; }
    ATT_OWN_PIDS=1 exec unshare --pid --fork --kill-child --mount-proc bash "$0"
fi
[ -w /proc/sys/kernel/ns_last_pid ] || { echo "skipped: no ns_last_pid"; exit 77; }
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
trap rig_end EXIT
support=$ATT_SOURCE_DIR/tests/support/token
ok() { printf 'ok: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    cat "$RIG/out" "$RIG/tokend.out" >&2 || true
    tail -n 20 "$RIG/tokend.log" >&2
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
/usr/bin/python3 "$support/old_kernel.py" "$RIG/hold" "$RIG_BIN/attestd-tokend" --config "$RIG/attestd.yaml" > "$RIG/tokend.out" \
    2> "$RIG/tokend.log" &
tokend=$!
rig_pids+=("$tokend")
rig_wait test -S "$RIG_SOCKET" || {
    ! grep -q seccomp "$RIG/tokend.log" || { echo "skipped: no seccomp listener"; exit 77; }
    fail "tokend does not start"
}
rig_wait test -S "$RIG/run/whod.sock"
rpc() { timeout 120 /usr/bin/python3 "$support/rpc.py" "$@"; }
count() { grep -c "$1" "$RIG/tokend.log" || true; }
mkfifo "$RIG/in"
asks() { # asks [wait]: a process connects and ends, and another gets its pid
    rpc reuse "$RIG_SOCKET" "$@" < "$RIG/in" > "$RIG/out" 2>&1 &
    asker=$!
    exec 8> "$RIG/in"
}
says() { rig_wait grep -q -- "$1" "$RIG/out" || fail "wanted: $1"; }
answer() { # got: what the holder of the connection gets
    echo >&8
    exec 8>&-
    wait $asker || fail "$1"
    got=$(tail -n 1 "$RIG/out")
}

rpc fork "$RIG_SOCKET" > "$RIG/out" 2>&1 || fail "fork"
[ "$(grep -c '^child [0-9]* 0x0$' "$RIG/out")" = 4 ] || fail "callers held by their number are not served"
ok "callers are held by their numbers, and sign"

# ---- before tokend looks: who writes then is not who has the number now ----
kill -STOP "$tokend"
asks
says '^reused'
kill -CONT "$tokend"
writers=$(count 'another process wrote')
answer before
[ "$got" = lost ] || [ "$got" = "turned away" ] || fail "a pid's new owner's token for who holds its old owner's connection: $got"
[ "$got" != lost ] || [ "$(count 'another process wrote')" = $((writers + 1)) ] || fail "the log does not say why"
ok "the number was another's before it was looked at: $got"

# ---- between the look at the number and its opening ----
touch "$RIG/hold"
asks wait
says connected
rig_wait grep -qx held "$RIG/tokend.out" || fail "pidfd_open is not held"
sleep 1 # the newcomer begins well after the connection was accepted: clock ticks, of 10 ms
echo >&8
says '^reused'
reused=$(sed -n 's/^reused //p' "$RIG/out")
rm "$RIG/hold"
rig_wait grep -q "event=tokend.no-agent pid=$reused .*reason=pidReused" "$RIG/tokend.log" || fail "the number's new owner is not told apart"
answer between
[ "$got" != served ] || fail "the number's new owner is an agent by the old one's connection"
[ "$(count "event=tokend.connected pid=$reused ")" = 0 ] || fail "granted"
ok "the number was another's between look and opening: pidReused, $got"
