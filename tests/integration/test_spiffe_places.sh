#!/usr/bin/env bash
# api.sock's places: users whose connections are nobody's agent do not keep agents out, who asks for nothing is ended,
# who was told that it is nobody does not become an agent on the same connection, and an HSM module that does not come
# back holds up nobody whose key is in another. attestd, keyd and whod are small
# real servers.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "skipped: processes of several users need root"; exit 77; }
/usr/bin/python3 -c 'import hpack' 2> /dev/null || { echo "skipped: no python3-hpack"; exit 77; }
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
trap rig_end EXIT
socket=$RIG/run/public/api.sock
ok() { printf 'ok: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    cat "$RIG"/out* >&2 || true
    tail -n 20 "$RIG/spiffed.log" >&2
    exit 1
}
rig_store market-data
rig_server attestd
rig_server keyd
rig_server whod
echo nobody-yet > "$RIG/store/strangers"
cat > "$RIG/attestd.yaml" << YAML
state_dir: $RIG/state
run_dir: $RIG/run
log_level: debug
YAML
mkdir -p "$RIG/run/public"
cp "$ATT_SOURCE_DIR/tests/support/spiffe/streams.py" "$RIG/"
"$RIG_BIN/attestd-spiffed" --config "$RIG/attestd.yaml" --connections 40 --per-uid 30 --slow 5 2> "$RIG/spiffed.log" &
rig_pids+=($!)
rig_wait test -S "$socket"
streams() { timeout 60 /usr/bin/python3 "$RIG/streams.py" "$@"; }

streams become "$socket" nobody-yet agent > "$RIG/out" 2>&1 || fail "become"
[ "$(cat "$RIG/out")" = '{"answered": 0, "ended": [7]}' ] || fail "nobody became an agent on its connection"
streams chain "$socket" > "$RIG/out.agent" 2>&1 || fail "chain"
[ "$(cat "$RIG/out.agent")" = '{"answered": 1, "ended": [0]}' ] || fail "a connection of its own is not served"
ok "who was told that it is nobody is ended, and does not become an agent before"

for user in 62021 62022 62023 62024; do
    timeout 60 setpriv --reuid $user --regid $user --clear-groups /usr/bin/python3 "$RIG/streams.py" idle "$socket" 15 \
        > "$RIG/out.$user" 2>&1 &
    rig_pids+=($!)
done
for user in 62021 62022 62023 62024; do
    rig_wait grep -q connected "$RIG/out.$user" || fail "idle $user"
done
streams chain "$socket" > "$RIG/out" 2>&1 || fail "chain"
[ "$(cat "$RIG/out")" = '{"answered": 1, "ended": [0]}' ] || fail "an agent finds no place"
rig_wait grep -q "event=spiffed.cut .*its place is another's" "$RIG/spiffed.log" || fail "nothing was given back"
! grep -q 'too many connections in all' "$RIG/spiffed.log" || fail "all places were taken"
for user in 62021 62022 62023 62024; do
    rig_wait grep -q over "$RIG/out.$user" || fail "connections of $user that ask for nothing stay"
done
ok "60 idle connections of four users leave an agent its place, and are ended"

# Agents, each with as many connections as it is let have: none but the last finds what it wants.
holders=()
holds() { # holds USER: how many of its 30 streams, each on a connection of its own, were answered
    timeout 60 setpriv --reuid "$1" --regid "$1" --clear-groups /usr/bin/python3 "$RIG/streams.py" hold "$socket" 30 \
        < "$RIG/hold" > "$RIG/out.hold.$1" 2>&1 &
    holders+=($!)
    rig_wait grep -q answered "$RIG/out.hold.$1" || fail "hold $1"
    got="$got$(jq -r .answered "$RIG/out.hold.$1") "
}
mkfifo "$RIG/hold"
sleep 120 > "$RIG/hold" &
rig_pids+=($!)
got=''
for user in 62031 62032 62033 62034; do
    holds $user
done
[ "$got" = "20 10 5 3 " ] || fail "four agents' connections of 40: $got"
grep -q 'too many connections of this user beside those of others' "$RIG/spiffed.log" || fail "the log does not say why"
streams chain "$socket" > "$RIG/out" 2>&1 || fail "chain"
[ "$(cat "$RIG/out")" = '{"answered": 1, "ended": [0]}' ] || fail "a fifth agent finds no place"
for pid in "${holders[@]}"; do kill "$pid"; done
wait "${holders[@]}" 2> /dev/null || true
ok "four agents that take all the connections they can get ($got) leave a fifth its own"

rig_key other
mkdir -p "$RIG/store/names"
echo other > "$RIG/store/names/other"
echo first > "$RIG/store/market-data/hsm"
echo second > "$RIG/store/other/hsm"
touch "$RIG/store/market-data/stuck"
streams sign "$socket" agent > "$RIG/out.stuck" 2>&1 &
stuck=$!
streams sign "$socket" agent > "$RIG/out.stuck2" 2>&1 &
stuck2=$!
rig_pids+=("$stuck" "$stuck2")
rig_wait grep -q '^stuck market-data' "$RIG/keyd.out" || fail "keyd is not asked"
streams sign "$socket" other > "$RIG/out" 2>&1 || fail "sign"
[ "$(cat "$RIG/out")" = '{"answered": 1, "ended": [0]}' ] || fail "no signature by the second module"
cat "$RIG/out.stuck" "$RIG/out.stuck2" > "$RIG/out.both"
[ ! -s "$RIG/out.both" ] || fail "the first module was waited for"
rm "$RIG/store/market-data/stuck"
wait "$stuck" "$stuck2" || fail "the first module's"
[ "$(cat "$RIG/out.stuck")" = '{"answered": 1, "ended": [0]}' ] || fail "no signature by the first module, back again"
ok "a module that does not come back holds up its own agents only"
