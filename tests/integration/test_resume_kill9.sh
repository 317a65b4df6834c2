#!/usr/bin/env bash
# kill -9 at random instants during a rotation loop, of each daemon in turn: KILLS times in all (default
# 12), KILL_WHAT (default "attestd keyd issuerd"). At each: what readers see is whole and valid. After
# each: certificates are issued again. At the end: valid chains, no key in keyd that no record speaks
# of, every key loads and signs, no half file, every intent has one outcome, serial numbers are unique,
# the audit log holds (tests/support/state_check.py).
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
kills=${KILLS:-12}
read -ra what <<< "${KILL_WHAT:-attestd keyd issuerd}"
job_make_tpm
job_write_conf
job_start_all
agents=(alpha beta)
job_enrolled_with "${agents[@]}"

# Rotates for ever; failures are what this test makes.
(while [ -d "$dir/run" ]; do
    for name in "${agents[@]}"; do
        timeout 20 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate "$name" > /dev/null 2>&1 || sleep 0.05
    done
done) &
rotator=$!
stop_rotator() {
    kill "$rotator" 2> /dev/null || true
    wait "$rotator" 2> /dev/null || true
}
trap 'status=$?; stop_rotator; set +e; (exit "$status"); job_cleanup' EXIT

issued() { ctl --json agent list | jq '[.agents[].issued] | add'; }
more_than() { [ "$(issued)" -gt "$1" ]; }
start() {
    case $1 in
    attestd) job_start_attestd ;;
    keyd) job_start_keyd ;;
    issuerd) job_start_issuer ;;
    esac
}
for i in $(seq "$kills"); do
    victim=${what[$((i % ${#what[@]}))]}
    sleep "0.$((RANDOM % 10))$((RANDOM % 10))$((RANDOM % 10))"
    job_stop "$victim" KILL
    # What readers see at this instant is whole and valid.
    for name in "${agents[@]}"; do
        job_check_chain "$name"
    done
    start "$victim"
    n=$(issued)
    wait_for 60 more_than "$n" || job_fail "after kill $i, of $victim: $(ctl --json agent list | jq -c .)"
done
stop_rotator
echo "ok: $kills kills"
# What a kill in the middle of an atomic write leaves is collected at the next start.
job_stop attestd KILL
touch "$dir/state/host/records/alpha.json.tmp.1.1" "$dir/state/host/host.json.tmp.1.1"
job_start_attestd

fault_whole "${agents[@]}"
for name in "${agents[@]}"; do
    # The installed reference names the key that the record has in force.
    key=$(ctl --json agent show "$name" | jq -r .keyId)
    [ "$(sed 's/.*id=//; s/%//g' "$dir/state/host/agents/$name/key.uri")" = "$key" ] || job_fail "key.uri of $name"
done
fault_rotates "${agents[@]}"
echo "ok: valid certificates, no orphan keys, no half file"
