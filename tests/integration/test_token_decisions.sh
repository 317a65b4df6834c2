#!/usr/bin/env bash
# Entries that change under connections, as tokend sees it: whom attestd does not name any more signs no longer, on a
# connection that stays; nobody is asked about twice; what is not known in time is refused. The processes that tokend
# asks are small real servers (tests/support/token); test_token_entries.sh has the real ones.
set -euo pipefail
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || { echo "no p11-kit-client.so (package p11-kit-modules)"; exit 77; }
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
watcher=''
end_all() {
    [ -z "$watcher" ] || kill -KILL "$watcher" 2> /dev/null || true
    rig_end
}
trap end_all EXIT
export P11_KIT_SERVER_ADDRESS=unix:path=$RIG_SOCKET
client=$RIG_BIN/../tests-bin/token-client
ok() { printf 'ok: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    cat "$RIG/watch" >&2 || true
    grep -v level=debug "$RIG/tokend.log" | tail -n 20 >&2
    exit 1
}
rig_store market-data
rig_server attestd whod
attestd=$RIG_LAST
rig_server keyd
rig_tokend
# Heard of, not asked for: tokend asks again every 10 s (PROC_CHANGES_WAIT_MS). How fast it is on a free machine is no
# matter of a test that runs beside others.
limit=8000
[ -z "${ATT_LONG:-}" ] || limit=1000 # with --all, on a machine that does nothing else: the promise itself
/usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/token/rpc.py" watch "$RIG_SOCKET" 20 > "$RIG/watch" 2>&1 &
watcher=$!
is() { [[ "$(tail -n 1 "$RIG/watch")" == *" $1" ]]; }
within() { # within WORDS: the watcher says so, in time since the change
    rig_wait is "$1" || fail "wanted: $1"
    took=$(($(tail -n 1 "$RIG/watch" | cut -d' ' -f1) - since))
    [ "$took" -le "$limit" ] || fail "$1 after $took ms, allowed are $limit"
}
changed() { # changed NUMBER: these entries are in force now
    echo "$1" > "$RIG/store/entries.new"
    since=$(date +%s%3N) # not after it is heard of
    mv "$RIG/store/entries.new" "$RIG/store/entries"
}
asked() { grep -c '^identify pkcs11-again$' "$RIG/attestd.out" || true; }
rig_wait is '0x0 found 1' || fail "the rig"
said() { rig_wait grep -q "$1" "$RIG/tokend.log"; } # it is written once a second

# ---- other entries ----
before=$(asked)
changed 2
again() { [ "$(asked)" -gt "$before" ]; }
rig_wait again || fail "nobody asked anew"
sleep 0.5
is '0x0 found 1' || fail "a change that is none of its business"
[ "$(asked)" = $((before + 1)) ] || fail "asked $(($(asked) - before)) times about 20 connections of one process"
ok "20 connections of one process: one new decision, and they sign on"
echo other > "$RIG/store/agent"
changed 3
within '0x200 found 0'
said 'event=tokend.unassigned .*agent=market-data' || fail "no line"
[ "$(grep -c 'event=tokend.unassigned' "$RIG/tokend.log")" = 1 ] || fail "a line for each connection"
ok "another agent's by now: refused, and finds nothing, after $took ms"
echo market-data > "$RIG/store/agent"
changed 4
within '0x0 found 1'
said 'event=tokend.assigned-again' || fail "no line"
ok "put right: signs again on the same connection, after $took ms"
rm "$RIG/store/agent"
changed 5
within '0x200 found 0'
said 'event=tokend.unassigned .*reason=notAssigned' || fail "no line with the reason"
said 'event=tokend.refused .*reason=notAssigned' || fail "the refusal does not say why"
echo market-data > "$RIG/store/agent"
changed 6
within '0x0 found 1'
ok "nobody's agent by now: refused after $took ms"

# ---- nobody can say ----
touch "$RIG/store/busy"
changed 7
rig_wait is '0x30 found 1' || fail "signed on, and nobody knows for whom"
took=$(($(tail -n 1 "$RIG/watch" | cut -d' ' -f1) - since))
[ "$took" -ge 900 ] && [ "$took" -le $((limit + 1500)) ] || fail "not decided: refused after $took ms"
said 'event=tokend.refused .*reason=notDecided' || fail "the refusal does not say why"
refused=$took
rm "$RIG/store/busy"
since=$(date +%s%3N)
within '0x0 found 1'
ok "a change of which attestd cannot say what it means: refused after $refused ms, until it can"
touch "$RIG/store/busy"
changed 71
first=$since
for n in {72..85}; do # each less than a second after the one before
    sleep 0.5
    changed $n
done
rig_wait is '0x30 found 1' || fail "signed on while entries kept changing"
refused=$(tail -n 1 "$RIG/watch" | cut -d' ' -f1)
took=$((refused - first))
[ "$took" -ge 900 ] && [ "$took" -le $((limit + 1500)) ] || fail "entries kept changing: refused after $took ms"
rm "$RIG/store/busy"
since=$(date +%s%3N)
within '0x0 found 1'
ok "entries that keep changing give no more time: refused $took ms after the first of them"

# ---- a restart is no change ----
before=$(asked)
kill "$attestd"
wait "$attestd" || fail "the servers' exit status"
rig_server attestd whod
attestd=$RIG_LAST
sleep 3
rig_wait is '0x0 found 1' || fail "attestd restarted"
[ "$(asked)" = 0 ] || fail "asked anew, though nothing changed"
changed 8
again() { [ "$(asked)" = 1 ]; }
rig_wait again || fail "after a restart of attestd changes are not heard"
ok "attestd restarted: nothing is decided anew; the next change is heard"

# ---- a change while somebody is being identified ----
first_asked() { grep -c '^identify pkcs11$' "$RIG/attestd.out" || true; }
before=$(first_asked)
being() { [ "$(first_asked)" -gt "$before" ]; }
echo 3000 > "$RIG/store/identify-slow"
timeout 120 "$client" "$module" sign 1 > "$RIG/late" 2>&1 < /dev/null &
late=$!
rig_wait being || fail "nobody is identified"
sleep 0.5 # of the three seconds: decided, and not told yet
rm "$RIG/store/identify-slow" "$RIG/store/agent"
changed 9
! wait "$late" || fail "granted by entries that were not in force any more"
grep -q 'slots: 0x0' "$RIG/late" || { cat "$RIG/late"; fail "a caller identified by old entries"; }
within '0x200 found 0'
ok "identified by entries that changed meanwhile: identified again, and refused"
kill -KILL "$watcher"
none() { [ "$(pgrep -c -P "$RIG_TOKEND" || true)" = 0 ]; }
rig_wait none || fail "tokens are left"
ok "done"
