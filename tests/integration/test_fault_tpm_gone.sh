#!/usr/bin/env bash
# The TPM goes away and comes back under running daemons: with its boot's state, as after a reset (the AK is
# enrolled again by itself), and cleared (refused by name, nothing made anew).
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
command -v tpm2_clear > /dev/null || job_skip "no tpm2_clear"
job_make_tpm
job_write_conf
job_start_all
agents=(alpha)
job_enrolled_with "${agents[@]}"
survived() {
    job_alive attestd || job_fail "attestd ended"
    job_alive keyd || job_fail "attestd-keyd ended"
}
keyd_pid=$(job_pid keyd) attestd_pid=$(job_pid attestd)
tpm_state() { [ "$(ctl --json status | jq -r .tpm.state)" = "$1" ]; }

# ---- away ----
serial=$(fault_serial_on_disk alpha)
swtpm_stop "$dir/tpm"
code=0
timeout 300 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha > "$dir/tmp/out" 2>&1 || code=$?
[ "$code" = 1 ] || job_fail "a rotation without a TPM: exit $code, $(cat "$dir/tmp/out")"
grep -q 'no TPM at\|the TPM does not answer\|the TPM .*is gone\|the TPM is away' "$dir/tmp/out" || job_fail "the TPM is not named: $(cat "$dir/tmp/out")"
[ "$serial" = "$(fault_serial_on_disk alpha)" ] || job_fail "the certificate changed"
job_check_chain alpha
survived
ctl --json agent show alpha | jq -e '.lastError.message | test("the TPM|no TPM at")' > /dev/null || job_fail "lastError: $(ctl --json agent show alpha | jq -c .lastError)"
ok "away: the old certificate stays, the error names the TPM"

# ---- back, as after a power cycle: resetCount is another, so the AK's record is stale ----
enrolled=$(fault_log_count attestd host.enrolled)
swtpm_start "$dir/tpm" > /dev/null
job_boot_tpm
wait_for 90 ctl agent rotate alpha || job_fail "no rotation after a reset of the TPM"
[ "$(fault_log_count attestd host.enrolled)" -gt "$enrolled" ] || job_fail "resetCount changed, but there was no enrolment"
job_check_chain alpha
survived
[ "$keyd_pid $attestd_pid" = "$(job_pid keyd) $(job_pid attestd)" ] || job_fail "a daemon was restarted"
wait_for 60 tpm_state ready
ok "reset: enrolled again by itself, rotates"

# ---- back after a reset, but booted otherwise: the quote does not match the policy ----
swtpm_stop "$dir/tpm"
swtpm_start "$dir/tpm" > /dev/null
seen=$(fault_log_count issuerd 'request.refused.*(pcr|log|boot)')
for _ in 1 2 3; do
    ! timeout 90 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha > "$dir/tmp/out" 2>&1 ||
        job_fail "a certificate for a boot that no policy allows"
done
wait_for 60 fault_log_more issuerd 'request.refused.*(pcr|log|boot)' "$seen" || job_fail "the issuer refused nothing"
job_check_chain alpha
survived
ok "a boot that no policy allows: no certificate"
swtpm_stop "$dir/tpm"
swtpm_start "$dir/tpm" > /dev/null
job_boot_tpm
ctl --json agent show alpha > "$dir/tmp/show"
wait_for 120 ctl agent rotate alpha || job_fail "no rotation after the right boot"
ok "the right boot again: rotates"
fault_whole "${agents[@]}"

# ---- cleared under running daemons ----
host_pem=$(sha256sum < "$dir/state/keyd/host.pem")
account_pem=$(sha256sum < "$dir/state/keyd/account.pem")
serial=$(fault_serial_on_disk alpha)
keys_on_disk() { find "$dir/state/keyd/agents" -name '*.pem' | sort; }
keys_on_disk > "$dir/tmp/keys"
TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_clear -c p > "$dir/tmp/clear" 2>&1 ||
    TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_clear -c l > "$dir/tmp/clear" 2>&1 || { cat "$dir/tmp/clear"; job_fail "tpm2_clear"; }
for _ in 1 2; do
    ! timeout 90 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha > "$dir/tmp/out" 2>&1 ||
        job_fail "a certificate from a TPM that was cleared"
done
survived
case $(fault_serial_on_disk alpha) in
"$serial" | none) ;;
*) job_fail "another certificate" ;;
esac
# The same as for a TPM that was swapped, or for somebody on the bus who shows a storage key of his own: keyd
# has nothing made under it, in the very process that made the host secret, too.
wait_for 30 tpm_state foreignTpm || job_fail "keyd goes on with another SRK: $(ctl --json status | jq -c .tpm)"
grep -q 'foreignTpm\|cleared' "$dir/tmp/out" || job_fail "the refusal does not name the TPM: $(cat "$dir/tmp/out")"
keys_on_disk | comm -13 "$dir/tmp/keys" - > "$dir/tmp/made"
! grep . "$dir/tmp/made" || job_fail "keys were made in the cleared TPM"
ok "cleared under running daemons: foreignTpm at once, no certificate"
job_stop keyd
job_stop attestd
job_start_keyd
job_start_attestd
wait_for 60 tpm_state foreignTpm || job_fail "keyd's state: $(ctl --json status | jq -c .tpm)"
ctl --json status | jq -e '.tpm.reason | test("sealed in another TPM, or from before this one was cleared")' > /dev/null ||
    job_fail "reason: $(ctl --json status | jq -c .tpm.reason)"
fault_refused 'another TPM|cleared|foreignTpm' "$bin/attestctl" --socket "$dir/run/control.sock" quote --nonce 00112233445566778899aabbccddeeff --out "$dir/quote"
[ "$host_pem" = "$(sha256sum < "$dir/state/keyd/host.pem")" ] || job_fail "the host secret was made anew"
[ "$account_pem" = "$(sha256sum < "$dir/state/keyd/account.pem")" ] || job_fail "the account key was made anew"
survived
ok "cleared: keyd says that its state is sealed in another TPM, nothing is made anew"
fault_sanitizers
echo "TPM gone and back: all held"
