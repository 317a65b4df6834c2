#!/usr/bin/env bash
# Full disks with keys in an HSM: the state folder, where keyd's files of these keys are, then the folder of the
# token itself, each a small tmpfs in a mount namespace of this test; and the token's folder gone amid
# rotations, and back. Errors are said, what was there stays, no file is half written, no key pair is
# left that no file speaks of, and all goes on when there is room again.
set -euo pipefail
[ -n "${ATT_LONG:-}" ] || { echo "skipped: minutes long; scripts/test --all runs it (ATT_LONG=1)"; exit 77; }
if [ "$(id -u)" -ne 0 ]; then
    echo "skipped: mounting a tmpfs needs root"
    exit 77
fi
if [ -z "${FAULT_IN_NAMESPACE:-}" ]; then
    unshare -m true 2> /dev/null || { echo "skipped: no mount namespaces here"; exit 77; }
    FAULT_IN_NAMESPACE=yes exec unshare -m --propagation private "$0" "$@"
fi
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
# shellcheck source=../support/hsm.sh
. "$ATT_SOURCE_DIR/tests/support/hsm.sh"
command -v pkcs11-tool > /dev/null || job_skip "no pkcs11-tool (package opensc)"
job_setup
trap 'status=$?; for name in attestd keyd hsmd issuerd; do job_stop "$name" KILL 2> /dev/null || true; done
    umount "$dir/state" "$dir/tokens" "$dir/disk" 2> /dev/null || true; set +e; (exit "$status"); job_cleanup' EXIT
mkdir -p "$dir/state" "$dir/tokens" "$dir/disk"
mount -t tmpfs -o size=4m,mode=755 tmpfs "$dir/state" || job_skip "no tmpfs"
mount -t tmpfs -o size=2m,mode=700 tmpfs "$dir/disk"
mkdir "$dir/disk/tokens"
mount --bind "$dir/disk/tokens" "$dir/tokens" # beside it a place to which a token moves at one instant
hsm_bad_module
job_make_tpm
job_write_conf
job_start_all
agents=(alpha beta)
job_enrolled_with "${agents[@]}"
survived() {
    local name
    for name in attestd keyd hsmd issuerd; do
        job_alive "$name" || job_fail "$name ended"
    done
}
fill() { # DIR: not a byte more
    dd if=/dev/zero of="$1/ballast" bs=4k 2> /dev/null || true
    ! printf x 2> /dev/null > "$1/.probe" || [ ! -s "$1/.probe" ] || job_fail "$1 is not full"
    rm -f "$1/.probe"
}
whole_files() {
    local name path
    for name in "${agents[@]}"; do
        job_check_chain "$name"
    done
    while read -r path; do
        jq -e . "$path" > /dev/null || [ ! -e "$path" ] || job_fail "$path is half written"
    done < <(find "$dir/state" -name '*.json' -o -name '*.hsm')
}
objects() { hsm_objects privkey | wc -l; }
rotate() { timeout 90 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate "$1"; }
wait_for 30 fault_idle "${agents[@]}"
wait_for 60 hsm_whole

# ---- keyd's files ----
before=$(objects)
fill "$dir/state"
fault_refused '[Nn]o space left' "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha
whole_files
survived
[ "$(objects)" = "$before" ] || job_fail "a key pair was made that no file can speak of: $(objects), $before before"
ok "state folder full: said; no key pair without a file"
# keyd alone, without attestd's own failures before it: KEY_CREATE says which file.
job_stop keyd KILL
job_start_keyd
wait_for 20 test -S "$dir/run/keyd/keyd.sock"
asked() {
    python3 - "$dir/run/keyd/keyd.sock" << 'END'
import os, sys
sys.path.insert(0, os.path.join(os.environ["ATT_SOURCE_DIR"], "tests", "support"))
import ask
try:
    ask.Asker(sys.argv[1]).call(16, ask.blob(b"alpha") + ask.blob(b"hsm") + ask.blob(b"ec-p256") + ask.blob(b""))
    print("made")
except ask.Refused as e:
    print(e.code, e.message)
END
}
said() { asked | tee "$dir/tmp/asked" | grep -q 'keyd/agents/.*\.hsm.*No space left'; }
wait_for 20 said || job_fail "KEY_CREATE: $(cat "$dir/tmp/asked")"
[ "$(objects)" = "$before" ] && [ -z "$(find "$dir/state" -name '*.hsm.tmp*' -size +0)" ] || job_fail "half a key is left"
ok "KEY_CREATE names the file that cannot be written"
for kib in 4 8 12 16 24 32; do
    rm -f "$dir/state/ballast"
    fill "$dir/state"
    truncate -s "-${kib}k" "$dir/state/ballast"
    rotate alpha > "$dir/tmp/out" 2>&1 || true
    whole_files
    survived
