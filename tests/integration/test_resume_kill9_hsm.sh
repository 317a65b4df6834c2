#!/usr/bin/env bash
# kill -9 of keyd and hsmd at random instants during a rotation loop with keys in an HSM: KILLS times in all
# (default 20), KILL_WHAT (default "keyd hsmd both"). After each, certificates are issued again with the keys of
# before. At the end the token has the key pairs that keyd's files speak of and no other, no file is half
# written or waste, every key signs. Then each step of a key's making and end, cut off where it hurts most.
set -euo pipefail
[ -n "${ATT_LONG:-}" ] || { echo "skipped: minutes long; scripts/test --all runs it (ATT_LONG=1)"; exit 77; }
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
# shellcheck source=../support/hsm.sh
. "$ATT_SOURCE_DIR/tests/support/hsm.sh"
command -v pkcs11-tool > /dev/null || job_skip "no pkcs11-tool (package opensc)"
job_setup
kills=${KILLS:-20}
read -ra what <<< "${KILL_WHAT:-keyd hsmd both}"
hsm_bad_module
job_make_tpm
job_write_conf
job_start_all
agents=(alpha beta)
job_enrolled_with "${agents[@]}"

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
restart() { # keyd|hsmd|both
    [ "$1" = keyd ] || job_stop hsmd KILL
    [ "$1" = hsmd ] || job_stop keyd KILL
    for name in "${agents[@]}"; do
        job_check_chain "$name"
    done
    [ "$1" = keyd ] || job_start_hsmd
    [ "$1" = hsmd ] || job_start_keyd
}
for i in $(seq "$kills"); do
    sleep "0.$((RANDOM % 10))$((RANDOM % 10))$((RANDOM % 10))"
    restart "${what[$((i % ${#what[@]}))]}"
    n=$(issued)
    wait_for 90 more_than "$n" || job_fail "after kill $i: $(ctl --json agent list | jq -c .)"
done
stop_rotator
ok "$kills kills, $(issued) certificates"
! fault_log_has attestd agent.keyLost || job_fail "a key was lost"
# Twice over: what nobody was told of is looked for again after half a minute.
wait_for 120 hsm_whole
fault_whole "${agents[@]}"
fault_rotates "${agents[@]}"
wait_for 60 hsm_whole
ok "the token has what keyd's files speak of, no more; every key signs"

# ---- each step, cut off ----
waste() { grep -lE '"state": ?"(making|gone)"' "$dir"/state/keyd/agents/*.hsm 2> /dev/null | wc -l; }
has_waste() { [ "$(waste)" -ge 1 ]; }
makes() { grep -qE '"state": ?"making"' "$dir"/state/keyd/agents/*.hsm; }
objects() { hsm_objects privkey | wc -l; }
hsmd_ended() { ! job_alive hsmd; }
rotate_beside() { timeout 30 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha > "$dir/tmp/out" 2>&1 & }
settles() {
    wait_for 120 hsm_whole
    fault_whole "${agents[@]}"
}

# The module has the pair, hsmd has not said so: keyd is killed, then hsmd goes on.
hsm_tell "C_GenerateKeyPair hang"
rotate_beside
wait_for 30 makes
sleep 1 # the file is there before hsmd is asked
job_stop keyd KILL
before=$(objects) # the rotation may have had the oldest retired key destroyed
hsm_tell
more_objects() { [ "$(objects)" -gt "$before" ]; }
wait_for 30 more_objects
ok "keyd killed while a key is made: the token has one that nobody was told of"
job_start_keyd
settles
ok "it is destroyed"

# hsmd is killed in the making; keyd then, too: only the file knows.
hsm_tell "C_GenerateKeyPair die"
rotate_beside
wait_for 30 has_waste
wait_for 30 hsmd_ended
job_stop keyd KILL
hsm_tell
job_stop hsmd KILL
job_start_hsmd
job_start_keyd
settles
ok "hsmd and keyd killed while a key is made"

# A slow HSM ends the making after its process is gone, and after the first look: there is a second one. The
# pair is put there by hand, under the id of the file.
job_stop attestd KILL
hsm_tell "C_GenerateKeyPair die"
job_start_attestd
rotate_beside
wait_for 30 has_waste
wait_for 30 hsmd_ended
job_stop keyd KILL
job_stop attestd KILL
hsm_tell
job_stop hsmd KILL
job_start_hsmd
file=$(grep -lE '"state": ?"making"' "$dir"/state/keyd/agents/*.hsm | head -n 1)
id=$(jq -r .ckaId "$file")
job_start_keyd
wait_for 20 test -S "$dir/run/keyd/keyd.sock"
sleep 4 # the first look is at the start; the second comes after 30 s
[ -e "$file" ] || job_fail "the file of a key whose fate is unknown went at the first look"
pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --login --pin $hsm_pin --keypairgen --key-type EC:prime256v1 \
    --id "$id" --label attestd > /dev/null 2>&1
hsm_objects privkey | grep -qx "$id" || job_fail "no late key"
late_gone() { [ ! -e "$file" ] && ! hsm_objects privkey | grep -qx "$id"; }
wait_for 60 late_gone
job_start_attestd
settles
ok "a key that came after its process had gone is destroyed at the second look"

# A key is being destroyed: hsmd is away, keyd is killed, and both come back.
key=$(ctl --json agent show alpha | jq -er '.retired[0].keyId')
job_stop attestd KILL
retired=$dir/state/keyd/agents/$key.hsm
id=$(jq -r .ckaId "$retired")
job_stop keyd KILL
jq -c '.state = "gone"' "$retired" > "$dir/tmp/gone"
cp "$dir/tmp/gone" "$retired" # as keyd would have left it
hsm_tell "C_DestroyObject rv 0xe2"
job_start_keyd
sleep 3
hsm_objects privkey | grep -qx "$id" && [ -e "$retired" ] || job_fail "the file went before the key"
hsm_tell "C_DestroyObject die"
wait_for 30 hsmd_ended
hsm_objects privkey | grep -qx "$id" && [ -e "$retired" ] || job_fail "the file went before the key"
hsm_tell
job_stop hsmd KILL
job_start_hsmd
gone() { [ ! -e "$retired" ] && ! hsm_objects privkey | grep -qx "$id" && ! hsm_objects pubkey | grep -qx "$id"; }
wait_for 30 gone
job_start_attestd
wait_for 60 ctl agent rotate alpha
settles
ok "a destruction that is refused, cut off, and goes on: key $key is gone, and its file after it"

# Somebody deletes key pairs in the token: the next key's, then the one's in force.
for which in nextKeyId keyId; do
    key=$(ctl --json agent show alpha | jq -er ".$which")
    id=$(jq -r .ckaId "$dir/state/keyd/agents/$key.hsm")
    for type in privkey pubkey; do
        pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --login --pin $hsm_pin --delete-object --type $type --id "$id" \
            > /dev/null 2>&1
    done
    wait_for 90 ctl agent rotate alpha
    job_check_chain alpha
    [ "$(ctl --json agent show alpha | jq -r .keyId)" != "$key" ] || job_fail "the deleted key is in force"
done
ok "key pairs that somebody deleted in the token: the agent gets others"
fault_sanitizers
echo "keys in an HSM, killed at any instant: all held"
