#!/usr/bin/env bash
# Answers that nobody reads: a user with many streams whose answers are megabytes each (Envoy's validation context with a
# long revocation list) is answered as far as its share goes, and further as it reads; another user is served meanwhile.
# attestd, keyd and whod are small real servers.
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
# Not a real list, which spiffed does not look into: a SEQUENCE of so many bytes.
list() {
    local hex
    hex=$(printf '%06x' "$1")
    { printf '\x30\x83'; printf "\x${hex:0:2}\x${hex:2:2}\x${hex:4:2}"; head -c "$1" /dev/urandom; } > "$RIG/store/crl"
}
rig_server attestd
rig_server keyd
rig_server whod
cat > "$RIG/attestd.yaml" << YAML
state_dir: $RIG/state
run_dir: $RIG/run
log_level: debug
YAML
mkdir -p "$RIG/run/public"
cp "$ATT_SOURCE_DIR/tests/support/spiffe/streams.py" "$RIG/"
spiffed() { # spiffed: starts it
    rm -f "$socket"
    "$RIG_BIN/attestd-spiffed" --config "$RIG/attestd.yaml" --slow 60 2>> "$RIG/spiffed.log" &
    spiffed=$!
    rig_pids+=("$spiffed")
    rig_wait test -S "$socket"
}
streams() { # streams USER COMMAND…
    local uid=$1
    shift
    PYTHONDONTWRITEBYTECODE=1 timeout 300 setpriv --reuid "$uid" --regid "$uid" --clear-groups /usr/bin/python3 "$RIG/streams.py" "$@"
}
list 3400000 # as PEM it is longer than an answer may be
spiffed
streams 62021 unread "$socket" 1 > "$RIG/out" 2>&1 || fail "too long"
[ "$(tail -n 1 "$RIG/out")" = '{"whole": 0, "ended": [8]}' ] || fail "a list that is too long"
! grep -q 'spiffed.sds-bundle' "$RIG/spiffed.log" || fail "an error that is none of memory"
kill "$spiffed"
wait "$spiffed" || fail "its end"
ok "a revocation list that no answer has room for: RESOURCE_EXHAUSTED"

list 2800000
spiffed
streams 62021 unread "$socket" 40 > "$RIG/out" 2> "$RIG/out.err" &
reader=$!
rig_pids+=("$reader")
rig_wait grep -q began "$RIG/out" || fail "unread"
# 32 MiB of 3.8 MB each, and one that goes beyond: no more of 40 wait.
began=$(head -n 1 "$RIG/out" | jq .began)
[ "$began" -ge 1 ] && [ "$began" -le 9 ] || fail "$began answers wait"
ok "$began of 40 answers wait to be read, the others to be made"
streams 62022 unread "$socket" 1 > "$RIG/out.other" 2>&1 || fail "another user"
[ "$(tail -n 1 "$RIG/out.other")" = '{"whole": 1, "ended": []}' ] || fail "another user is not served"
wait "$reader" || fail "the reader"
[ "$(tail -n 1 "$RIG/out")" = '{"whole": 40, "ended": []}' ] || fail "not all were answered once they were read"
ok "who reads gets the others, too; another user is served"
