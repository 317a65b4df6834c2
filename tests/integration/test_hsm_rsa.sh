#!/usr/bin/env bash
# Agents whose key in the HSM is RSA, with real processes and SoftHSM2: what the issuer refuses, evidence and
# certificate, the token by stock clients (mechanisms, DigestInfo, PSS, TLS 1.2 and 1.3), rotation, and the
# way from one type to the other.
set -euo pipefail
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir, bin and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
command -v pkcs11-tool > /dev/null || job_skip "no pkcs11-tool (package opensc)"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
job_setup
began=$(date +%s%3N)
ok() { printf 'ok %6d ms: %s\n' $(($(date +%s%3N) - began)) "$*"; }
trap 'status=$?; set +e; job_stop tokend KILL; job_stop tls KILL; (exit $status); job_cleanup' EXIT
chmod 755 "$dir"

job_make_tpm
job_write_conf
# Two profiles: trading, as every test has it, and one that allows RSA keys.
sed -n '/^  - name: trading/,$p' "$dir/issuer.yaml" | sed 's/name: trading/name: rsa/' > "$dir/tmp/profile"
echo "    key_types: [ec-p256, rsa-2048, rsa-3072]" >> "$dir/tmp/profile"
cat "$dir/tmp/profile" >> "$dir/issuer.yaml"
job_start_all
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/whod.sock"
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
chmod -R a+rX "$dir/run"
chmod a+x "$dir/state" "$dir/state/host" "$dir/state/host/agents"
export P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock P11_KIT_STRICT=1
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null

declare -A uid_of=([elliptic]=1201 [rsa-two]=1202 [rsa-three]=1203) type_of=([elliptic]=ec-p256 [rsa-two]=rsa-2048 [rsa-three]=rsa-3072)
entry() { # NAME KEY TYPE PROFILE
    echo "  - { name: $1, owner: x@bank.example, hosts: [ \"ek:$(job_host_id)\" ],"
    echo "      workload: { uid: ${uid_of[$1]} }, key: $2, key_type: $3, profile: $4 }"
}
entries() { printf 'trust_domain: bank.example\nagents:\n' > "$dir/agents.yaml" && cat >> "$dir/agents.yaml"; }
apply() { ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1; }

# ---- who may not have one ----
entry rsa-two hsm rsa-2048 trading | entries
! apply || job_fail "a profile without key_types gave an RSA key"
grep -q 'does not allow rsa-2048 keys' "$dir/tmp/apply" || { cat "$dir/tmp/apply"; job_fail "refused for another reason"; }
entry rsa-two tpm rsa-2048 rsa | entries
! apply || job_fail "an RSA key in the TPM"
grep -q "agents.yaml:4.*RSA keys are made in an HSM only" "$dir/tmp/apply" || { cat "$dir/tmp/apply"; job_fail "no line"; }
entry rsa-two hsm rsa-1024 rsa | entries
! apply || job_fail "an RSA key of 1024 bits"
grep -q 'key_type.*rsa-1024' "$dir/tmp/apply" || { cat "$dir/tmp/apply"; job_fail "rsa-1024 refused for another reason"; }
ok "refused: a profile that does not allow RSA, RSA in the TPM, 1024 bits"

# ---- evidence, certificate ----
agents=(elliptic rsa-two rsa-three)
for name in "${agents[@]}"; do entry "$name" hsm "${type_of[$name]}" rsa; done | entries
apply || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
for name in "${agents[@]}"; do
    wait_for 90 job_serial "$name"
    job_check_chain "$name"
    [ "$(ctl --json agent show "$name" | jq -r .keyType)" = "${type_of[$name]}" ] || job_fail "$name: agent show says another type"
done
cert_key() { openssl x509 -in "$dir/state/host/agents/$1/chain.pem" -noout -pubkey; }
cert_is() { # NAME PATTERN: in one string, since grep -q would end a pipe early
    local text
    text=$(openssl x509 -in "$dir/state/host/agents/$1/chain.pem" -noout -text)
    grep -q "$2" <<< "$text"
}
cert_is rsa-two 'Public-Key: (2048 bit)' && cert_is rsa-three 'Public-Key: (3072 bit)' && cert_is elliptic 'P-256' ||
    job_fail "a certificate for a key of another type"
