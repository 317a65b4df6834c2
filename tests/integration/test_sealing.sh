#!/usr/bin/env bash
# The main job with sealing on, real processes: a host that was not sealed moves in at its next start and
# renews under the storage parent; a profile that demands the parent refuses the host before that; another
# boot signs nothing, with the issuer away; a new signed policy brings the same keys back; the old policy
# with the old boot is refused by the counter.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and job_pcrs come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
ok() { echo "ok: $*"; }

job_make_tpm
job_write_conf
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/policy-key.pem" 2> /dev/null
openssl pkey -in "$dir/policy-key.pem" -pubout -out "$dir/policy.pem"
mkdir "$dir/policies"

# ---- the tool ----
sign() { # FILE VERSION BOOT=FILE...
    local out=$1 version=$2
    shift 2
    "$bin/attestctl" policy seal-sign --key "$dir/policy-key.pem" --name fleet --version "$version" \
        --pcrs sha256:4,7,16 --out "$out" -- "$@" > /dev/null
}
now() { # PCR values of this TPM as JSON; nobody may have it open
    TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_pcrread sha256:4,7,16 -o "$dir/tmp/raw" > /dev/null
    xxd -p -c 32 "$dir/tmp/raw" | jq -Rn '[inputs] | {sha256: {"4": .[0], "7": .[1], "16": .[2]}}'
}
now > "$dir/good.json"
sign "$dir/v1.json" 1 good="$dir/good.json"
"$bin/attestctl" policy seal-show "$dir/v1.json" --key "$dir/policy.pem" > "$dir/tmp/show"
grep -q "signatures are the key's" "$dir/tmp/show" || job_fail "seal-show"
sed 's/"version": 1/"version": 9/' "$dir/v1.json" > "$dir/edited.json"
code=0
"$bin/attestctl" policy seal-show "$dir/edited.json" --key "$dir/policy.pem" > "$dir/tmp/show" 2>&1 || code=$?
[ "$code" = 1 ] && grep -q policySignature "$dir/tmp/show" || job_fail "edited policy: $code, $(cat "$dir/tmp/show")"
code=0
"$bin/attestctl" policy seal-sign --key "$dir/policy-key.pem" --name fleet --version 1 --pcrs sha256:4,9 \
    --out "$dir/none.json" -- good="$dir/good.json" > "$dir/tmp/show" 2>&1 || code=$?
[ "$code" = 1 ] && grep -q 'no values of sha256:9' "$dir/tmp/show" && [ ! -e "$dir/none.json" ] ||
    job_fail "seal-sign without values: $code, $(cat "$dir/tmp/show")"
# The TPM's boot as an explained log tells it gives the same values.
"$bin/attestctl" --json eventlog show "$dir/firmware.log" > "$dir/explained.json"
"$bin/attestctl" policy seal-sign --key "$dir/policy-key.pem" --name fleet --version 1 --pcrs sha256:4,7 \
    --out "$dir/log.json" -- good="$dir/explained.json" > /dev/null
[ "$("$bin/attestctl" --json policy seal-show "$dir/log.json" | jq -c '.boots[0].pcrs.sha256["4"]')" = \
    "$(jq -c '.sha256["4"]' "$dir/good.json")" ] || job_fail "values of the log"
parent=$("$bin/attestctl" policy seal-parent --key "$dir/policy.pem" --ref attestd)
ok "policies are made, shown, and refused when edited; the parent's policy is $parent"

# ---- not sealed yet ----
job_start_all
job_enrolled_with portfolio-rebalancer
before=$(job_serial portfolio-rebalancer)
ok "enrolled with keys under the SRK"

