#!/usr/bin/env bash
# tokend with stock PKCS#11 clients: listing, signing, TLS; rotation; restarts of what it asks; callers that
# are nobody's agent; hostile clients; memory of idle connections. The processes that tokend asks are small
# real servers with software keys (tests/support/token).
set -euo pipefail
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || { echo "no p11-kit-client.so (package p11-kit-modules)"; exit 77; }
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
trap rig_end EXIT
client=$RIG_BIN/../tests-bin/token-client
export P11_KIT_SERVER_ADDRESS=unix:path=$RIG_SOCKET
export P11_KIT_STRICT=1
key='pkcs11:token=attestd;object=agent;type=private'
began=$(date +%s%3N)
ok() { printf 'ok %5d ms: %s\n' $(($(date +%s%3N) - began)) "$*"; }
skipped() { printf 'not tried: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    grep -v level=debug "$RIG/tokend.log" | tail -n 20 >&2
    exit 1
}
have() { command -v "$1" > /dev/null; }
# p11-kit reads a user's own drop-ins for anybody but root
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
run() { timeout 60 "$@" < /dev/null; }

rig_store market-data
rig_server attestd whod
rig_server keyd
keyd=$RIG_LAST
rig_tokend --per-uid 1500

# ---- command line and socket -----------------------------------------------------------------------------
status=0
"$RIG_BIN/attestd-tokend" --per-uid nine 2> "$RIG/err" || status=$?
[ $status = 2 ] && grep -q '"nine"' "$RIG/err" || fail "--per-uid nine: exit $status"
status=0
"$RIG_BIN/attestd-tokend" --config "$RIG/attestd.yaml" 2> "$RIG/err" || status=$?
[ $status = 1 ] && grep -q 'another process serves' "$RIG/err" || fail "a second tokend: exit $status"
[ "$(stat -c %a "$RIG_SOCKET")" = 666 ] || fail "socket's mode"
[ "$(stat -c %a "$RIG/run/public")" = 755 ] || fail "folder's mode"
ok "options, a second tokend, modes"

# ---- stock tools -----------------------------------------------------------------------------------------
run "$client" "$module" sign 50 > "$RIG/out" || fail "50 signatures"
ok "p11-kit's client: $(cat "$RIG/out")"
openssl rand 32 > "$RIG/digest"
if have pkcs11-tool; then
    run pkcs11-tool --module "$module" -O > "$RIG/out" 2>&1 || fail "pkcs11-tool -O"
    for want in 'Private Key Object; EC' 'never extractable' 'spiffe-id' 'DN: CN=market-data' 'DN: CN=test CA'; do
        grep -q -- "$want" "$RIG/out" || { cat "$RIG/out"; fail "pkcs11-tool -O shows no $want"; }
    done
    run pkcs11-tool --module "$module" -s -m ECDSA --signature-format openssl --label agent -i "$RIG/digest" \
        -o "$RIG/sig" 2> /dev/null || fail "pkcs11-tool -s"
    openssl x509 -in "$RIG/store/market-data/chain.pem" -noout -pubkey > "$RIG/pub.pem"
    openssl pkeyutl -verify -pubin -inkey "$RIG/pub.pem" -in "$RIG/digest" -sigfile "$RIG/sig" > /dev/null || fail "signature"
    run pkcs11-tool --module "$module" --read-object --type data --label spiffe-id 2> /dev/null > "$RIG/out"
    [ "$(cat "$RIG/out")" = spiffe://bank.example/agent/market-data ] || fail "SPIFFE ID in the data object"
    run pkcs11-tool --module "$module" -h -m SHA256 -i "$RIG/digest" -o "$RIG/hash" 2> /dev/null || fail "pkcs11-tool -h"
    [ "$(xxd -p -c 64 "$RIG/hash")" = "$(sha256sum "$RIG/digest" | cut -d' ' -f1)" ] || fail "SHA-256 of the token"
    run pkcs11-tool --module "$module" --generate-random 64 -o "$RIG/random" 2> /dev/null || fail "random"
    ! run pkcs11-tool --module "$module" -k --key-type EC:prime256v1 > /dev/null 2>&1 || fail "a key was generated"
    ! run pkcs11-tool --module "$module" -b --type privkey --label agent > /dev/null 2>&1 || fail "the key was deleted"
    ok "pkcs11-tool"
else
    skipped "pkcs11-tool (package opensc)"
fi
if have p11tool; then
    run p11tool --provider "$module" --list-all 'pkcs11:token=attestd' > "$RIG/out" 2>&1 || fail "p11tool --list-all"
    [ "$(grep -c '^Object' "$RIG/out")" = 5 ] || { cat "$RIG/out"; fail "p11tool sees other than 5 objects"; }
    run p11tool --provider "$module" --export-chain 'pkcs11:token=attestd;object=agent;type=cert' > "$RIG/out" 2>&1 ||
        fail "p11tool --export-chain"
    ok "p11tool"
else
    skipped "p11tool (package gnutls-bin)"
fi

# ---- TLS ---------------------------------------------------------------------------------------------------
job_port
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$RIG/srv.key" -out "$RIG/srv.csr" \
    -subj /CN=localhost 2> /dev/null
openssl x509 -req -in "$RIG/srv.csr" -CA "$RIG/ca.pem" -CAkey "$RIG/ca.key" -days 1 -out "$RIG/srv.pem" \
    -extfile <(echo subjectAltName=DNS:localhost,IP:127.0.0.1) 2> /dev/null
openssl s_server -accept "127.0.0.1:$port" -cert "$RIG/srv.pem" -key "$RIG/srv.key" -CAfile "$RIG/ca.pem" \
    -Verify 2 -verify_return_error -www > "$RIG/srv.log" 2>&1 &
rig_pids+=($!)
rig_wait bash -c "exec 9<>/dev/tcp/127.0.0.1/$port"
chain=$RIG/store/market-data/chain.pem
if have gnutls-cli; then
    run gnutls-cli --provider "$module" --x509keyfile "$key" --x509certfile "${key/private/cert}" \
        --x509cafile "$RIG/ca.pem" -p "$port" localhost > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "gnutls-cli"; }
    grep -q 'Handshake was completed' "$RIG/out" || fail "gnutls-cli"
    ok "gnutls-cli: TLS with the agent's key"
