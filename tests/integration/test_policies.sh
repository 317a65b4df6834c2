#!/usr/bin/env bash
# A policy of components, drafted from the guest's boot, signed, and judged by at the issuer and by attestctl: other keys,
# a changed variant, modes without a restart, dry runs over stored evidence, versions rolled back, a roll-out with two variants.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin, job_vectors and job_pcrs come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
ok() { echo "ok: $*"; }
expect() { # expect STATUS PATTERN COMMAND...
    local want=$1 pattern=$2 got=0
    shift 2
    "$@" > "$dir/tmp/out" 2>&1 || got=$?
    [ "$got" = "$want" ] && grep -qE -- "$pattern" "$dir/tmp/out" || {
        cat "$dir/tmp/out"
        job_fail "$*: exit $got, expected $want and /$pattern/"
    }
}

# ---- a draft from a log, signed -----------------------------------------------------------------------
job_make_tpm
job_write_conf
draft=(measure --from "$dir/firmware.log" --pcrs "$job_pcrs" --name ovmf-guest)
expect 0 '24 components, held against this boot: it passes$' ctl "${draft[@]}" --values "$job_vectors/pcrs.json" --out "$dir/p1.json"
jq '.sha256["4"] = ("0" * 64)' "$job_vectors/pcrs.json" > "$dir/other-pcrs.json"
expect 1 'logReplay: pcr4 event' ctl "${draft[@]}" --values "$dir/other-pcrs.json" --out "$dir/none.json"
[ ! -e "$dir/none.json" ] || job_fail "a draft was written that does not hold for its boot"
for name in ops other; do openssl ecparam -genkey -name secp384r1 -noout -out "$dir/$name.pem" 2> /dev/null; done
sign() { ctl --json policy sign "$1" --key "$dir/$2.pem" --out "$3" | jq -r .signer; }
ops=$(sign "$dir/p1.json" ops "$dir/s1.json")
other=$(sign "$dir/p1.json" other "$dir/s-other.json")
expect 1 'signed already' ctl policy sign "$dir/s1.json" --key "$dir/ops.pem" --out "$dir/none.json"
expect 0 "signed by $ops" ctl policy show "$dir/s1.json"
expect 0 '^0 changes' ctl policy diff "$dir/p1.json" "$dir/s1.json"
sed -i -e "s/^    boot: ovmf-guest/&\n    policy_signers: [ \"$ops\" ]/" -e "s/^  boot: ovmf-guest/&\n  policy_signers: [ \"$ops\" ]/" "$dir/issuer.yaml"
ok "a draft is held against its boot, signed and shown"

# ---- who may sign ---------------------------------------------------------------------------------------
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || job_fail "init"
sed 's/^    policy_signers: .*/    policy_signers: [ "00" ]/' "$dir/issuer.yaml" > "$dir/bad.yaml"
expect 1 'profiles\[0\].policy_signers.*64 hex digits' "$bin/attest-issuerd" --config "$dir/bad.yaml" --check
sed 's/^    policy_signers: .*/    mode: lenient/' "$dir/issuer.yaml" > "$dir/bad.yaml"
expect 1 'profiles\[0\].mode' "$bin/attest-issuerd" --config "$dir/bad.yaml" --check
job_start_issuer
expect 1 policyUnsigned ctl policy apply -f "$dir/p1.json"
expect 1 "policySigner.*$other" ctl policy apply -f "$dir/s-other.json"
expect 0 ovmf-guest ctl policy apply -f "$dir/s1.json"
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
job_start_keyd
job_start_attestd
job_enrolled_with rebalancer
job_check_chain rebalancer
e=$dir/state/host/evidence/rebalancer
roots=(--ak-roots "$dir/issuer/ca/ak-roots.pem" --ek-roots "$dir/tpm/ek-roots.pem")
verify() { ctl verify "$e" --nonce "$(cat "$e/nonce")" "${roots[@]}" "$@"; }
expect 0 'bootPolicy .*24 components' verify --policy "$dir/s1.json" --policy-signer "$ops"
expect 1 'policySigner: ' verify --policy "$dir/s1.json" --policy-signer "$other"
expect 1 'policyUnsigned: ' verify --policy "$dir/p1.json" --policy-signer "$ops"
expect 0 'bootPolicy .*allows this boot' ctl policy test "$dir/s1.json" "$e"
ok "the host's boot passes the signed policy at the issuer, in verify and in policy test; other signatures do not count"