cert_is rsa-two 'Exponent: 65537' || job_fail "exponent"
for name in rsa-two elliptic; do
    "$bin/attestctl" verify "$dir/state/host/evidence/$name" --nonce "$(cat "$dir/state/host/evidence/$name/nonce")" \
        --ak-roots "$dir/issuer/ca/ak-roots.pem" --ek-roots "$dir/ek-roots/swtpm.pem" > "$dir/tmp/verify" 2>&1 ||
        { cat "$dir/tmp/verify"; job_fail "attestctl verify of $name"; }
    grep -q "keyType.*${type_of[$name]}" "$dir/tmp/verify" || { cat "$dir/tmp/verify"; job_fail "verify says nothing of the type"; }
done
ok "certificates for keys of P-256, RSA-2048 and RSA-3072; attestctl verify takes the evidence"

# ---- the token ----
as() { # NAME COMMAND...: as that agent's user
    local uid=${uid_of[$1]}
    shift
    timeout 120 setpriv --reuid="$uid" --regid="$uid" --clear-groups env HOME=/nonexistent "$@" < /dev/null
}
p11() { # NAME ARGUMENTS...
    local name=$1
    shift
    as "$name" pkcs11-tool --module "$module" "$@" 2> "$dir/tmp/err"
}
mechanisms() { p11 "$1" -M | sed -n 's/^  \([A-Z0-9-]*\),.*/\1/p' | sort | paste -sd' '; }
[ "$(mechanisms elliptic)" = ECDSA ] || job_fail "elliptic has $(mechanisms elliptic)"
rsa_mechanisms="RSA-PKCS RSA-PKCS-PSS SHA256-RSA-PKCS SHA384-RSA-PKCS SHA512-RSA-PKCS"
mechanisms rsa-two > "$dir/tmp/mechanisms"
if grep -q 'SHA256-RSA-PKCS-PSS' "$dir/tmp/mechanisms"; then # on p11-kit's wire since 0.25
    rsa_mechanisms="RSA-PKCS RSA-PKCS-PSS SHA256-RSA-PKCS SHA256-RSA-PKCS-PSS SHA384-RSA-PKCS SHA384-RSA-PKCS-PSS SHA512-RSA-PKCS SHA512-RSA-PKCS-PSS"
fi
[ "$(mechanisms rsa-two)" = "$rsa_mechanisms" ] ||
    job_fail "rsa-two has $(mechanisms rsa-two)"
ok "each token has its key's mechanisms, and no others"

printf 'a text of some length' > "$dir/tmp/text"
openssl dgst -sha256 -binary "$dir/tmp/text" > "$dir/tmp/digest"
{ printf '\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20'; cat "$dir/tmp/digest"; } > "$dir/tmp/info"
head -c 51 /dev/urandom > "$dir/tmp/raw"
{ printf '\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14'; head -c 20 /dev/zero; } > "$dir/tmp/sha1"
chmod 644 "$dir/tmp"/{text,digest,info,raw,sha1}
signs() { # NAME MECHANISM INPUT [OPTIONS]
    local name=$1 mechanism=$2 input=$3
    shift 3
    p11 "$name" -s -m "$mechanism" --label agent -i "$dir/tmp/$input" "$@" > "$dir/tmp/sig"
}
for name in rsa-two rsa-three; do
    cert_key "$name" > "$dir/tmp/pub.pem"
    signs "$name" RSA-PKCS info || { cat "$dir/tmp/err"; job_fail "$name: RSA-PKCS"; }
    openssl dgst -sha256 -verify "$dir/tmp/pub.pem" -signature "$dir/tmp/sig" "$dir/tmp/text" > /dev/null || job_fail "$name: RSA-PKCS does not verify"
    signs "$name" SHA256-RSA-PKCS text || { cat "$dir/tmp/err"; job_fail "$name: SHA256-RSA-PKCS"; }
    openssl dgst -sha256 -verify "$dir/tmp/pub.pem" -signature "$dir/tmp/sig" "$dir/tmp/text" > /dev/null || job_fail "$name: SHA256-RSA-PKCS does not verify"
    signs "$name" RSA-PKCS-PSS digest --hash-algorithm SHA256 --mgf MGF1-SHA256 --salt-len 32 || { cat "$dir/tmp/err"; job_fail "$name: PSS"; }
    openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -verify "$dir/tmp/pub.pem" -signature "$dir/tmp/sig" \
        "$dir/tmp/text" > /dev/null || job_fail "$name: PSS does not verify"
