#!/usr/bin/env bash
# What an agent's program sees of its key is the same whichever store holds it: the real tokend, keyd,
# attestd, whod and issuer, stock PKCS#11 clients, the same steps for a key in the TPM, one in keyd's
# memory and, where SoftHSM2 is installed, one in an HSM. Signing, TLS, `attestctl run`, rotation, freeze, a restart of keyd under a running client.
set -euo pipefail
export JOB_KEY=memory # the profile allows both
# shellcheck disable=SC2154 # dir, bin and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
job_setup
began=$(date +%s%3N)
ok() { printf 'ok %6d ms: %s\n' $(($(date +%s%3N) - began)) "$*"; }
client=$ATT_BIN_DIR/../tests-bin/token-client
key='pkcs11:token=attestd;object=agent;type=private'
trap 'status=$?; set +e; job_stop tokend KILL; job_stop tls KILL; (exit $status); job_cleanup' EXIT
chmod 755 "$dir"

job_make_tpm
job_write_conf
agents=(in-tpm in-memory)
declare -A uid_of=([in-tpm]=1101 [in-memory]=1102 [in-hsm]=1103) store_of=([in-tpm]=tpm [in-memory]=memory [in-hsm]=hsm)
if [ -r /usr/lib/softhsm/libsofthsm2.so ] && command -v softhsm2-util > /dev/null; then
    agents+=(in-hsm)
    sed -i 's/keys: \[tpm, memory\]/keys: [tpm, memory, hsm]/' "$dir/issuer.yaml"
    job_make_hsm
    job_start_hsmd
else
    echo "not tried: an HSM (package softhsm2)"
fi
job_start_all
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/whod.sock"
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
chmod -R a+rX "$dir/run"
chmod a+x "$dir/state" "$dir/state/host" "$dir/state/host/agents" # as the units have it
export P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock P11_KIT_STRICT=1

