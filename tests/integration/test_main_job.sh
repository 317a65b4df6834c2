#!/usr/bin/env bash
# The main job with real processes: a swtpm with EK certificates, attest-issuerd, attestd-keyd,
# attestd. Enrolment, two agents, certificates, forced rotation, what stock tools say of the results,
# restarts of each process, freeze, removal, a second attestd. For keys of each store: JOB_KEY.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
ok() { echo "ok: $*"; }

job_make_tpm
job_write_conf

# ---- --check and wrong use ----
"$bin/attestd" --config "$dir/attestd.yaml" --check > /dev/null
printf 'no_such_key: 1\n' > "$dir/bad.yaml"
code=0
"$bin/attestd" --config "$dir/bad.yaml" --check 2> "$dir/tmp/out" || code=$?
[ "$code" = 1 ] && grep -q 'bad.yaml:1: no_such_key' "$dir/tmp/out" || job_fail "--check: $code, $(cat "$dir/tmp/out")"
code=0
"$bin/attestd" --no-such-option > /dev/null 2>&1 || code=$?
[ "$code" = 2 ] || job_fail "usage: exit $code"
ok "--check and usage"

# ---- enrol, pending, approval, certificates ----
job_start_all
wait_for 60 job_host_known
pending() { [ "$(ctl --json status | jq -r .enrolment.state)" = pending ]; }
wait_for 30 pending
agents=(portfolio-rebalancer market-data)
job_enrolled_with "${agents[@]}"
[ "$(ctl --json status | jq -r .enrolment.state)" = enrolled ] || job_fail "not enrolled"
[ "$(ctl --json status | jq -r .enrolment.ekId)" = "$(job_host_id)" ] || job_fail "EK id"
ok "enrolled, both agents have certificates"

check_all() {
    local name
    for name in "${agents[@]}"; do
        job_check_chain "$name"
    done
}
check_all
ok "openssl verify, one SPIFFE URI each"

# ---- the stored evidence, by tpm2-tools ----
check_quotes() {
    local name e
    for name in "${agents[@]}"; do
        e=$dir/state/host/evidence/$name
        TPM2TOOLS_TCTI=none tpm2_checkquote -u "$e/ak.pem" -m "$e/quote" -s "$e/quote.sig" -f "$e/pcrs" -g sha256 \
            -q "$(cat "$e/nonce")" > "$dir/tmp/quote" 2>&1 || { cat "$dir/tmp/quote"; job_fail "tpm2_checkquote $name" || return 1; }
        if TPM2TOOLS_TCTI=none tpm2_checkquote -u "$e/ak.pem" -m "$e/quote" -s "$e/quote.sig" -f "$e/pcrs" -g sha256 \
            -q "$(printf '%064d' 0)" > /dev/null 2>&1; then
            job_fail "tpm2_checkquote accepted another nonce for $name" || return 1
        fi
        cmp "$e/eventlog" "$dir/firmware.log" || job_fail "event log of $name" || return 1
        [ ! -e "$e/ima" ] && [ ! -e "$e/systemd" ] || job_fail "a log that this host does not have" || return 1
        [ "$(cat "$e/evidence.cbor" | sha256sum)" != "$(printf '' | sha256sum)" ] || job_fail "empty evidence" || return 1
        # TPM2_Certify is about the certificate's key (the SPKI is in the certified public area), or the evidence is.
        local x
        x=$(openssl x509 -in "$dir/state/host/agents/$name/chain.pem" -noout -pubkey |
            openssl ec -pubin -outform DER 2> /dev/null | tail -c 64 | xxd -p -c 64)
        if [ "$JOB_KEY" = tpm ]; then
            xxd -p -c 4096 "$e/pubarea" | grep -q "${x:0:64}" || job_fail "pubarea of $name is another key's" || return 1
            [ ! -e "$e/spki" ] || job_fail "$name: the key is in the TPM, and evidence has a file spki" || return 1
        else
            cmp "$e/spki" <(openssl x509 -in "$dir/state/host/agents/$name/chain.pem" -noout -pubkey | openssl ec -pubin -outform DER 2> /dev/null) ||
                job_fail "spki of $name is another key's" || return 1
            [ ! -e "$e/certinfo" ] && [ ! -e "$e/pubarea" ] && [ ! -e "$e/srk.pub" ] || job_fail "$name: a TPM's statement of a key in no TPM" || return 1
            xxd -p -c 100000 "$e/evidence.cbor" | grep -q "$(sha256sum < "$e/spki" | cut -d' ' -f1)" ||
                job_fail "evidence of $name has not the digest of spki" || return 1
        fi
    done
}
wait_for 10 check_quotes
ok "tpm2_checkquote accepts the evidence and refuses another nonce"

