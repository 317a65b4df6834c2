#!/usr/bin/env bash
# A key that is replaced, or retired and destroyed, in the middle: between C_SignInit and C_Sign, and in the middle of
# a TLS handshake of a stock client that has its key's handle and its certificate already. The old key signs as long
# as it is there; when it is not, the client gets a clean error, and its next try works.
set -euo pipefail
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || { echo "skipped: no p11-kit-client.so (package p11-kit-modules)"; exit 77; }
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
# shellcheck source=../support/token/clients.sh
. "$ATT_SOURCE_DIR/tests/support/token/clients.sh"
trap rig_end EXIT
rig_store market-data
rig_server attestd whod
rig_server keyd
rig_tokend
clients_setup
current() { cat "$RIG/store/market-data/key_id"; }
looks=$RIG_BIN/../tests-bin/token-client
shows() { timeout 60 "$looks" "$module" hold < /dev/null > "$RIG/shown" && grep -qx "ready $(current)" "$RIG/shown"; }
# A rotation that new searches see: for up to a second they find what was there before.
rotate() {
    rig_key market-data
    rig_wait shows || { cat "$RIG/shown"; fail "the new key does not show"; }
}
destroy() { rm "$RIG/store/keys/$1.pem"; } # as keyd does when a retired key's certificate has ended
says() { rig_wait grep -q -- "$1" "$RIG/out" || { cat "$RIG/out"; fail "wanted: $1"; }; }

# Somebody of the agent stays, so that tokend keeps what attestd said last from one client to the next.
mkfifo "$RIG/stay" "$RIG/in"
timeout 300 /usr/bin/python3 "$support/rpc.py" hold "$RIG_SOCKET" 1 < "$RIG/stay" > "$RIG/stays" 2>&1 &
rig_pids+=($!)
exec 7> "$RIG/stay"
rig_wait grep -qx 1 "$RIG/stays"

# ---- between C_SignInit and C_Sign ----
begin() {
    timeout 60 /usr/bin/python3 "$support/rpc.py" midway "$RIG_SOCKET" < "$RIG/in" > "$RIG/out" 2>&1 &
    asker=$!
    exec 8> "$RIG/in"
    says begun
}
finish() {
    echo >&8
    exec 8>&-
    wait $asker || { cat "$RIG/out"; fail "midway"; }
}
begin
rotate
finish
grep -qx '0x0 then 0x0' "$RIG/out" || { cat "$RIG/out"; fail "a signature that was begun before a rotation"; }
ok "begun before a rotation: signed with the old key"
old=$(current)
begin
rig_key market-data
destroy "$old"
finish
# The one whose key was gone was told so; whoever looks for the key after that finds the new one, at once.
shows || { cat "$RIG/shown"; fail "a key that is gone is found again"; }
grep -qx '0x60 then 0x60' "$RIG/out" || { cat "$RIG/out"; fail "a signature whose key was destroyed: expected CKR_KEY_HANDLE_INVALID"; }
ok "begun, and its key was destroyed: CKR_KEY_HANDLE_INVALID"

# ---- in the middle of a handshake ----
port_into at
mkfifo "$RIG/go"
/usr/bin/python3 "$support/held.py" "$at" "$port" < "$RIG/go" > "$RIG/held" 2>&1 &
rig_pids+=($!)
exec 9> "$RIG/go"
rig_wait grep -q ready "$RIG/held"
held=0
# in_between COMMAND…: run with the handshake held, after which "change" is done
in_between() {
    local status=0 client
    timeout 60 "$@" < /dev/null > "$RIG/out" 2>&1 9>&- &
    client=$!
    held=$((held + 1))
    is_held() { [ "$(grep -c held "$RIG/held")" = $held ]; }
    rig_wait is_held || { cat "$RIG/out"; fail "no handshake: $*"; }
    change
    echo >&9
    wait $client || status=$?
    [ $status -lt 124 ] || { cat "$RIG/out"; fail "exit $status: $*"; }
    return $status
}
new_key() (unset OPENSSL_CONF; "$@")
rotates() { new_key rotate; } # the next client finds the new key, not that of before
destroys() {                  # … also after this: a key that is gone was asked for
    local was
    was=$(current)
    new_key rig_key market-data
    destroy "$was"
}
midway() { # midway NAME COMMAND…
    local name=$1
    shift
    change() { rotates; }
    in_between "$@" || { cat "$RIG/out"; fail "$name: its key was rotated in the middle of a handshake"; }
    change() { destroys; }
    ! in_between "$@" || { cat "$RIG/out"; fail "$name: a handshake with a key that was destroyed in its middle"; }
    change() { :; }
    in_between "$@" || { cat "$RIG/out"; fail "$name: the next try"; }
    ok "$name: rotated in mid-handshake: held; destroyed in mid-handshake: refused, and the next try works"
}
tried=no
curl_at() { # curl_at OPTIONS
    midway "$1" curl -sS -f --connect-to "localhost:443:127.0.0.1:$at" --cacert "$RIG/ca.pem" "${@:2}" https://localhost/
}
if have_engine && have curl && curl --version | grep -q OpenSSL; then
    tried=yes
    OPENSSL_CONF=$RIG/engine.cnf curl_at "curl, engine" --key "$key" --cert "$cert"
fi
if have_provider && have curl && curl --version | grep -q OpenSSL; then
    tried=yes
    OPENSSL_CONF=$RIG/provider.cnf curl_at "curl, provider" --key "$key_uri_file" --cert "$chain"
fi
if have gnutls-cli; then
    tried=yes
    midway gnutls-cli gnutls-cli --provider "$module" --x509keyfile "$key" --x509certfile "$cert" --x509cafile "$RIG/ca.pem" \
        --insecure -p "$at" 127.0.0.1
fi
[ $tried = yes ] || { echo "skipped: neither curl nor gnutls-cli"; exit 77; }
exec 9>&-
ok "done"
