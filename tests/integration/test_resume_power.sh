#!/usr/bin/env bash
# Loss of power on the host at random instants of a rotation loop: CUTS times (default 8). attestd's and
# keyd's state lies on an ext4 image of its own; a cut copies the image's blocks as they are while both
# are stopped, kills them, and goes on with the copy. What was not synced is then lost, as far as ext4
# loses it: with commit=300 nothing but our own syncs makes it write, yet a sync carries earlier changes
# of names along, which other file systems need not do.
# At each cut, before a daemon runs: readers find a whole chain and the reference of a key that is
# there. After each: certificates are issued. At the end: tests/support/state_check.py.
set -euo pipefail
if [ "$(id -u)" -ne 0 ]; then
    echo "skipped: mounting an image needs root"
    exit 77
fi
if [ -z "${FAULT_IN_NAMESPACE:-}" ]; then
    unshare -m true 2> /dev/null || { echo "skipped: no mount namespaces here"; exit 77; }
    FAULT_IN_NAMESPACE=yes exec unshare -m --propagation private "$0" "$@"
fi
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
cuts=${CUTS:-8}
trap 'status=$?; for name in attestd keyd; do job_stop "$name" KILL 2> /dev/null || true; done
    umount "$dir/state" 2> /dev/null || true; set +e; (exit "$status"); job_cleanup' EXIT
command -v mkfs.ext4 > /dev/null || job_skip "no mkfs.ext4"
truncate -s 24M "$dir/disk"
mkfs.ext4 -q -b 1024 "$dir/disk"
mkdir -p "$dir/state"
mount_disk() { mount -o loop,commit=300,data=ordered "$dir/disk" "$dir/state"; }
mount_disk 2> "$dir/tmp/mount" || job_skip "no loop device: $(cat "$dir/tmp/mount")"

# cut: what was not synced is gone
cut_power() {
    cp "$dir/disk" "$dir/disk.cut"
    job_stop attestd KILL
    job_stop keyd KILL
    wait_for 10 umount "$dir/state"
    mv "$dir/disk.cut" "$dir/disk"
    mount_disk
}
# Does a cut lose what was not synced, and only that?
mkdir "$dir/state/probe"
printf synced > "$dir/state/probe/a"
sync -f "$dir/state/probe/a"
printf lost > "$dir/state/probe/b"
cut_power
[ "$(cat "$dir/state/probe/a")" = synced ] || job_fail "a cut lost what was synced"
[ ! -s "$dir/state/probe/b" ] || job_fail "a cut kept what was not synced: this test tests nothing"
rm -r "$dir/state/probe"

job_make_tpm
job_write_conf
job_start_all
agents=(alpha beta)
job_enrolled_with "${agents[@]}"
wait_for 30 fault_idle "${agents[@]}"
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
trap 'status=$?; stop_rotator; for name in attestd keyd; do job_stop "$name" KILL 2> /dev/null || true; done
    umount "$dir/state" 2> /dev/null || true; set +e; (exit "$status"); job_cleanup' EXIT

issued() { ctl --json agent list | jq '[.agents[].issued] | add'; }
more_than() { [ "$(issued)" -gt "$1" ]; }
for i in $(seq "$cuts"); do
    sleep "0.$((RANDOM % 10))$((RANDOM % 10))$((RANDOM % 10))"
    kill -STOP "$(job_pid attestd)" "$(job_pid keyd)"
    sleep 0.1 # a sync that the kernel has begun ends
    cut_power
    for name in "${agents[@]}"; do
        job_check_chain "$name"
        key=$(sed 's/.*id=//; s/%//g' "$dir/state/host/agents/$name/key.uri")
        [ -s "$dir/state/keyd/agents/$key.pem" ] && [ -s "$dir/state/keyd/agents/$key.json" ] ||
            job_fail "cut $i: $name's key.uri names $key, of which keyd has nothing"
    done
    job_start_keyd
    job_start_attestd
    n=$(issued)
    wait_for 60 more_than "$n" || job_fail "after cut $i: $(ctl --json agent list | jq -c .)"
done
stop_rotator
fault_whole "${agents[@]}"
fault_rotates "${agents[@]}"
echo "ok: $cuts cuts, nothing lost that was promised"
