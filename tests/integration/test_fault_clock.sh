#!/usr/bin/env bash
# attestd's wall clock jumps by a day, forward and back, under it and between two starts, while the issuer's
# does not (the machine's clock is never touched: tests/support/preload/clock.c). No expired certificate is
# served, renewal never stops, and when the clock is right again everything is.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
fault_clock_make
job_make_tpm
job_write_conf
clock=$dir/clock
fault_clock "$clock" 0 0
# A CA that is older than the jumps are long: else its TLS certificate is "not yet valid" to attestd.
fault_clock "$dir/clock-init" -172800 0
LD_PRELOAD="$clock_preload" ATT_TEST_CLOCK=$dir/clock-init "$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1
job_start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
job_start_keyd
start_attestd() {
    fault_start_clocked attestd "$clock" "$bin/attestd" --config "$dir/attestd.yaml"
    wait_for 30 ctl status
}
start_attestd
agents=(alpha)
job_enrolled_with "${agents[@]}"
day=86400
chain=$dir/state/host/agents/alpha/chain.pem
# Valid by the true time: what a peer with a right clock sees.
true_valid() { openssl x509 -in "$chain" -noout -checkend 0 > /dev/null; }
serial() { fault_serial_on_disk alpha; }
another() { [ "$(serial)" != "$1" ] && [ "$(serial)" != none ]; }

# ---- back by a day, under a running attestd ----
before=$(serial)
fault_clock "$clock" -$day 0
wait_for 30 another "$before" || job_fail "clock a day back: no renewal"
true_valid || job_fail "clock a day back: the chain is not valid"
grep -aq 'clock.jump' "$dir/log/attestd.log" || job_fail "the jump is not in the log"
[ "$(ctl --json status | jq '.clock.lastJumpMs < -86000000')" = true ] || job_fail "the jump is not in status"
ok "a day back: said, renewed"
# An hour and more goes by there (the clock that never jumps moves, the wall clock stays a day behind):
# due by that clock, so it renews; the issuer's clock is the true one.
before=$(serial)
fault_clock "$clock" $((-day + 2000)) 2000
wait_for 30 another "$before" || job_fail "clock a day back: renewal has stopped"
true_valid
ok "a day back and half an hour later: renews"
# The issuer is away, and the lifetime ends: the wall clock says that a day is left, the other one knows.
wait_for 30 fault_idle "${agents[@]}"
job_stop issuerd KILL
fault_clock "$clock" $((-day + 2000 + 3700)) $((2000 + 3700))
gone() { [ ! -e "$chain" ]; }
wait_for 30 gone || job_fail "clock a day back: an expired certificate is served"
ok "a day back: expiry is seen by the clock that never jumps"
job_start_issuer
fault_clock "$clock" 0 5700
wait_for 90 job_is alpha valid || job_fail "no certificate after the clock was mended: $(ctl --json agent show alpha | jq -c .)"
true_valid
job_check_chain alpha
ok "the clock is right again: certificate"

# ---- forward by a day ----
fault_clock "$clock" $day 5700
# By this clock the certificate is expired: it is taken out of service, and tried for again without end.
failures=$(fault_log_count attestd 'agent.(failed|refused|certificate)')
wait_for 30 fault_log_more attestd 'agent.expired' 0 || job_fail "a day ahead: no expiry"
wait_for 30 fault_log_more attestd 'agent.(failed|refused|certificate)' "$((failures + 1))" || job_fail "a day ahead: it stopped trying"
job_alive attestd || job_fail "attestd ended"
# What the issuer gives, with its right clock, is expired by this one, too: it is not installed.
wait_for 10 gone || job_fail "a day ahead: an expired certificate is served"
for _ in 1 2 3 4 5 6; do
    gone || job_fail "a day ahead: an expired certificate was installed"
    sleep 0.5
done
ok "a day ahead: out of service, tries on"
fault_clock "$clock" 0 5700
wait_for 120 job_is alpha valid || job_fail "no certificate after the clock was mended: $(ctl --json agent show alpha | jq -c .)"
wait_for 10 true_valid
job_check_chain alpha
ok "the clock is right again: certificate"

# ---- between two starts ----
job_stop attestd
fault_clock "$clock" $day 5700
start_attestd
wait_for 10 gone || job_fail "started a day ahead: an expired certificate is served"
job_stop attestd
fault_clock "$clock" -$day 5700
start_attestd
wait_for 90 job_is alpha valid || job_fail "started a day back: $(ctl --json agent show alpha | jq -c .)"
wait_for 10 true_valid
job_stop attestd
fault_clock "$clock" 0 5700
start_attestd
wait_for 90 job_is alpha valid || job_fail "started right again: $(ctl --json agent show alpha | jq -c .)"
wait_for 10 true_valid
ok "started with a clock a day off: recovers"

wait_for 60 ctl agent rotate alpha
fault_whole "${agents[@]}"
echo "clock: all held"