# ---- this host's boot, quoted -----------------------------------------------------------------------------
expect 0 'held against this boot' ctl measure --pcrs "$job_pcrs" --name ovmf-guest --out "$dir/live.json"
expect 0 '^0 changes' ctl policy diff "$dir/p1.json" "$dir/live.json"
ok "measure on the host gives the same policy"

# ---- a changed variant ------------------------------------------------------------------------------------
kernel='(.components[] | select(.id == "kernel") | .variants)'
jq --arg d "$(printf 'e%.0s' $(seq 64))" ".version = 2 | $kernel = [{digest: \$d, label: \"6.1.0-19\"}]" "$dir/p1.json" > "$dir/p2.json"
sign "$dir/p2.json" ops "$dir/s2.json" > /dev/null
expect 0 'kernel: variant removed' ctl policy diff "$dir/s1.json" "$dir/s2.json"
event='pcr4 event 10 \(kernel\): found e1bfcdc9'
expect 1 "$event" ctl policy test "$dir/s2.json" "$e"
expect 1 "$event" ctl policy dryrun -f "$dir/s2.json"
expect 1 '0 pass, 1 would be refused' ctl policy dryrun "$dir/s2.json" --host job
expect 0 '1 pass, 0 would be refused' ctl policy dryrun "$dir/s1.json" --all
expect 0 '' ctl agent rotate rebalancer # nothing was applied by that
expect 0 '"changed": true|changed' ctl policy apply -f "$dir/s2.json"
expect 1 "bootPolicy.*$event" ctl agent rotate rebalancer
expect 0 "variantUnknown|$event" ctl audit why rebalancer
expect 1 policyRolledBack ctl policy apply -f "$dir/s1.json"
ok "a changed variant: named by policy test and dry run before it is applied, refused by the issuer after; no way back"

# ---- modes, without a restart -------------------------------------------------------------------------------
id=$(job_host_id)
verdict() { ctl --json host show "$id" | jq -r ".lastVerdict | \"\(.outcome) \(.policy.mode) \(.policy.refusing)\""; }
for mode in observe warn; do
    ctl policy mode trading $mode > /dev/null
    expect 0 '' ctl agent rotate rebalancer
    [ "$(verdict)" = "granted $mode 1" ] || job_fail "host show: $(verdict)"
done
[ "$(ctl --json issuer status | jq -r '.profiles[0].mode')" = warn ] || job_fail "issuer status does not say the mode"
wait_for 10 grep -q 'policy.finding.*mode=warn.*pcr4 event 10' "$dir/log/issuerd.log" || job_fail "the warning is not in the log"
job_stop issuerd
job_start_issuer # what an operator said outlives it
expect 0 '' ctl agent rotate rebalancer
ctl policy mode trading enforce > /dev/null
expect 1 "bootPolicy.*$event" ctl agent rotate rebalancer
expect 1 'expected enforce, warn, observe or default' ctl policy mode trading off
expect 1 profileUnknown ctl policy mode nobody warn
ok "observe, warn, enforce: switched while it runs, recorded, in status and log"

# ---- a roll-out: old and new kernel, each in its time ---------------------------------------------------------
jq --arg old "$(jq -r "${kernel}[0].digest" "$dir/p1.json")" --arg until "$(date -u -d '+7 days' +%FT%TZ)" \
    ".version = 3 | $kernel = [{digest: \$old, label: \"6.1.0-18\", notAfter: \$until}] + $kernel" "$dir/p2.json" > "$dir/p3.json"
sign "$dir/p3.json" ops "$dir/s3.json" > /dev/null
expect 0 '1 pass, 0 would be refused' ctl policy dryrun "$dir/s3.json"
expect 1 'pcr4 event 10 \(kernel\): .*6.1.0-18" was allowed until' ctl policy test "$dir/s3.json" "$e" --at "$(date -u -d '+8 days' +%FT%TZ)"
ctl policy apply -f "$dir/s3.json" > /dev/null
expect 0 '' ctl agent rotate rebalancer
ok "old and new kernel for a week: the old one passes now, and not in eight days"
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