else
    skipped "gnutls-cli"
fi
folder=$(dirname "$module")
engine=$(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
provider=$(openssl version -m | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
if [ -e "$engine" ]; then
    sed "s,@ATT_PKCS11_DIR@,$folder," "$ATT_SOURCE_DIR/scripts/pkcs11/openssl-engine.cnf" > "$RIG/engine.cnf"
    export OPENSSL_CONF=$RIG/engine.cnf
    echo Q | timeout 30 openssl s_client -connect "127.0.0.1:$port" -engine pkcs11 -keyform engine -key "$key" -cert "$chain" \
        -CAfile "$RIG/ca.pem" -verify_return_error -brief > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "s_client with the engine"; }
    if have curl && curl --version | grep -q OpenSSL; then
        code=$(run curl -sS --engine pkcs11 --key-type ENG --key "$key" --cert-type ENG --cert "${key/private/cert}" \
            --cacert "$RIG/ca.pem" -o /dev/null -w '%{http_code}' "https://localhost:$port/") || fail "curl"
        [ "$code" = 200 ] || fail "curl: $code"
    fi
    unset OPENSSL_CONF
    ok "OpenSSL's engine: s_client, curl"
else
    skipped "OpenSSL engine (package libengine-pkcs11-openssl)"
fi
if [ -e "$provider" ]; then
    sed "s,@ATT_PKCS11_DIR@,$folder," "$ATT_SOURCE_DIR/scripts/pkcs11/openssl-agent.cnf" > "$RIG/provider.cnf"
    echo Q | OPENSSL_CONF=$RIG/provider.cnf timeout 30 openssl s_client -connect "127.0.0.1:$port" -key "$key" -cert "$chain" \
        -CAfile "$RIG/ca.pem" -verify_return_error -brief > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "s_client with the provider"; }
    ok "OpenSSL's provider: s_client"
else
    skipped "OpenSSL provider (package pkcs11-provider)"
fi

# ---- p11-kit's drop-in: no environment variable, no path of a module ----
if have p11tool; then
    mkdir -p "$RIG/home/.config/pkcs11/modules"
    sed "s,/run/attestd/public/pkcs11.sock,$RIG_SOCKET," "$ATT_SOURCE_DIR/scripts/pkcs11/attestd.module" \
        > "$RIG/home/.config/pkcs11/modules/attestd.module"
    as_user env -u P11_KIT_SERVER_ADDRESS HOME="$RIG/home" timeout 30 p11tool --list-tokens > "$RIG/out" 2>&1 < /dev/null || fail "drop-in"
    grep -q 'token=attestd' "$RIG/out" || { cat "$RIG/out"; fail "no token by the drop-in"; }
    echo 'enable-in: curl' >> "$RIG/home/.config/pkcs11/modules/attestd.module"
    as_user env -u P11_KIT_SERVER_ADDRESS HOME="$RIG/home" timeout 30 p11tool --list-tokens > "$RIG/out" 2>&1 < /dev/null || true
    ! grep -q 'token=attestd' "$RIG/out" || fail "enable-in: curl, and p11tool still connects"
    ok "p11-kit's drop-in, enable-in"
fi

