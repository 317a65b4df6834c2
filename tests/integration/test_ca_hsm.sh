#!/usr/bin/env bash
# The authorities' keys in an HSM behind attestd-hsmd --issuer: made there by `init`, never in a file; certificates that
# stock tools accept; an HSM that is taken out in the middle of a signature, that hangs, and a process that is gone: the
# client is told to retry, the same certificate comes once, no serial twice; --check says what is away.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/hsm.sh
. "$ATT_SOURCE_DIR/tests/support/hsm.sh"
# shellcheck source=../support/ca.sh
. "$ATT_SOURCE_DIR/tests/support/ca.sh"
job_setup
job_make_tpm
job_write_conf
hsm_bad_module
ca_token authorities

# ---- refusals first: init without the process that has the module, and without the section ----
! "$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/tmp/init" 2>&1 || job_fail "init without hsmd"
grep -q 'making a key in the HSM' "$dir/tmp/init" || { cat "$dir/tmp/init"; job_fail "not said what is missing"; }
[ ! -e "$dir/issuer/ca" ] || job_fail "a part of a CA was left"
sed '/^hsm:/,$d' "$dir/issuer.yaml" > "$dir/no-hsm.yaml"
! "$bin/attest-issuerd" --config "$dir/no-hsm.yaml" --check > "$dir/tmp/check" 2>&1 || job_fail "keys: hsm without hsm"
grep -q 'ca.keys.*needs a section hsm' "$dir/tmp/check" || { cat "$dir/tmp/check"; job_fail "ca.keys: not named"; }
ok() { echo "ok: $*"; }
ok "refused by name, nothing left"

ca_start_hsmd
job_start_all
for name in workload-root workload-ca attest-root attest-ca tls-root; do
    [ -e "$dir/issuer/ca/$name.hsm" ] || job_fail "$name.hsm is not there"
    [ ! -e "$dir/issuer/ca/$name.key" ] || job_fail "$name.key is there"
done
hsm_objects privkey authorities > "$dir/tmp/keys"
[ "$(wc -l < "$dir/tmp/keys")" = 5 ] || { cat "$dir/tmp/keys"; job_fail "expected 5 keys in the token"; }
"$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > "$dir/tmp/check" 2>&1 || { cat "$dir/tmp/check"; job_fail "--check"; }
[ "$(ctl --json ca status | jq -r .hsm.state)" = ready ] || job_fail "ca status: $(ctl --json ca status | jq -c .hsm)"
job_enrolled_with market-data
job_check_chain market-data
ok "five keys in the token, none in a file; a certificate that openssl and certtool accept"

# No PIN stands in anybody's arguments or environment.
for name in ca-hsmd issuerd; do
    tr '\0' '\n' < "/proc/$(job_pid $name)/cmdline" > "$dir/tmp/args"
    tr '\0' '\n' < "/proc/$(job_pid $name)/environ" >> "$dir/tmp/args"
    ! grep -F "$hsm_pin" "$dir/tmp/args" || job_fail "$name: the PIN is in its arguments or environment"
done

issued() { ctl --json cert list | jq -r '.certificates[] | select(.status == "issued") | .serial' | sort; }
pending() { ctl --json ca status | jq -r .pendingIntents; }
is_pending() { [ "$(pending)" = 1 ]; }
none_pending() { [ "$(pending)" = 0 ]; }
# A renewal that meets the HSM in this state ends with one certificate more when it is back.
renews_through() { # WHAT REASON
    wait_for 60 job_settled market-data
    local before
    before=$(job_serial market-data)
    (ctl agent rotate market-data > "$dir/tmp/rotate" 2>&1 || true) &
    local rotating=$!
    wait_for 30 is_pending || job_fail "$1: no intent stands open"
    wait_for 30 grep -E "intent.left.*$2" "$dir/log/issuerd.log" || job_fail "$1: the log does not say $2"
    hsm_tell
    if [ ! -e "$dir/ca-hsmd.pid" ] || ! job_alive ca-hsmd; then
        job_stop ca-hsmd KILL
        ca_start_hsmd
    fi
    wait_for 90 none_pending || job_fail "$1: the intent was not completed"
    wait $rotating
    renewed() { [ "$(job_serial market-data)" != "$before" ]; }
    wait_for 90 renewed || job_fail "$1: no certificate came"
    job_check_chain market-data
    [ "$(issued | uniq -d | wc -l)" = 0 ] || job_fail "$1: a serial number twice"
    ok "$1: told to retry, then the certificate"
}
hsm_tell "C_Sign after 0x32" # signed, and then CKR_DEVICE_REMOVED
renews_through "taken out in the middle of a signature" tokenGone
hsm_tell "C_Sign die"
renews_through "the module ends its process" 'hsmAway|hsmFailed|hsmd'
# It does not come back: the first signature waits 8 s, and then nobody waits for it for a while.
hsm_tell "C_Sign hang"
renews_through "the module hangs" 'hsmBusy.*did not answer within 8 s'
"$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > /dev/null 2>&1 || job_fail "--check with the HSM back"
job_stop ca-hsmd KILL
! "$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > "$dir/tmp/check" 2>&1 || job_fail "--check without the HSM"
grep -q "workload-ca's key.*hsmd" "$dir/tmp/check" || { cat "$dir/tmp/check"; job_fail "--check does not say what is away"; }
ok "--check names the key that is away"

# ---- it starts without the HSM, and serves what needs no signature; a list of before is served on ----
job_stop issuerd
job_start_issuer
grep 'ca.keyAway' "$dir/log/issuerd.log" > /dev/null || job_fail "the start does not say that the key is away"
[ "$(ctl --json ca status | jq -r .hsm.state)" = hsmdAway ] || job_fail "ca status does not say hsmdAway"
renews_through "no process with the module" 'hsmAway'

# ---- a key in two places; a key that is another's ----
job_stop issuerd
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/issuer/ca/workload-ca.key" 2> /dev/null
chmod 600 "$dir/issuer/ca/workload-ca.key"
! "$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > "$dir/tmp/check" 2>&1 || job_fail "a key in two places"
grep -q caKeyTwice "$dir/tmp/check" || { cat "$dir/tmp/check"; job_fail "caKeyTwice is not said"; }
rm "$dir/issuer/ca/workload-ca.key"
cp "$dir/issuer/ca/workload-ca.hsm" "$dir/tmp/workload-ca.hsm"
cp "$dir/issuer/ca/attest-ca.hsm" "$dir/issuer/ca/workload-ca.hsm"
! "$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > "$dir/tmp/check" 2>&1 || job_fail "another authority's key"
grep -q hsmSignature "$dir/tmp/check" || { cat "$dir/tmp/check"; job_fail "hsmSignature is not said"; }
cp "$dir/tmp/workload-ca.hsm" "$dir/issuer/ca/workload-ca.hsm"
job_start_issuer
ctl audit verify > /dev/null || job_fail "the audit chain"
ok "caKeyTwice, hsmSignature; the audit chain holds"
