#!/usr/bin/env bash
# kill -9 of attestd at random instants during a rotation loop, KILLS times (default 10; each of the
# three daemons in turn with KILL_WHAT="attestd keyd issuerd"). After each: both agents rotate again.
# At the end: valid chains, no key in keyd that no record speaks of, no half file, no duplicate state.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
kills=${KILLS:-10}
read -ra what <<< "${KILL_WHAT:-attestd}"
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
trap 'stop_rotator; job_cleanup' EXIT

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
    wait_for 60 more_than "$n"
done
stop_rotator
echo "ok: $kills kills"

settled() { [ "$(ctl --json agent list | jq -r '[.agents[] | select(.state == "valid" and .busy == false)] | length')" = 2 ]; }
wait_for 60 settled
only_two() { [ "$(ctl --json status | jq .tpm.keys)" = 2 ]; }
wait_for 30 only_two || job_fail "keys in keyd: $(ctl --json status | jq -c .tpm.keys)"
for name in "${agents[@]}"; do
    job_check_chain "$name"
    # The installed reference names the key that the record has in force.
    key=$(ctl --json agent show "$name" | jq -r .keyId)
    [ "$(sed 's/.*id=//; s/%//g' "$dir/state/host/agents/$name/key.uri")" = "$key" ] || job_fail "key.uri of $name"
    jq -e . "$dir/state/host/records/$name.json" > /dev/null
done
leftover=$(find "$dir/state/host" "$dir/state/keyd" \( -name '*.tmp*' -o -name '*.bad*' -o -name '.*.new' \) | head)
[ -z "$leftover" ] || job_fail "left behind: $leftover"
! grep -E 'ERROR: AddressSanitizer|runtime error' "$dir"/log/*.log || job_fail "sanitizer"
for name in "${agents[@]}"; do
    ctl agent rotate "$name" > /dev/null
    job_check_chain "$name"
done
echo "ok: valid certificates, no orphan keys, no half file"