# ---- who ------------------------------------------------------------------------------------------------------
run "$client" "$module" inherit > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "an inherited socket was served"; }
rig_wait grep -q 'another process wrote' "$RIG/tokend.log" || fail "the log does not say that another process wrote"
ok "a child that writes to its parent's connection is refused"
echo token-client > "$RIG/store/strangers"
status=0
run "$client" "$module" sign 1 > "$RIG/out" 2>&1 || status=$?
[ $status = 1 ] && grep -q 'slots: 0x0' "$RIG/out" || { cat "$RIG/out"; fail "a stranger sees a slot"; }
rig_wait grep -q 'tokend.no-agent.*notAssigned' "$RIG/tokend.log" || fail "the log does not name the reason"
rm "$RIG/store/strangers"
touch "$RIG/store/changed"
is_ready() { rig_wait grep -qs ready "$RIG/out"; }
rm "$RIG/out"
(is_ready; sleep 2.5; echo) | timeout 120 "$client" "$module" rotate > "$RIG/out" 2>&1 && fail "signed for a caller that changed"
grep -q 'old handle: 0x200' "$RIG/out" || { cat "$RIG/out"; fail "other than CKR_FUNCTION_REJECTED"; }
rm "$RIG/store/changed"
touch "$RIG/store/frozen"
run "$client" "$module" sign 1 > "$RIG/out" 2>&1 && fail "signed for a frozen agent"
grep -q 'Sign: 0x200' "$RIG/out" || { cat "$RIG/out"; fail "frozen: other than CKR_FUNCTION_REJECTED"; }
mv "$RIG/store/frozen" "$RIG/store/quota"
run "$client" "$module" sign 1 > "$RIG/out" 2>&1 && fail "signed beyond the quota"
grep -q 'Sign: 0x6' "$RIG/out" || { cat "$RIG/out"; fail "quota: other than CKR_FUNCTION_FAILED"; }
rm "$RIG/store/quota"
ok "nobody's agent: no slot; changed, frozen, quota: clean errors"

# signing SECONDS: one signs for so long, and has begun
signing() {
    : > "$RIG/loop"
    timeout 900 "$client" "$module" loop "$1" > "$RIG/loop" 2>&1 &
    loop=$!
    rig_wait grep -q '^signs$' "$RIG/loop" || { cat "$RIG/loop"; fail "a caller"; }
}

# ---- rotation ----------------------------------------------------------------------------------------------------
rm "$RIG/out"
(is_ready; rig_key market-data; sleep 1.2; echo) | timeout 120 "$client" "$module" rotate > "$RIG/out" 2>&1 ||
    { cat "$RIG/out"; fail "rotation"; }