# An agent for each store, told apart by its user.
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
{
    echo "trust_domain: bank.example"
    echo "agents:"
    for name in "${agents[@]}"; do
        echo "  - { name: $name, owner: x@bank.example, hosts: [ \"ek:$(job_host_id)\" ],"
        echo "      workload: { uid: ${uid_of[$name]} }, key: ${store_of[$name]}, profile: trading }"
    done
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > /dev/null
for name in "${agents[@]}"; do
    wait_for 60 job_serial "$name"
done
ok "an agent for each store: ${agents[*]}"

as() { # NAME COMMAND...: as that agent's user
    local uid=${uid_of[$1]}
    shift
    timeout 120 setpriv --reuid="$uid" --regid="$uid" --clear-groups env HOME=/nonexistent "$@" < /dev/null
}
cert_key() { openssl x509 -in "$dir/state/host/agents/$1/chain.pem" -noout -pubkey; }
signs() { # NAME: and the certificate in force verifies it
    openssl rand 32 > "$dir/tmp/digest"
    chmod 644 "$dir/tmp/digest"
    as "$1" pkcs11-tool --module "$module" -s -m ECDSA --signature-format openssl --label agent -i "$dir/tmp/digest" \
        > "$dir/tmp/sig" 2> "$dir/tmp/err" || return 1
    cert_key "$1" > "$dir/tmp/pub.pem"
    openssl pkeyutl -verify -pubin -inkey "$dir/tmp/pub.pem" -in "$dir/tmp/digest" -sigfile "$dir/tmp/sig" > "$dir/tmp/out"
}
sign_count() { as "$1" "$client" "$module" sign "$2" > "$dir/tmp/out" 2>&1; }
refused_sign() { ! sign_count "$1" 1; }

for name in "${agents[@]}"; do
    store=${store_of[$name]}
    [ "$(ctl --json cert show $name | jq -r .keyStore)" = "$store" ] || job_fail "$name: cert show says another store than $store"
    sign_count "$name" 50 || { cat "$dir/tmp/out"; job_fail "$name: 50 signatures"; }
    ok "$store: $(cat "$dir/tmp/out")"
    if command -v pkcs11-tool > /dev/null; then
        signs "$name" || { cat "$dir/tmp/err"; job_fail "$name: pkcs11-tool -s"; }
        ok "$store: pkcs11-tool signs, the certificate's key verifies"
    else
        echo "not tried: pkcs11-tool (package opensc)"
    fi
    as "$name" "$bin/attestctl" run "$name" --run-dir "$dir/run" --state-dir "$dir/state" -- \
        "$client" "$module" sign 3 > "$dir/tmp/out" 2>&1 || { cat "$dir/tmp/out"; job_fail "$name: attestctl run"; }
    ok "$store: attestctl run"

    # ---- TLS with the agent's key, stock client and server ----
    if command -v gnutls-cli > /dev/null; then
        job_port
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/srv.key" -out "$dir/tmp/srv.pem" \
            -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2> /dev/null
        chmod a+r "$dir/tmp/srv.pem"
        job_start tls openssl s_server -accept "127.0.0.1:$port" -cert "$dir/tmp/srv.pem" -key "$dir/tmp/srv.key" \
            -CAfile "$dir/issuer/ca/bundle.pem" -Verify 4 -verify_return_error -www
        wait_for 15 bash -c "exec 9<>/dev/tcp/127.0.0.1/$port"
        as "$name" gnutls-cli --provider "$module" --x509keyfile "$key" \
            --x509certfile "$dir/state/host/agents/$name/chain.pem" \
            --x509cafile "$dir/tmp/srv.pem" -p "$port" localhost > "$dir/tmp/out" 2>&1 || { cat "$dir/tmp/out"; job_fail "$name: gnutls-cli"; }
        grep -q 'Handshake was completed' "$dir/tmp/out" || job_fail "$name: no handshake"
        job_stop tls
        ok "$store: TLS client authentication by gnutls-cli"
    else
        echo "not tried: gnutls-cli"
    fi

    # ---- rotation: new sessions have the new key ----
    before=$(cert_key "$name")
    ctl agent rotate "$name" > /dev/null
    [ "$before" != "$(cert_key "$name")" ] || job_fail "$name: rotation kept the key"
    # tokend has what it saw of an agent for a second
    ! command -v pkcs11-tool > /dev/null || wait_for 20 signs "$name" || { cat "$dir/tmp/err"; job_fail "$name: after the rotation"; }
    ok "$store: rotation"

    # ---- freeze ----
    ctl agent freeze "$name" > /dev/null
    refused_sign "$name" || job_fail "$name: frozen, and signs"
    ctl agent thaw "$name" > /dev/null
    wait_for 20 sign_count "$name" 1
    ok "$store: frozen, it does not sign; thawed, it does"
done

# ---- one agent is not the other ----
as in-memory "$bin/attestctl" run in-memory --run-dir "$dir/run" --state-dir "$dir/state" -- \
    "$client" "$module" sign 1 > /dev/null 2>&1 || job_fail "attestctl run"
[ "$(cert_key in-tpm)" != "$(cert_key in-memory)" ] || job_fail "both have one key"

# ---- keyd is killed: the keys of TPM and HSM are the same, memory's is another, and all sign ----
declare -A was
for name in "${agents[@]}"; do
    was[$name]=$(cert_key "$name")
done
job_stop keyd KILL
refused_sign in-memory || job_fail "signed without keyd"
job_start_keyd
other_key() { job_is in-memory valid && [ "$(cert_key in-memory)" != "${was[in-memory]}" ]; }
wait_for 60 other_key
for name in "${agents[@]}"; do
    wait_for 30 sign_count "$name" 5
    ! command -v pkcs11-tool > /dev/null || wait_for 20 signs "$name" || job_fail "$name: after keyd was killed"
done
for name in "${agents[@]}"; do
    [ "$name" = in-memory ] || [ "$(cert_key "$name")" = "${was[$name]}" ] || job_fail "the key of $name was replaced"
done
[ "$(grep -c agent.keyLost "$dir/log/attestd.log")" = 1 ] || job_fail "keyLost: $(grep -c agent.keyLost "$dir/log/attestd.log")"
ok "keyd killed: the keys of TPM and HSM stay, memory has another, all sign"

# ---- the entry names the other store: the next certificate is at once of that one ----
sed -i 's/key: memory/key: tpm/' "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > /dev/null
now_in() { job_is in-memory valid && [ "$(ctl --json cert show in-memory | jq -r .keyStore)" = "$1" ]; }
wait_for 60 now_in tpm
wait_for 20 sign_count in-memory 1
ok "an entry that names another store: certificate and key follow"
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "token, ${#agents[@]} stores: all held"