done
ok "CKM_RSA_PKCS of a DigestInfo, CKM_SHA256_RSA_PKCS, CKM_RSA_PKCS_PSS: openssl verifies"

refused() { # WHAT WORD NAME MECHANISM INPUT...
    local what=$1 word=$2
    shift 2
    ! signs "$@" || job_fail "$what: signed"
    grep -q "$word" "$dir/tmp/err" || { cat "$dir/tmp/err"; job_fail "$what: refused for another reason than $word"; }
}
# (pkcs11-tool shows no answer of C_Sign, but that of C_SignUpdate, which it tries next)
refused "bytes that are no DigestInfo" CKR_FUNCTION_NOT_SUPPORTED rsa-two RSA-PKCS raw
refused "a DigestInfo with SHA-1" CKR_FUNCTION_NOT_SUPPORTED rsa-two RSA-PKCS sha1
refused "PSS with a salt of another length" CKR_MECHANISM_PARAM_INVALID rsa-two RSA-PKCS-PSS digest --hash-algorithm SHA256 --mgf MGF1-SHA256 --salt-len 0
refused "ECDSA by an RSA key" CKR_MECHANISM_INVALID rsa-two ECDSA digest
refused "RSA by a key on P-256" CKR_MECHANISM_INVALID elliptic RSA-PKCS info
ok "refused: raw bytes, SHA-1, other salts, the other type's mechanisms"

# ---- TLS with the agent's key: client and server ----
engine=$(find /usr/lib -path '*/engines-3/pkcs11.so' -print -quit 2> /dev/null || true)
if [ -n "$engine" ]; then
    cat > "$dir/engine.cnf" << END