# ---- the key cannot leave ----
uri=$(cat "$dir/state/host/agents/market-data/key.uri")
case $uri in
pkcs11:token=attestd\;object=agent\;type=private\;id=%*) ;;
*) job_fail "key.uri: $uri" ;;
esac
if grep -rlE 'BEGIN (EC |RSA )?PRIVATE KEY' "$dir/state" "$dir/run"; then
    job_fail "a private key in the clear"
fi
for blob in "$dir"/state/keyd/keys/*.pem "$dir"/state/keyd/*.pem; do
    [ -e "$blob" ] || continue
    if openssl pkey -in "$blob" -noout 2> /dev/null; then
        job_fail "openssl reads $blob"
    fi
done
# Only keyd has TPM code in its address space at all.
if grep -q libtss2 "/proc/$(job_pid attestd)/maps"; then
    job_fail "attestd has TPM libraries loaded"
fi
grep -q libtss2 "/proc/$(job_pid keyd)/maps" || job_fail "keyd has no TPM libraries: is this test looking at the right file?"
ok "no key in the clear on disk; attestd has no TPM code"

# ---- forced rotation ----
rotate() {
    local before after
    before=$(job_serial "$1")
    ctl agent rotate "$1" > /dev/null
    after=$(job_serial "$1")
    [ "$before" != "$after" ] || job_fail "rotation of $1 gave the same serial"
    job_check_chain "$1"
}
keys_of() { ctl --json status | jq -r '.tpm.keys'; }
next_key() { ctl --json agent show "$1" | jq -er '.nextKeyId | select(. != null)'; }
wait_for 10 next_key market-data
next_before=$(next_key market-data)
pub_before=$(openssl x509 -in "$dir/state/host/agents/market-data/chain.pem" -noout -pubkey)
inode_of() { stat -c %i "$dir/state/host/evidence/market-data/$1"; }
log_before=$(inode_of eventlog) quote_before=$(sha256sum < "$dir/state/host/evidence/market-data/quote")
rotate market-data
# What is the same is not written anew; what is new does not change an old file in its place.
new_quote() { [ "$(sha256sum < "$dir/state/host/evidence/market-data/quote")" != "$quote_before" ]; }
wait_for 10 new_quote
[ "$(inode_of eventlog)" = "$log_before" ] || job_fail "the same log was written anew"
[ "$pub_before" != "$(openssl x509 -in "$dir/state/host/agents/market-data/chain.pem" -noout -pubkey)" ] ||
    job_fail "rotation kept the key"
[ "$(ctl --json agent show market-data | jq -r .keyId)" = "$next_before" ] || job_fail "the key that was made ahead was not used"
[ "$JOB_KEY" != memory ] || [ -z "$(ls "$dir/state/keyd/agents")" ] || job_fail "keys in memory, and files of them"
five_keys() { [ "$(keys_of)" = 5 ]; } # of each agent the one in force and the next, and the old one
wait_for 30 five_keys
[ "$(ctl --json agent show market-data | jq '.retired | length')" = 1 ] || job_fail "the old key is not retired"
wait_for 10 check_quotes
ok "forced rotation: new serial, new key, the old one retired"

# ---- a quote for an operator ----
ctl quote --nonce 00112233445566778899aabbccddeeff --pcrs sha256:0,7 --out "$dir/quote" > "$dir/tmp/out"
q=$dir/quote
TPM2TOOLS_TCTI=none tpm2_checkquote -u "$q/ak.pem" -m "$q/quote" -s "$q/quote.sig" -f "$q/pcrs" -g sha256 -q "$(cat "$q/nonce")" > /dev/null
ctl verify "$q" --nonce 00112233445566778899aabbccddeeff --ak-roots "$dir/issuer/ca/ak-roots.pem" \
    --ek-roots "$dir/tpm/ek-roots.pem" > "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "verify of the quote"; }
if ctl quote --nonce 00 --out "$dir/quote2" > /dev/null 2>&1; then job_fail "a nonce of one byte"; fi
if ctl quote --nonce 0011223344556677 --pcrs sha1:0 --out "$dir/quote2" > /dev/null 2>&1; then job_fail "a SHA-1 bank"; fi
ok "quote on request"
for name in "${agents[@]}"; do
    e=$dir/state/host/evidence/$name
    ctl verify "$e" --nonce "$(cat "$e/nonce")" --ak-roots "$dir/issuer/ca/ak-roots.pem" --ek-roots "$dir/tpm/ek-roots.pem" \
        --policy "$job_vectors/policy.json" > "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "attestctl verify $name"; }
done
# The certificate says of the key what the evidence proves: the same with another kind, another agent, another key.
e=$dir/state/host/evidence/market-data
verify_cert() { # CERTIFICATE: its exit code; the verdict in $dir/tmp/out
    local code=0
    ctl --json verify "$e" --nonce "$(cat "$e/nonce")" --ak-roots "$dir/issuer/ca/ak-roots.pem" \
        --ek-roots "$dir/tpm/ek-roots.pem" --cert "$1" > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
    return $code
}
verify_cert "$dir/state/host/agents/market-data/chain.pem" || job_fail "the agent's own certificate: $(cat "$dir/tmp/out")"
openssl x509 -in "$dir/state/host/agents/market-data/chain.pem" -noout -pubkey > "$dir/tmp/key.pub"
openssl ecparam -genkey -name prime256v1 -noout -out "$dir/tmp/other.key"
openssl req -new -key "$dir/tmp/other.key" -subj /CN=x -out "$dir/tmp/other.csr"
other_cert() { # REASON KIND AGENT [KEY]
    cat > "$dir/tmp/ext.cnf" << END
subjectAltName = URI:spiffe://bank.example/agent/$3
1.3.6.1.4.1.32473.4711.1 = ASN1:SEQUENCE:holding
[holding]
version = INTEGER:1
store = UTF8:$2
boot = UTF8:none
decision = FORMAT:HEX,OCTETSTRING:$(printf '%064d' 0)
END
    openssl x509 -req -in "$dir/tmp/other.csr" -force_pubkey "${4:-$dir/tmp/key.pub}" -signkey "$dir/tmp/other.key" -days 1 \
        -extfile "$dir/tmp/ext.cnf" -out "$dir/tmp/other.pem" 2> "$dir/tmp/err" || job_fail "openssl: $(cat "$dir/tmp/err")"
    if [ "$1" = - ]; then
        verify_cert "$dir/tmp/other.pem" || job_fail "a certificate of the same: $(cat "$dir/tmp/out" "$dir/tmp/err")"
        return
    fi
    if verify_cert "$dir/tmp/other.pem"; then job_fail "a certificate that differs in $1"; fi
    [ "$(jq -r .reason "$dir/tmp/out")" = "$1" ] || job_fail "$1: $(cat "$dir/tmp/out" "$dir/tmp/err")"
}
openssl ec -in "$dir/tmp/other.key" -pubout -out "$dir/tmp/other.pub" 2> /dev/null
other_cert - "$JOB_KEY" market-data
other_cert keyStore "$([ "$JOB_KEY" = tpm ] && echo memory || echo tpm)" market-data
other_cert evidenceMismatch "$JOB_KEY" somebody-else
other_cert csrKey "$JOB_KEY" market-data "$dir/tmp/other.pub"
if [ "$JOB_KEY" = memory ]; then
    # Files of a TPM's key beside it, another key, none: each is refused, by its reason.
    e=$dir/state/host/evidence/market-data
    refused_dir() { # REASON WHAT: of $dir/tmp/e
        local code=0
        ctl --json verify "$dir/tmp/e" --nonce "$(cat "$e/nonce")" --ak-roots "$dir/issuer/ca/ak-roots.pem" \
            --ek-roots "$dir/tpm/ek-roots.pem" --policy "$job_vectors/policy.json" > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
        [ "$code" = 1 ] && [ "$(jq -r .reason "$dir/tmp/out")" = "$1" ] || job_fail "$2: $code $(head -c 300 "$dir/tmp/out" "$dir/tmp/err")"
        rm -rf "$dir/tmp/e"
    }
    cp -rL "$e" "$dir/tmp/e" && cp "$e/quote" "$dir/tmp/e/certinfo" && refused_dir quoteNonce "a certinfo in the folder"
    cp -rL "$e" "$dir/tmp/e" && cp "$e/ak.pub" "$dir/tmp/e/pubarea" && refused_dir malformed "a pubarea in the folder"
    cp -rL "$e" "$dir/tmp/e" && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2> /dev/null |
        openssl ec -pubout -outform DER -out "$dir/tmp/e/spki" 2> /dev/null && refused_dir evidenceMismatch "another key"
    cp -rL "$e" "$dir/tmp/e" && rm "$dir/tmp/e/spki"
    if ctl verify "$dir/tmp/e" --nonce "$(cat "$e/nonce")" --ak-roots "$dir/issuer/ca/ak-roots.pem" --ek-roots "$dir/tpm/ek-roots.pem" \
        > "$dir/tmp/out" 2>&1 || ! grep -q certinfo "$dir/tmp/out"; then
        job_fail "evidence of no key at all: $(cat "$dir/tmp/out")"
    fi
    rm -rf "$dir/tmp/e"
fi
ok "attestctl verify agrees"

# ---- freeze and thaw ----
ctl agent freeze market-data > /dev/null
[ "$(job_state_of market-data)" = frozen ] || job_fail "not frozen"
code=0
ctl agent rotate market-data > "$dir/tmp/out" 2>&1 || code=$?
[ "$code" = 1 ] && grep -q frozen "$dir/tmp/out" || job_fail "a frozen agent was rotated: $(cat "$dir/tmp/out")"
ctl agent freeze market-data > /dev/null # twice is no error
ctl agent thaw market-data > /dev/null
[ "$(job_state_of market-data)" = valid ] || job_fail "not thawed"
rotate market-data
ok "freeze and thaw"

# ---- unknown names and operations ----
code=0
ctl agent show nobody > "$dir/tmp/out" 2>&1 || code=$?
[ "$code" = 1 ] && grep -q 'no agent "nobody"' "$dir/tmp/out" || job_fail "agent show nobody: $code"
ctl cert show market-data --pem | cmp - "$dir/state/host/agents/market-data/chain.pem" || job_fail "cert show --pem"
[ "$(ctl --json cert show market-data | jq -r '.keyStore, .boot' | tr '\n' ' ')" = "$JOB_KEY ovmf-guest " ] ||
    job_fail "cert show: $(ctl --json cert show market-data | jq -c 'del(.pem)')"
ok "cert show"

# ---- a second attestd on the same state ----
code=0
"$bin/attestd" --config "$dir/attestd.yaml" --run-dir "$dir/run2" > "$dir/tmp/out" 2>&1 || code=$?
[ "$code" = 1 ] && grep -q "another attestd (pid $(job_pid attestd))" "$dir/tmp/out" || job_fail "second attestd: $code, $(cat "$dir/tmp/out")"
ctl status > /dev/null
ok "a second attestd is refused by name"

# ---- restart of each process ----
job_stop attestd
wait "$(cat "$dir/attestd.pid" 2> /dev/null || echo 1)" 2> /dev/null || true
serial=$(openssl x509 -in "$dir/state/host/agents/market-data/chain.pem" -noout -serial)
job_start_attestd
wait_for 30 job_is market-data valid
[ "$serial" = "$(openssl x509 -in "$dir/state/host/agents/market-data/chain.pem" -noout -serial)" ] || job_fail "a restart issued anew"
rotate market-data
ok "attestd restarted: same certificates, then rotates"
grep -c '"\?event"\?[=:]"\?host.enrolled' "$dir/log/attestd.log" > "$dir/tmp/enrolments" || true
[ "$(cat "$dir/tmp/enrolments")" = 1 ] || job_fail "enrolled $(cat "$dir/tmp/enrolments") times, expected once"
ok "the AK record outlived the restart"

job_stop keyd
away_said() { ctl status | grep keydAway; }
wait_for 30 away_said || job_fail "status does not say that keyd is away"
log_count() { grep -cE "$1" "$dir/log/attestd.log" || true; }
failures=$(log_count 'agent.(failed|refused|turnFailed)')
serials=$(for name in "${agents[@]}"; do job_serial "$name"; done)
job_start_keyd
if [ "$JOB_KEY" = memory ]; then
    # The keys are gone: without a request, and without a failure, there are new ones.
    other_serials() {
        local name
        for name in "${agents[@]}"; do
            job_is "$name" valid && ! grep -qxF "$(job_serial "$name")" <<< "$serials" || return 1
        done
    }
    wait_for 60 other_serials
    [ "$(log_count agent.keyLost)" = ${#agents[@]} ] || job_fail "keyLost: $(log_count agent.keyLost)"
    [ "$(log_count 'agent.(failed|refused|turnFailed)')" = "$failures" ] || job_fail "a lost key was a failure"
    for name in "${agents[@]}"; do
        [ -e "$dir/state/host/withdrawn/$name.pem" ] || job_fail "the chain of $name was not withdrawn"
        [ "$(ctl --json agent show "$name" | jq -r '.lastError.code')" = null ] || job_fail "$name has a last error"
    done
    check_all
    ok "keyd restarted: the keys in its memory are gone, others are there at once"

    ctl agent freeze portfolio-rebalancer > /dev/null
    frozen_before=$(job_serial portfolio-rebalancer)
    serials=$(job_serial market-data)
    job_stop keyd
    job_start_keyd
    other_serial() { job_is market-data valid && [ "$(job_serial market-data)" != "$serials" ]; }
    wait_for 60 other_serial
    job_is portfolio-rebalancer frozen || job_fail "a frozen agent is $(ctl --json agent show portfolio-rebalancer | jq -c .state)"
    ctl agent thaw portfolio-rebalancer > /dev/null
    thawed() { job_is portfolio-rebalancer valid && [ "$(job_serial portfolio-rebalancer)" != "$frozen_before" ]; }
    wait_for 60 thawed
    check_all
    ok "thawed after its key was gone: another certificate"
fi
wait_for 60 ctl agent rotate market-data
job_check_chain market-data
if [ "$JOB_KEY" != memory ]; then
    name=portfolio-rebalancer
    grep -qxF "$(job_serial $name)" <<< "$serials" || job_fail "keys outlive keyd, and $name has another certificate"
    [ "$(log_count agent.keyLost)" = 0 ] || job_fail "keyLost"
fi
ok "keyd restarted: rotates"

if [ "$JOB_KEY" = hsm ]; then
    token_keys() {
        pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --login --pin 47110815 --list-objects --type privkey \
            2> /dev/null | grep -c 'Private Key Object' || true
    }
    as_many_keys() { [ "$(token_keys)" = "$(keys_of)" ]; }
    wait_for 30 as_many_keys
    ok "the token holds the keys that keyd knows, no more"

    job_stop hsmd KILL
    code=0
    ctl agent rotate market-data > "$dir/tmp/out" 2>&1 || code=$?
    [ "$code" = 1 ] || job_fail "a rotation without hsmd: $code"
    job_check_chain market-data
    job_start_hsmd
    wait_for 60 ctl agent rotate market-data
    job_check_chain market-data
    wait_for 30 as_many_keys
    ok "hsmd killed: the old certificate stayed, then rotates; no key is left over"

    token=$(find "$dir/tokens" -mindepth 1 -maxdepth 1)
    away() { [ "$(grep -c hsmd.token-away "$dir/log/hsmd.log")" -ge 1 ]; }
    mv "$token" "$dir/away"
    wait_for 30 away
    keyd_knows() { [ "$(ctl --json status | jq -r .hsm.state)" = tokenGone ]; }
    wait_for 30 keyd_knows
    code=0
    ctl agent rotate market-data > "$dir/tmp/out" 2>&1 || code=$?
    [ "$code" = 1 ] || job_fail "a rotation without the token: $code"
    grep -q 'no token with label' "$dir/tmp/out" || job_fail "the reason: $(cat "$dir/tmp/out")"
    mv "$dir/away" "$token"
    wait_for 60 ctl agent rotate market-data
    job_check_chain market-data
    wait_for 30 as_many_keys
    ok "token away and back: refused with the reason, then rotates; no key is left over"

    # What is stored of the evidence is judged again, and is refused when the module's words are changed.
    judge() {
        ctl verify "$1" --nonce "$(cat "$1/nonce")" --ak-roots "$dir/issuer/ca/ak-roots.pem" --ek-roots "$dir/tpm/ek-roots.pem" \
            --policy "$job_vectors/policy.json"
    }
    evidence=$dir/state/host/evidence/market-data
    wait_for 10 check_quotes
    judge "$evidence" > "$dir/tmp/out" || job_fail "attestctl verify: $(cat "$dir/tmp/out")"
    [ "$(grep -cE '^pass +(certifySignature|keyAttributes) ' "$dir/tmp/out")" = 2 ] || job_fail "checks: $(cat "$dir/tmp/out")"
    cp -r "$evidence" "$dir/changed"
    python3 - "$dir/changed/attributes.cbor" << 'END'
import sys
data = open(sys.argv[1], "rb").read()
assert data.count(b"modifiable\xf4") == 1
open(sys.argv[1], "wb").write(data.replace(b"modifiable\xf4", b"modifiable\xf5"))
END
    code=0
    judge "$dir/changed" > "$dir/tmp/out" 2>&1 || code=$?
    [ "$code" = 1 ] && grep -q quoteNonce "$dir/tmp/out" || job_fail "changed attributes: $code, $(cat "$dir/tmp/out")"
    ok "attestctl verify: signature and attributes pass; changed attributes are not what was quoted"
fi

job_stop issuerd
code=0
ctl agent rotate market-data > "$dir/tmp/out" 2>&1 || code=$?
[ "$code" = 1 ] || job_fail "a rotation without an issuer: $code"
job_check_chain market-data
[ "$(ctl --json agent show market-data | jq -r .lastError.code)" != null ] || job_fail "no last error"
job_start_issuer
wait_for 60 ctl agent rotate market-data
job_check_chain market-data
ok "issuer restarted: the old certificate stayed, then rotates"

# ---- the TPM is reset (a reboot): the AK is enrolled again, keys are loaded again ----
job_stop keyd
swtpm_stop "$dir/tpm"
swtpm_start "$dir/tpm" > /dev/null
job_boot_tpm
job_start_keyd
wait_for 90 ctl agent rotate market-data
job_check_chain market-data
[ "$(grep -c 'host.enrolled' "$dir/log/attestd.log")" -ge 2 ] || job_fail "no second enrolment after a reset"
ok "reset of the TPM: enrolled again"

# ---- an agent is removed ----
ctl entry delete portfolio-rebalancer > /dev/null
gone() {
    [ ! -e "$dir/state/host/agents/portfolio-rebalancer" ] && [ ! -e "$dir/state/host/evidence/portfolio-rebalancer" ] &&
        ctl --json status | jq -e '(.agents | length) == 1 and .tpm.keys == ([.agents[] | 2 + (.retired | length)] | add)'
}
wait_for 60 gone
[ "$(ctl --json agent list | jq -r '.agents[].name')" = market-data ] || job_fail "agent list"
job_check_chain market-data
ok "an agent that is no longer assigned: certificate and key are gone"

# ---- graceful end ----
job_stop attestd
grep -q 'event"\?[=:]"\?stopping' "$dir/log/attestd.log" || job_fail "no graceful end"
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
ok "graceful end"
echo "main job: all held"
