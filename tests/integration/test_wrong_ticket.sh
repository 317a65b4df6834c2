#!/usr/bin/env bash
# A ticket with a wrong URL does not pin a host to it: the right one enrols, without a restart. Beside an
# account a ticket file of another issuer changes nothing, which is said.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
job_make_tpm
job_write_conf
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1
job_start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/good.json" > /dev/null
# Only the ticket says where the issuer is.
sed -i '/^issuer:/,/ca_file/d' "$dir/attestd.yaml"
job_start_keyd
job_start_attestd
keyd_ready() { ctl --json status | jq -e '.tpm.state == "ready"' > /dev/null; }
wait_for 30 keyd_ready

# ---- a wrong one, by the prompt and by the file ----
code=0
jq -c '.url = "https://127.0.0.1:1/acme"' "$dir/good.json" | ctl --timeout 4 enrol > "$dir/tmp/wrong" 2>&1 || code=$?
[ "$code" -ne 0 ] || job_fail "enrolled at nobody"
[ ! -e "$dir/state/keyd/issuer.json" ] || job_fail "keyd keeps an issuer that nobody has heard of"
jq -c '.url = "https://127.0.0.1:2/acme"' "$dir/good.json" > "$dir/ticket.json"
job_stop attestd
job_stop keyd
job_start_keyd
job_start_attestd
wait_for 30 keyd_ready
ctl enrol < "$dir/good.json" > "$dir/tmp/right" 2>&1 || job_fail "the right ticket after a wrong one: $(cat "$dir/tmp/right")"
job_enrolled_with alpha
grep -q "https:" "$dir/state/keyd/issuer.json" || job_fail "the account's issuer is not kept"
ok "the right ticket follows a wrong one"

# ---- beside an account ----
changes=$(fault_log_count attestd 'issuer.changed')
job_stop attestd
job_stop keyd
job_start_keyd
job_start_attestd
wait_for 30 keyd_ready
wait_for 30 fault_log_has keyd 'ticket.*127.0.0.1:2.*ignored' || job_fail "nobody says that the ticket is ignored"
fault_rotates alpha
! fault_log_more attestd 'issuer.changed' "$changes" || job_fail "attestd followed the ticket"
fault_whole alpha
echo "wrong ticket: all held"
