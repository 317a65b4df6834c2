#!/usr/bin/env bash
# Two SoftHSM tokens under two names on one host, and a profile that allows one of them: the evidence says which module
# has a key, the issuer refuses the other one by name, and record and certificate say which it was.
set -euo pipefail
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir, bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
job_make_tpm
job_write_conf
job_hsm_serial=
job_make_token vault
cat >> "$dir/attestd.yaml" << END
hsms:
  - name: vault
    module: /usr/lib/softhsm/libsofthsm2.so
    token: "pkcs11:token=vault;serial=$job_hsm_serial?pin-source=file:$dir/hsm.pin"
    files: [ $SOFTHSM2_CONF, $dir/tokens ]
END
cp "$dir/issuer.yaml" "$dir/any.yaml"
allow() { # MODULE: the issuer's profile names it from now on
    sed "s/^    keys: \[tpm, hsm\]/&\n    hsms: [$1]/" "$dir/any.yaml" > "$dir/issuer.yaml"
    grep -x "    hsms: \[$1\]" "$dir/issuer.yaml" > /dev/null || job_fail "the profile does not say hsms"
    job_stop issuerd
    job_start_issuer
}
job_start_hsmd vault
job_start_all
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
entries() { # NAME KEY...: agents, each with what its key is
    {
        printf 'trust_domain: bank.example\nagents:\n'
        while [ $# -gt 0 ]; do
            echo "  - { name: $1, owner: x@bank.example, hosts: [ \"ek:$(job_host_id)\" ], workload: { uid: 1001 }, key: $2, profile: trading }"
            shift 2
        done
    } > "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/applied"
}

# ---- a profile that names none: any module, and it is said which -------------------------------------------------
entries plain hsm vaulted "hsm, hsm: vault"
wait_for 60 job_settled plain
wait_for 60 job_settled vaulted
shows() { # NAME MODULE: certificate and record
    ctl --json cert show "$1" > "$dir/tmp/cert"
    jq -e --arg m "$2" '.hsm == $m and .keyStore == "hsm"' "$dir/tmp/cert" > /dev/null || { cat "$dir/tmp/cert"; job_fail "$1: the certificate does not say $2"; }
    ctl --json audit list > "$dir/tmp/audit"
    jq -e --arg n "/$1" --arg m "$2" '[.records[] | (.record // .) | select(.outcome == "granted" and ((.subject // "") | endswith($n)))] | length > 0 and all(.hsm == $m)' "$dir/tmp/audit" > /dev/null ||
        job_fail "$1: the record does not say $2"
}
shows plain default
shows vaulted vault
ok "two modules, no profile that names one: certificates and records say which"

# ---- a profile that allows one: the other's agent is refused, by name ----------------------------------------------
allow vault
before=$(fault_serial_on_disk plain)
refused() { ctl --json agent show plain | jq -e '.lastError.reason == "keyHsm"' > /dev/null; }
ctl agent rotate plain > "$dir/tmp/rotate" 2>&1 && job_fail "a key in another module than the profile's was certified"
wait_for 30 refused
ctl --json agent show plain > "$dir/tmp/plain"
jq -e '.lastError.message | test("HSM module \"default\"")' "$dir/tmp/plain" > /dev/null || { cat "$dir/tmp/plain"; job_fail "the refusal does not name the module"; }
[ "$before" = "$(fault_serial_on_disk plain)" ] || job_fail "plain has another certificate"
before=$(fault_serial_on_disk vaulted)
ctl agent rotate vaulted > /dev/null
[ "$before" != "$(fault_serial_on_disk vaulted)" ] || job_fail "vaulted keeps its certificate"
shows vaulted vault
ok "hsms: [vault]: a key in the module default is refused (keyHsm), one in vault is not"

# ---- an entry that names a module its profile does not allow ---------------------------------------------------------
sed -i '/name: plain,/s/key: hsm,/key: hsm, hsm: default,/' "$dir/agents.yaml"
fault_refused 'does not allow keys in the HSM module default' "$bin/attestctl" --issuer "$dir/issuer-run/admin.sock" entry apply -f "$dir/agents.yaml"
ok "an entry that names a module its profile does not allow is not taken"

# ---- the entry names the module that is allowed: the next key is there -----------------------------------------------
entries plain "hsm, hsm: vault" vaulted "hsm, hsm: vault"
moved() { job_settled plain && ctl --json cert show plain | jq -e '.hsm == "vault"' > /dev/null; }
wait_for 60 moved
shows vaulted vault
ok "an entry that names the allowed module: a certificate for a key there"
# ---- attestctl verify: the certificate says what the evidence says ---------------------------------------------------
verify() { # CERTIFICATE
    "$bin/attestctl" verify "$dir/state/host/evidence/vaulted" --nonce "$(cat "$dir/state/host/evidence/vaulted/nonce")" \
        --ak-roots "$dir/issuer/ca/ak-roots.pem" --ek-roots "$dir/ek-roots/swtpm.pem" --cert "$1" > "$dir/tmp/verify" 2>&1
}
chain=$dir/state/host/agents/vaulted/chain.pem
verify "$chain" || { cat "$dir/tmp/verify"; job_fail "attestctl verify"; }
told="by the module's word: manufacturer \"SoftHSM project\", model \"SoftHSM v2\", serial number \"$job_hsm_serial\""
grep -qF "$told" "$dir/tmp/verify" || { cat "$dir/tmp/verify"; job_fail "attestctl verify does not say: $told"; }
ctl --json audit list --limit 500 > "$dir/tmp/audit"
jq -e --arg s "$job_hsm_serial" '[.records[] | (.record // .) | select(.outcome == "granted" and .hsm == "vault")] | length > 0 and
    all(.hsmToken == {manufacturer: "SoftHSM project", model: "SoftHSM v2", serial: $s})' "$dir/tmp/audit" > /dev/null ||
    { jq -c '.records[] | (.record // .) | .hsmToken' "$dir/tmp/audit"; job_fail "a record does not say which token"; }
[ "$(ctl --json status | jq -r '.hsm.modules[] | select(.name == "vault") | .token.serial')" = "$job_hsm_serial" ] || job_fail "status: another token"
ok "what the module says of its token stands in evidence, decision record and status"
# The extension's UTF8String "vault" becomes another name; the signature is not what --cert is about.
openssl x509 -in "$chain" -outform DER |
    /usr/bin/python3 -c 'import sys; d = sys.stdin.buffer.read(); assert d.count(b"\x0c\x05vault") == 1; sys.stdout.buffer.write(d.replace(b"\x0c\x05vault", b"\x0c\x05vauxt"))' |
    openssl x509 -inform DER -out "$dir/tmp/other.pem"
! verify "$dir/tmp/other.pem" || job_fail "a certificate that names another module was taken"
grep '^FAIL\|fail' "$dir/tmp/verify" > "$dir/tmp/failed" || { cat "$dir/tmp/verify"; job_fail "no check failed"; }
[ "$(wc -l < "$dir/tmp/failed")" = 1 ] && grep -q 'keyHsm.*HSM module "vauxt", the evidence says "vault"' "$dir/tmp/failed" ||
    { cat "$dir/tmp/verify"; job_fail "not keyHsm alone"; }
ok "attestctl verify: a certificate that names another module than the evidence: keyHsm alone"
fault_sanitizers
echo "allowed HSM modules: all held"