openssl_conf = init
[init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
dynamic_path = $engine
MODULE_PATH = $module
END
    cp -L "$dir/state/host/agents/rsa-two/chain.pem" "$dir/tmp/chain.pem"
    chmod 644 "$dir/engine.cnf" "$dir/tmp/chain.pem"
    chmod 755 "$dir/tmp"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/srv.key" -out "$dir/tmp/srv.pem" \
        -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2> /dev/null
    chmod a+r "$dir/tmp/srv.pem" "$dir/tmp/srv.key"
    key='pkcs11:token=attestd;object=agent;type=private'
    get='GET / HTTP/1.0\r\n\r\n'
    job_port
    for version in tls1_2 tls1_3; do
        job_start tls openssl s_server -accept "127.0.0.1:$port" -cert "$dir/tmp/srv.pem" -key "$dir/tmp/srv.key" "-$version" \
            -CAfile "$dir/issuer/ca/bundle.pem" -Verify 4 -verify_return_error -www
        wait_for 15 bash -c "exec 9<>/dev/tcp/127.0.0.1/$port"
        as rsa-two env OPENSSL_CONF="$dir/engine.cnf" bash -c "printf '$get' | openssl s_client -connect 127.0.0.1:$port -$version \
            -engine pkcs11 -keyform engine -key '$key' -cert '$dir/tmp/chain.pem' -cert_chain '$dir/tmp/chain.pem' -CAfile '$dir/tmp/srv.pem' -verify_return_error -ign_eof" \
            > "$dir/tmp/out" 2>&1 || { cat "$dir/tmp/out"; job_fail "s_client, $version"; }
        grep -aq 'HTTP/1.0 200' "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "s_client, $version: no answer"; }
        if command -v curl > /dev/null && curl --version | grep -q OpenSSL; then
            only=(--tlsv1.3)
            [ $version = tls1_3 ] || only=(--tls-max 1.2)
            as rsa-two env OPENSSL_CONF="$dir/engine.cnf" curl -sS --fail --max-time 60 "${only[@]}" --cacert "$dir/tmp/srv.pem" \
                --resolve "localhost:$port:127.0.0.1" --engine pkcs11 --key-type ENG --key "$key" --cert "$dir/tmp/chain.pem" \
                "https://localhost:$port/" > "$dir/tmp/out" 2>&1 || { cat "$dir/tmp/out"; job_fail "curl, $version"; }
        fi
        job_stop tls
        # the agent is the server
        job_start tls setpriv --reuid="${uid_of[rsa-two]}" --regid="${uid_of[rsa-two]}" --clear-groups \
            env HOME=/nonexistent OPENSSL_CONF="$dir/engine.cnf" openssl s_server -accept "127.0.0.1:$port" \
            -engine pkcs11 -keyform engine -key "$key" -cert "$dir/tmp/chain.pem" -cert_chain "$dir/tmp/chain.pem" "-$version" -www
        wait_for 30 bash -c "exec 9<>/dev/tcp/127.0.0.1/$port"
        timeout 60 bash -c "printf '$get' | openssl s_client -connect 127.0.0.1:$port -$version -CAfile '$dir/issuer/ca/bundle.pem' \
            -verify_return_error -ign_eof" > "$dir/tmp/out" 2>&1 || { cat "$dir/tmp/out"; job_fail "s_server, $version"; }
        grep -aqE 'Peer signature type: (RSA-PSS|rsa_pss_rsae_sha)' "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "s_server, $version: not PSS"; }
        job_stop tls
        ok "TLS with an RSA key as client and server: $version"
    done
else
    echo "not tried: TLS by OpenSSL's engine (package libengine-pkcs11-openssl)"
fi

# ---- its life ----
before=$(cert_key rsa-two)
ctl agent rotate rsa-two > /dev/null
[ "$before" != "$(cert_key rsa-two)" ] || job_fail "rotation kept the key"
cert_is rsa-two 'Public-Key: (2048 bit)' || job_fail "rotation: another type"
signs rsa-two RSA-PKCS info || { cat "$dir/tmp/err"; job_fail "after the rotation"; }
job_stop keyd KILL
job_start_keyd
signs_again() { signs rsa-two RSA-PKCS info; }
wait_for 60 signs_again
cert_key rsa-two > "$dir/tmp/pub.pem"
openssl dgst -sha256 -verify "$dir/tmp/pub.pem" -signature "$dir/tmp/sig" "$dir/tmp/text" > /dev/null || job_fail "another key after keyd was killed"
ok "rotation; keyd killed: the same RSA key signs"

{
    entry elliptic hsm rsa-2048 rsa
    entry rsa-two hsm ec-p256 rsa
    entry rsa-three hsm rsa-3072 rsa
} | entries
apply || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
now_of() { [ "$(mechanisms "$1")" = "$2" ]; }
wait_for 90 cert_is elliptic 'Public-Key: (2048 bit)'
wait_for 90 cert_is rsa-two 'P-256'
wait_for 30 now_of elliptic "$rsa_mechanisms"
wait_for 30 now_of rsa-two ECDSA
ok "an entry that names the other type: certificate, key and mechanisms follow"

# ---- the profile allows it no more: no renewal, and the record says why ----
sed -i 's/key_types: .*/key_types: [ec-p256]/' "$dir/issuer.yaml"
kill -HUP "$(job_pid issuerd)"
rotation_refused() { ! ctl agent rotate rsa-three && ctl --json agent show rsa-three | jq -e '.lastError.reason == "keyType"'; }
wait_for 60 rotation_refused
ok "a profile that allows RSA no more: refused, keyType"
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "RSA keys in an HSM: all held"
