#!/usr/bin/env bash
# Loss of power while a host's keys move under the storage parent, and while a newer signed policy comes. The host's state and
# its policies lie on an ext4 image each, which writes nothing by itself (commit=300); a cut copies the blocks as they are, kills
# the daemons, and goes on with the copy: what was not synced is lost. (On one image a sync of keyd's own files carries the
# policy along.) The move is cut after each of its steps, each time going on from where the cut before left it; then one cut after
# each policy that the counter was raised to, which an operator copied without a sync.
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
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
ok() { echo "ok: $*"; }
trap 'status=$?; for name in attestd keyd; do job_stop "$name" KILL 2> /dev/null || true; done
    umount "$dir/state" "$dir/policies" 2> /dev/null || true; set +e; (exit "$status"); job_cleanup' EXIT
command -v mkfs.ext4 > /dev/null || job_skip "no mkfs.ext4"
disks=(state policies)
mount_disk() { mount -o loop,commit=300,data=ordered "$dir/$1.disk" "$dir/$1"; }
for disk in "${disks[@]}"; do
    truncate -s 24M "$dir/$disk.disk"
    mkfs.ext4 -q -b 1024 "$dir/$disk.disk"
    mkdir -p "$dir/$disk"
    mount_disk "$disk" 2> "$dir/tmp/mount" || job_skip "no loop device: $(cat "$dir/tmp/mount")"
done
cut_power() {
    local name disk
    for name in attestd keyd; do
        [ ! -e "$dir/$name.pid" ] || ! job_alive "$name" || kill -STOP "$(job_pid "$name")"
    done
    sleep 0.1 # a sync that the kernel has begun ends
    for disk in "${disks[@]}"; do cp "$dir/$disk.disk" "$dir/$disk.cut"; done
    job_stop attestd KILL
    job_stop keyd KILL
    for disk in "${disks[@]}"; do
        wait_for 10 umount "$dir/$disk"
        mv "$dir/$disk.cut" "$dir/$disk.disk"
        mount_disk "$disk"
    done
}

job_make_tpm
job_write_conf
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/policy-key.pem" 2> /dev/null
openssl pkey -in "$dir/policy-key.pem" -pubout -out "$dir/policy.pem"
TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_pcrread sha256:4,7 -o "$dir/tmp/raw" > /dev/null
xxd -p -c 32 "$dir/tmp/raw" | jq -Rn '[inputs] | {sha256: {"4": .[0], "7": .[1]}}' > "$dir/good.json"
sign() { # VERSION: $dir/fleet.json
    rm -f "$dir/fleet.json"
    "$bin/attestctl" policy seal-sign --key "$dir/policy-key.pem" --name fleet --version "$1" --pcrs sha256:4,7 \
        --out "$dir/fleet.json" -- good="$dir/good.json" > /dev/null
}
job_start_all
job_enrolled_with alpha
before=$(job_serial alpha)
job_stop attestd
job_stop keyd

# ---- the host moves in ----
# By version 1: a cut between the counter's definition and keyd's record of it costs no step of the counter, which no TPM would
# take back.
policies=$dir/policies
sign 1
cp "$dir/fleet.json" "$policies/"
sed -i "/^tpm:/a\\  pcr: signed\n  policy_key: $dir/policy.pem\n  policies: $policies" "$dir/attestd.yaml"
sync -f "$policies"
# said PATTERN: since keyd was started; or all was done
said() { tail -n "+$((lines + 1))" "$dir/log/keyd.log" > "$dir/tmp/said" && grep -q "event=keyd.$1\|event=keyd.ready" "$dir/tmp/said"; }
for step in sandbox "created.*storageParent" "policy-counter.*defined" "migrated.*host.pem"; do
    lines=$(wc -l < "$dir/log/keyd.log") until=$((SECONDS + 120))
    job_start_keyd
    until said "$step"; do # no pause: all of it takes 0.2 s
        if ! job_alive keyd || [ $SECONDS -ge $until ]; then
            job_fail "keyd ended, or said nothing of $step: $(tail -n 2 "$dir/log/keyd.log")"
        fi
    done
    cut_power
    echo "cut after $step: it had come to $(grep -o 'event=keyd[^ ]*' "$dir/log/keyd.log" | tail -n 1)"
done
sealing_is() { ctl --json status | jq -e ".tpm.state == \"ready\" and (.tpm.sealing | $1)"; }
job_start_keyd
job_start_attestd
wait_for 60 sealing_is '.open and .counter.value == 1' || job_fail "after the move: $(ctl --json status | jq -c .tpm)"
renewed() { s=$(job_serial alpha) && [ "$s" != "$before" ]; }
wait_for 60 job_settled alpha
ctl agent rotate alpha > "$dir/tmp/rotate" 2>&1 || true
wait_for 60 renewed
job_check_chain alpha
ok "cuts while the host moved in: moved, and renewed by a key under the storage parent"

# ---- a newer policy ----
key=$(ctl --json agent show alpha | jq -r .keyId)
for version in 2 3 4; do
    sign "$version"
    cp "$dir/fleet.json" "$policies/new"
    mv "$policies/new" "$policies/fleet.json"
    kill -HUP "$(job_pid keyd)"
    wait_for 60 grep -q "keyd.policy-counter.*raised to $version" "$dir/log/keyd.log" || job_fail "the counter was not raised to $version"
    cut_power
    [ "$(jq .version "$policies/fleet.json")" = "$version" ] ||
        job_fail "the counter is at $version, and the cut left version $(jq .version "$policies/fleet.json") on the disk"
    job_start_keyd
    job_start_attestd
    wait_for 60 sealing_is ".by.version == $version and .counter.value == $version" || job_fail "version $version: $(ctl --json status | jq -c .tpm)"
done
wait_for 60 job_settled alpha
[ "$(ctl --json agent show alpha | jq -r .keyId)" = "$key" ] || job_fail "another key"
ctl agent rotate alpha > "$dir/tmp/rotate" 2>&1 || true
key_new() { [ "$(ctl --json agent show alpha | jq -r .keyId)" != "$key" ]; }
wait_for 60 key_new
job_check_chain alpha
ok "a cut after each newer policy: on the disk before the counter was raised to it, open, the same key"