done
# A restart on the full disk, amid waste.
job_stop keyd KILL
job_stop hsmd KILL
job_start_hsmd
job_start_keyd
ok "state folder nearly full: nothing is half written"
rm -f "$dir/state/ballast"
fault_rotates "${agents[@]}"
wait_for 120 hsm_whole
fault_whole "${agents[@]}"
ok "room again: rotates; the token has what the files speak of, no more"

# ---- the pair is made, and cannot be written down: what "making" reserved is what "new" needs ----
hsm_tell "C_GenerateKeyPair slow 3000"
rotate alpha > "$dir/tmp/out" 2>&1 &
making() { grep -qlE '"state": ?"making"' "$dir"/state/keyd/agents/*.hsm; }
wait_for 30 making
fill "$dir/state"
hsm_tell
wait || true
sleep 4
whole_files
survived
rm -f "$dir/state/ballast"
fault_rotates alpha
wait_for 120 hsm_whole
fault_whole "${agents[@]}"
ok "full between generating and recording: the pair is destroyed"

# ---- the token ----
fill "$dir/tokens"
code=0
for _ in 1 2 3; do # the next key is there; the one after it is not
    rotate alpha > "$dir/tmp/out" 2>&1 || { code=$?; break; }
done
[ "$code" = 1 ] && grep -q 'C_GenerateKeyPair\|C_CreateObject\|tokenFull\|tokenGone\|CKR_' "$dir/tmp/out" || job_fail "token full: exit $code, $(cat "$dir/tmp/out")"
whole_files
survived
echo "   it says: $(head -n 1 "$dir/tmp/out")"
for kib in 4 8 12 16; do
    rm -f "$dir/tokens/ballast"
    fill "$dir/tokens"
    truncate -s "-${kib}k" "$dir/tokens/ballast"
    rotate alpha > "$dir/tmp/out" 2>&1 || true
    whole_files
    survived
done
rm -f "$dir/tokens/ballast"
fault_rotates "${agents[@]}"
wait_for 120 hsm_whole
fault_whole "${agents[@]}"
ok "token full: said; room again: rotates, nothing is left over"

# ---- the token's folder goes and comes back, amid rotations ----
(while [ -d "$dir/run" ]; do
    for name in "${agents[@]}"; do
        timeout 20 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate "$name" > /dev/null 2>&1 || sleep 0.05
    done
done) &
rotator=$!
for i in 1 2 3 4 5 6; do
    sleep "0.$((RANDOM % 10))$((RANDOM % 10))"
    token=$(find "$dir/disk/tokens" -mindepth 1 -maxdepth 1 -type d)
    mv "$token" "$dir/disk/away"
    if [ $((i % 2)) = 0 ]; then
        wait_for 30 hsm_is tokenGone
    else
        sleep 0.3
    fi
    mv "$dir/disk/away" "$token"
    wait_for 30 hsm_is ready
done
kill $rotator
wait $rotator 2> /dev/null || true
fault_rotates "${agents[@]}"
# While its folder is away SoftHSM may answer that a key to be destroyed is not there; it is again when the folder is.
none_lost() {
    hsm_whole > /dev/null 2>&1 || true # writes both lists
    [ -s "$dir/tmp/hsm-files" ] && [ -z "$(comm -23 "$dir/tmp/hsm-files" "$dir/tmp/hsm-private")" ] &&
        ! grep -qE "\"state\": ?\"(making|gone)\"" "$dir"/state/keyd/agents/*.hsm
}
wait_for 120 none_lost
fault_whole "${agents[@]}"
! fault_log_has attestd agent.keyLost || job_fail "a key was lost"
ok "token gone and back six times: no key lost ($(comm -13 "$dir/tmp/hsm-files" "$dir/tmp/hsm-private" | wc -l) that SoftHSM called destroyed are there)"
echo "full disks with an HSM: all held"
