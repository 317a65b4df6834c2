#!/usr/bin/env bash
# The issuer goes away for LIFETIMES (default 3) lifetimes of a certificate, by a clock that the test moves
# for issuer and host alike (ISSUER_DOWN=real: lifetime 2m, by the real clock). attestd stays up and backs
# off; an expired certificate is taken out of service, never served; when the issuer is back certificates
# come back by themselves.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
fault_clock_make
real=no lifetime=3600
[ "${ISSUER_DOWN:-}" != real ] || { real=yes lifetime=120; }
export JOB_LIFETIME=${lifetime}s
job_make_tpm
job_write_conf
clock=$dir/clock
now_s=0
fault_clock "$clock" 0 0
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1
start_issuer() {
    fault_start_clocked issuerd "$clock" "$bin/attest-issuerd" --config "$dir/issuer.yaml"
    wait_for 30 ctl issuer status
}
start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
job_start_keyd
fault_start_clocked attestd "$clock" "$bin/attestd" --config "$dir/attestd.yaml"
wait_for 30 ctl status
agents=(alpha beta)
job_enrolled_with "${agents[@]}"

# pass SECONDS: so much time goes by, for issuer and attestd
pass() {
    if [ "$real" = yes ]; then
        sleep "$1"
        return
    fi
    now_s=$((now_s + $1))
    fault_clock "$clock" "$now_s" "$now_s"
}
chain() { echo "$dir/state/host/agents/$1/chain.pem"; }
# Valid at the moment of the moved clock, give or take 5 s.
served_is_valid() {
    local name end
    for name in "${agents[@]}"; do
        end=$(openssl x509 -in "$(chain "$name")" -noout -enddate 2> /dev/null) || continue
        [ "$(date -d "${end#*=}" +%s)" -gt $(($(date +%s) + now_s - 5)) ] || return 1
    done
}
all_gone() { [ ! -e "$(chain alpha)" ] && [ ! -e "$(chain beta)" ]; }
all_back() { [ -e "$(chain alpha)" ] && [ -e "$(chain beta)" ] && served_is_valid; }

# ---- it renews by itself while all is well ----
before=$(fault_serial_on_disk alpha)
pass $((lifetime * 6 / 10))
renewed() { [ "$(fault_serial_on_disk alpha)" != "$before" ]; }
wait_for 30 renewed || job_fail "no renewal after 60 % of the lifetime"
ok "renewed by itself at 60 % of the lifetime"

# ---- the issuer is away ----
wait_for 30 fault_idle "${agents[@]}"
job_stop issuerd KILL
failures=$(fault_log_count attestd 'agent.failed')
pass $((lifetime * 6 / 10))
wait_for 30 fault_log_more attestd 'agent.failed' "$failures" || job_fail "no renewal was tried"
served_is_valid || job_fail "an expired certificate is served"
[ -e "$(chain alpha)" ] || job_fail "a certificate with 40 % of its life left was taken away"
ok "away for 60 % of a lifetime: failures are reported, the certificate stays"
# Back-off: between one failure and the next the pauses grow.
sleep 4
tries=$(fault_log_count attestd 'agent.failed.*alpha')
[ "$tries" -le 14 ] || job_fail "$tries tries in a few seconds: no back-off"
none_listed() { [ "$(ctl --json agent list | jq '[.agents[] | select(.certificate)] | length')" = 0 ]; }
for i in $(seq "${LIFETIMES:-3}"); do
    pass "$lifetime"
    wait_for 15 all_gone || job_fail "lifetime $i: expired certificates are still in service"
    job_alive attestd || job_fail "attestd ended"
    wait_for 15 none_listed || job_fail "status says that there are certificates"
done
wait_for 15 fault_log_has attestd 'agent.expired' || job_fail "expiry is not in the log"
unreachable() { [ "$(ctl --json status | jq -r .issuer.reachable)" = false ]; }
wait_for 15 unreachable || job_fail "status does not say that the issuer is away"
ok "away for ${LIFETIMES:-3} lifetimes: attestd is up, nothing expired is served"

# ---- it comes back ----
start_issuer
# The longest back-off is a minute, and the pause after a failed try may have begun just now.
[ "$real" = yes ] || pass 61
wait_for 90 all_back || job_fail "no certificates by themselves: $(ctl --json agent list | jq -c .)"
for name in "${agents[@]}"; do
    wait_for 30 job_is "$name" valid
done
served_is_valid || job_fail "an expired certificate is served"
ctl audit verify > /dev/null
job_stop attestd
job_stop issuerd
ok "back: certificates returned by themselves"

fault_sanitizers
echo "issuer down and back: all held"