# ---- a profile that demands the parent refuses a key outside of it ----
sed -i "s/^    keys: \[tpm.*/&\n    parent_policy: $parent/" "$dir/issuer.yaml"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > /dev/null
job_stop issuerd
job_start_issuer
ctl agent rotate portfolio-rebalancer > /dev/null 2>&1 || true
refused() { ctl --json agent show portfolio-rebalancer | jq -e '.. | strings | select(test("keyParent|parentPub"))'; }
wait_for 60 refused
[ "$(job_serial portfolio-rebalancer)" = "$before" ] || job_fail "a certificate for a key outside the parent"
ok "the issuer refuses a key under the SRK: keyParent"

# ---- the host moves in ----
seal_conf() {
    sed -i "/^tpm:/a\\  pcr: signed\n  policy_key: $dir/policy.pem\n  policies: $dir/policies" "$dir/attestd.yaml"
}
seal_conf
"$bin/attestd" --config "$dir/attestd.yaml" --check > /dev/null
cp "$dir/v1.json" "$dir/policies/fleet.json"
job_stop attestd
job_stop keyd
job_start_keyd
job_start_attestd
# keyd's state is asked at each call; what it said to attestd last is there when attestd has asked again.
status_says() { # PATTERN
    ctl status > "$dir/tmp/status" || true
    grep -q "$1" "$dir/tmp/status" || { cat "$dir/tmp/status" && false; }
}
keyd_is() { [ "$(ctl --json status | jq -r '.tpm.state // .keyd.state')" = "$1" ]; }
wait_for 60 keyd_is ready
wait_for 30 grep -q 'keyd.migrated.*host.pem' "$dir/log/keyd.log" || job_fail "the host secret did not move"
wait_for 30 grep -q 'keyd.policy-counter.*defined' "$dir/log/keyd.log" || job_fail "no counter"
ctl agent rotate portfolio-rebalancer > /dev/null 2>&1 || true
renewed() { s=$(job_serial portfolio-rebalancer) && [ "$s" != "$before" ]; }
wait_for 120 renewed
job_check_chain portfolio-rebalancer
ok "moved in; renewed with a key under the storage parent"

# ---- another boot, the issuer away: nothing signs ----
other_boot() { # a boot with one more measurement in PCR 16
    job_stop attestd
    job_stop keyd
    swtpm_stop "$dir/tpm"
    swtpm_start "$dir/tpm" > /dev/null
    job_boot_tpm
    [ "$1" = good ] || TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_pcrextend "16:sha256=$(printf '%064d' 7)"
}
other_boot bad
now > "$dir/bad.json"
job_stop issuerd
job_start_keyd
job_start_attestd
wait_for 60 keyd_is sealed
wait_for 60 status_says 'pcr16 is '
! grep -q 'pcr4 is ' "$dir/tmp/status" || job_fail "status names a PCR that is right"
ok "another boot: sealed, and status says which PCR"

# ---- a new policy, the same key ----
key_before=$(ctl --json agent show portfolio-rebalancer | jq -r '.keyId // .key')
sign "$dir/policies/fleet.json" 2 good="$dir/good.json" next="$dir/bad.json"
kill -HUP "$(job_pid keyd)"
wait_for 60 keyd_is ready
wait_for 30 grep -q 'keyd.policy-counter.*raised to 2' "$dir/log/keyd.log" || job_fail "the counter was not raised"
[ "$(ctl --json agent show portfolio-rebalancer | jq -r '.keyId // .key')" = "$key_before" ] || job_fail "another key"
ok "a new signed policy: ready again, with the same key"

# ---- last month's policy with last month's boot ----
other_boot good
cp "$dir/v1.json" "$dir/policies/fleet.json"
job_start_keyd
job_start_attestd
wait_for 60 keyd_is sealed
wait_for 60 status_says 'older than what this host has accepted'
ok "an old policy is refused, its boot as good as it was: the counter"

# ---- version 2 has that boot, too ----
sign "$dir/policies/fleet.json" 2 good="$dir/good.json" next="$dir/bad.json"
kill -HUP "$(job_pid keyd)"
wait_for 60 keyd_is ready
ok "and the current one opens it"
