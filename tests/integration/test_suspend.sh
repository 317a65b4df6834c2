#!/usr/bin/env bash
# Suspend and hibernation, by a software TPM that does both: TPM2_Shutdown(STATE), then a start with STATE
# (resume: PCRs as before) or CLEAR (a TPM Restart: PCRs start again; resetCount stays in both). attestd sees
# the other counters and enrols again by itself, its agents keep their certificates, and the record says which
# it was. (That the issuer refuses the old enrolment by akStale: unit/issuer/test_reboot.)
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
for tool in tpm2_shutdown tpm2_startup swtpm_ioctl; do
    command -v $tool > /dev/null || job_skip "no $tool"
done
job_make_tpm
job_write_conf
job_start_all
agents=(alpha)
job_enrolled_with "${agents[@]}"
# restart_tpm resume|hibernate: what kernel and firmware send to the TPM; keyd's machine does not run meanwhile
restart_tpm() {
    export TPM2TOOLS_TCTI
    TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti")
    tpm2_shutdown
    swtpm_ioctl --unix "$dir/tpm/sock.ctrl" -i
    if [ "$1" = resume ]; then tpm2_startup; else tpm2_startup -c; fi
}
counts() { ctl --json status | jq -c '[.enrolment.resetCount, .enrolment.restartCount]'; }
enrolments() { ctl --json audit list --kind enrol | jq '[.records[].record | select(.outcome == "granted")] | length'; }
more_enrolments() { [ "$(enrolments)" -gt "$1" ]; }
# enrolled_since N: how the first enrolment after N others was recorded. A second one may follow within the same
# boot: of an agent that was refused for what the first has mended.
enrolled_since() { ctl --json audit list --kind enrol | jq -r --argjson n "$1" '[.records[].record | select(.outcome == "granted")][$n].since'; }
kept() { # SERIAL: the certificate is the one of before, whole and served
    [ "$1" = "$(fault_serial_on_disk alpha)" ] || job_fail "the certificate changed"
    job_check_chain alpha
    openssl x509 -in "$dir/state/host/agents/alpha/chain.pem" -noout -checkend 0 > /dev/null || job_fail "the certificate is over"
}
[ "$(enrolled_since 0)" = first ] || job_fail "first enrolment: $(enrolled_since 0)"
[ "$(counts)" = "$(ctl --json host show job | jq -c '[.aks[] | select(.state == "valid") | .resetCount, .restartCount]')" ]

# ---- resume ----
serial=$(fault_serial_on_disk alpha) before=$(counts) n=$(enrolments)
job_stop keyd
restart_tpm resume
job_start_keyd
kept "$serial"
wait_for 90 ctl agent rotate alpha || job_fail "no rotation after a resume: $(ctl --json agent show alpha | jq -c .lastError)"
more_enrolments "$n" || job_fail "not enrolled again after a resume"
[ "$(enrolled_since "$n")" = resumed ] || job_fail "resume: recorded as $(enrolled_since "$n")"
[ "$(counts)" = "$(jq -nc --argjson b "$before" '[$b[0], $b[1] + 1]')" ] || job_fail "resume: $before, then $(counts)"
job_check_chain alpha
ok "resume: enrolled again as resumed, renewed"

# ---- hibernation, and another system came up than the log says: nothing of it is believed ----
serial=$(fault_serial_on_disk alpha) n=$(enrolments)
job_stop keyd
restart_tpm hibernate
job_start_keyd
code=0
timeout 300 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha > "$dir/tmp/out" 2>&1 || code=$?
[ "$code" = 1 ] || job_fail "a rotation with PCRs that the log does not explain: exit $code"
refused() { [ "$(ctl --json audit list --kind enrol | jq -r '.records[-1].record | .outcome + " " + .reason')" = "refused logReplay" ]; }
wait_for 60 refused || job_fail "wrong PCRs: $(ctl --json audit list --kind enrol | jq -c '.records[-1].record | [.outcome, .reason]')"
[ "$(enrolments)" = "$n" ] || job_fail "enrolled with PCRs that the log does not explain"
kept "$serial"
ok "hibernation with other PCRs than the log's: logReplay, the certificate stays"

# ---- the same, and the boot that woke it measured something else: one that the policy allows, too ----
job_stop keyd
python3 - "$bin/attestctl" "$job_vectors/eventlog.bin" "$job_vectors/policy.json" "$dir" << 'END'
import hashlib, json, subprocess, sys
attestctl, log, policy, dir = sys.argv[1:]
data = open(log, "rb").read()
events = json.loads(subprocess.run([attestctl, "--json", "eventlog", "show", log], check=True, capture_output=True).stdout)["events"]
loader = next(e for e in events if e["pcr"] == 4 and e["type"] == "EV_EFI_BOOT_SERVICES_APPLICATION")
old = bytes.fromhex(loader["digests"]["sha256"])
assert data.count(old) == 1
new = bytes(32 * [0x5a])
open(dir + "/firmware.log", "wb").write(data.replace(old, new))
value = bytes(32)
for e in events:
    if e["pcr"] == 4 and e["type"] != "EV_NO_ACTION":
        digest = bytes.fromhex(e["digests"]["sha256"])
        value = hashlib.sha256(value + (new if digest == old else digest)).digest()
p = json.load(open(policy))
p["version"] += 1
p["pcrs"]["4"].append(value.hex())
json.dump(p, open(dir + "/policy2.json", "w"))
END
ctl policy apply -f "$dir/policy2.json" > /dev/null
restart_tpm hibernate
job_boot_tpm
job_start_keyd
wait_for 150 more_enrolments "$n" || job_fail "not enrolled again after a hibernation"
[ "$(enrolled_since "$n")" = hibernated ] || job_fail "hibernation: recorded as $(enrolled_since "$n")"
# The renewal that was asked for above comes now.
another() { [ "$serial" != "$(fault_serial_on_disk alpha)" ]; }
wait_for 60 another || job_fail "no renewal after the hibernation"
fault_rotates alpha
ok "hibernation: attestd enrols again by itself, recorded as hibernated"

# ---- the same boot again: no state of the PCRs that a resume would not give ----
serial=$(fault_serial_on_disk alpha) n=$(enrolments)
job_stop keyd
restart_tpm hibernate
job_boot_tpm
job_start_keyd
wait_for 150 more_enrolments "$n" || job_fail "attestd did not notice by itself"
[ "$(enrolled_since "$n")" = resumed ] || job_fail "hibernation with the same measurements: recorded as $(enrolled_since "$n")"
wait_for 60 another || job_fail "no renewal after an enrolment in another boot"
job_check_chain alpha
fault_rotates alpha
[ "$(counts | jq '.[0]')" = "$(jq -n --argjson b "$before" '$b[0]')" ] || job_fail "resetCount changed: $(counts)"
ok "nobody asked: noticed within two minutes"
fault_whole "${agents[@]}"
echo "suspend: all held"