rm "$RIG/out"
(is_ready; rm "$RIG"/store/keys/*; rig_key market-data; echo) | timeout 120 "$client" "$module" old > "$RIG/out" 2>&1 ||
    { cat "$RIG/out"; fail "a handle of a destroyed key"; }
mv "$RIG/store/market-data/key_id" "$RIG/key_id"
sleep 1.1
status=0
run "$client" "$module" sign 1 > "$RIG/out" 2>&1 || status=$?
grep -q 'objects found: 0x0' "$RIG/out" || { cat "$RIG/out"; fail "no certificate, yet a key is shown"; }
mv "$RIG/key_id" "$RIG/store/market-data/key_id"
sleep 1.1
ok "rotation: new key at the next search, old handle until its key is gone; no certificate, no key"

# ---- those whom tokend asks go and come ------------------------------------------------------------------------------
loops=()
callers=${TOKEN_CALLERS:-20}
for i in $(seq "$callers"); do
    timeout 300 "$client" "$module" loop $((6 + callers / 20)) 5000 180 > "$RIG/loop.$i" 2>&1 &
    loops+=($!)
done
all_sign() { [ "$(cat "$RIG"/loop.* | grep -c '^signs$')" = "$callers" ]; }
rig_wait all_sign || fail "$callers callers"
kill -9 "$keyd"
sleep 3
rig_server keyd
keyd=$RIG_LAST
for pid in "${loops[@]}"; do
    wait "$pid" || { cat "$RIG"/loop.*; fail "a caller did not recover from keyd's end"; }
done
grep -hoE 'error 0x[0-9a-f]+' "$RIG"/loop.* | sort -u > "$RIG/out"
grep -q 'error 0x30' "$RIG/out" || { cat "$RIG"/loop.*; fail "nobody noticed 3 s without keyd"; }
! grep -qvE 'error 0x(30|0)$' "$RIG/out" || { cat "$RIG/out"; fail "other than CKR_DEVICE_ERROR"; }
ok "keyd killed while $callers callers sign: $(awk '{o += $2; f += $4} END {print o " signed, " f " failed cleanly"}' "$RIG"/loop.*)"
# A restart within the gap of 2 s; on a machine that was too slow for one it is tried again.
noticed=late
for _ in 1 2 3 4 5 6; do
    signing 4
    began_ms=$(date +%s%3N)
    for pid in "${rig_pids[@]}"; do
        [ "$(readlink "/proc/$pid/exe")" = "$(readlink -f "$RIG_SERVERS")" ] && [ "$pid" != "$keyd" ] && kill -9 "$pid"
    done
    sleep 0.7
    rig_server attestd whod
    took=$(($(date +%s%3N) - began_ms))
    wait "$loop" || { cat "$RIG/loop"; fail "attestd's and whod's restart"; }
    noticed=$(grep -q 'failed 0' "$RIG/loop" && echo no || echo late)
    [ "$noticed" = late ] || break
    [ "$took" -gt 1500 ] || { cat "$RIG/loop"; fail "a restart of $took ms, below the gap, was noticed"; }
done
if [ "$noticed" = no ]; then ok "attestd and whod restarted within the gap: not noticed"; else skipped "a restart within the gap: the machine is too slow"; fi

# ---- hostile clients ----------------------------------------------------------------------------------------------------
frames=${TOKEN_FRAMES:-100000}
signing $((frames / 5000))
timeout $((900 + frames / 500)) python3 "$ATT_SOURCE_DIR/tests/support/token/hostile.py" "$RIG_SOCKET" "$frames" > "$RIG/out" || fail "hostile client"
wait "$loop" || { cat "$RIG/loop"; fail "another caller suffered from a hostile one"; }
grep -q 'failed 0' "$RIG/loop" || { cat "$RIG/loop"; fail "another caller suffered from a hostile one"; }
[ -d "/proc/$RIG_TOKEND" ] || fail "tokend ended"
died=$(grep -c tokend.token-died "$RIG/tokend.log" || true)
ok "hostile: $(cat "$RIG/out"), $died token processes died; beside them $(tail -n 1 "$RIG/loop")"
run "$client" "$module" sign 3 > /dev/null || fail "after the hostile client"

# kill -9 of one token process ends its connection and no other
signing 5
rm "$RIG/out"
mkfifo "$RIG/victim"
timeout 120 "$client" "$module" rotate < "$RIG/victim" > "$RIG/out" 2>&1 &
victim=$!
exec 8> "$RIG/victim"
is_ready
kill -9 "$(pgrep -n -P "$RIG_TOKEND")"
echo >&8
exec 8>&-
wait "$victim" && fail "a client whose token was killed went on"
wait "$loop" || { cat "$RIG/loop"; fail "a neighbour of a killed token"; }
ok "a token process killed: its neighbour signs on"

# ---- memory ----------------------------------------------------------------------------------------------------------------
sed -i 's/^log_level: debug/log_level: info/' "$RIG/attestd.yaml"
kill -HUP "$RIG_TOKEND"
rig_wait grep -q tokend.reloaded "$RIG/tokend.log"
n=${TOKEN_IDLE:-100}
mkfifo "$RIG/fifo"
timeout 300 "$client" "$module" idle "$n" < "$RIG/fifo" > "$RIG/idle" 2>&1 &
idle=$!
exec 8> "$RIG/fifo"
for _ in $(seq 1200); do
    grep -q idle "$RIG/idle" && break
    sleep 0.1
done
grep -q idle "$RIG/idle" || { cat "$RIG/idle"; fail "$n idle connections"; }
n_tokens() { pgrep -P "$RIG_TOKEND" > "$RIG/tokens" && [ "$(wc -l < "$RIG/tokens")" = "$n" ]; } # those of before have ended
rig_wait n_tokens || fail "$(wc -l < "$RIG/tokens") token processes for $n connections"
kib=$(while read -r pid; do cat "/proc/$pid/smaps_rollup"; done < "$RIG/tokens" | awk '/^Private/ {s += $2} END {print s}')
ok "$n idle connections, each after a signature: $((kib / n)) KiB private each"
exec 8>&-
wait "$idle" || { cat "$RIG/idle"; fail "signatures after idling"; }
rig_wait sh -c "! pgrep -P $RIG_TOKEND"
ok "no process is left of them"

# ---- the end ----------------------------------------------------------------------------------------------------------------
echo 'no_such_key: 1' >> "$RIG/attestd.yaml"
kill -HUP "$RIG_TOKEND"
rig_wait grep -q tokend.reload-refused "$RIG/tokend.log"
[ -d "/proc/$RIG_TOKEND" ] || fail "a bad configuration at SIGHUP ended tokend"
kill "$RIG_TOKEND"
wait "$RIG_TOKEND" || fail "tokend's exit status"
[ ! -e "$RIG_SOCKET" ] || fail "the socket's file stayed"
ok "SIGHUP, SIGTERM"
