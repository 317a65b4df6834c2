#!/usr/bin/env bash
# The disk is full: attestd's and keyd's state_dir, then the issuer's, each a small tmpfs in a mount namespace
# of this test. Errors are said, what was there stays, nothing is half written, and all goes on when there
# is room again.
set -euo pipefail
if [ "$(id -u)" -ne 0 ]; then
    echo "skipped: mounting a tmpfs needs root"
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
trap 'status=$?; for name in attestd keyd issuerd; do job_stop "$name" KILL 2> /dev/null || true; done
    umount "$dir/state" "$dir/issuer" 2> /dev/null || true; set +e; (exit "$status"); job_cleanup' EXIT
mkdir -p "$dir/state" "$dir/issuer"
mount -t tmpfs -o size=4m,mode=755 tmpfs "$dir/state" || job_skip "no tmpfs"
mount -t tmpfs -o size=8m,mode=700 tmpfs "$dir/issuer"
job_make_tpm
job_write_conf
job_start_all
agents=(alpha beta)
job_enrolled_with "${agents[@]}"
survived() {
    local name
    for name in attestd keyd issuerd; do
        job_alive "$name" || job_fail "$name ended"
    done
}
# fill DIR: not a byte more
fill() {
    dd if=/dev/zero of="$1/ballast" bs=4k 2> /dev/null || true
    ! printf x 2> /dev/null > "$1/.probe" || [ ! -s "$1/.probe" ] || job_fail "$1 is not full"
    rm -f "$1/.probe"
}
whole_files() { # what readers see, whatever failed
    local name path
    for name in "${agents[@]}"; do
        job_check_chain "$name"
    done
    while read -r path; do
        jq -e . "$path" > /dev/null || [ ! -e "$path" ] || job_fail "$path is half written"
    done < <(find "$dir/state" -name '*.json')
}

# ---- the host's disk ----
wait_for 60 fault_idle "${agents[@]}" # nobody makes room again by what he tidies up
before=$(fault_serial_on_disk alpha)
fill "$dir/state"
code=0
timeout 90 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha > "$dir/tmp/out" 2>&1 || code=$?
[ "$code" = 1 ] && grep -qi 'no space left' "$dir/tmp/out" || job_fail "rotation on a full disk: exit $code, $(cat "$dir/tmp/out")"
[ "$before" = "$(fault_serial_on_disk alpha)" ] || job_fail "the certificate changed"
whole_files
survived
ctl --json agent show alpha | jq -e '.lastError.message | test("No space left"; "i")' > /dev/null || job_fail "lastError: $(ctl --json agent show alpha | jq -c .lastError)"
ok "host, full: said, the old certificate stays"
# A restart on a full disk: what is there is read.
job_stop attestd KILL
job_start_attestd || job_fail "attestd does not start on a full disk"
wait_for 30 job_is alpha valid || wait_for 1 job_is alpha renewing || true
whole_files
survived
ok "host, full: attestd starts"
# Revoked: neither the view nor the record can be written, and the key goes all the same. Not even what a withdrawal
# frees is for the record.
gone=$(ctl --json agent show beta | jq -er .keyId)
mount --bind "$dir/state/host/records" "$dir/state/host/records"
mount -o remount,bind,ro "$dir/state/host/records"
fill "$dir/state"
ctl cert revoke "$(job_serial beta)" --reason keyCompromise > /dev/null
wait_for 60 test ! -e "$dir/state/keyd/agents/$gone.pem" || job_fail "a revoked key outlives a full disk"
survived
umount "$dir/state/host/records"
rm -f "$dir/state/ballast"
beta_valid() { job_is beta valid && job_check_chain beta; }
wait_for 90 beta_valid
ok "host, full: a revoked agent's key goes"
# Room for little more than a key: the failure moves on to other files.
for kib in 8 16 24 32; do
    rm -f "$dir/state/ballast"
    fill "$dir/state"
    truncate -s "-${kib}k" "$dir/state/ballast"
    timeout 60 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha > "$dir/tmp/out" 2>&1 || true
    whole_files
    survived
done
ok "host, nearly full: nothing is half written"
rm -f "$dir/state/ballast"
fault_rotates "${agents[@]}"
fault_whole "${agents[@]}"
ok "host, room again: rotates"

# ---- the issuer's disk ----
wait_for 30 fault_idle "${agents[@]}"
for name in "${agents[@]}"; do
    fault_serial_on_disk "$name" > "$dir/tmp/$name.before"
done
fill "$dir/issuer"
# SQLite's files may still have room inside: a few may yet succeed.
refused=no
for _ in 1 2 3 4 5 6 7 8; do
    if ! timeout 90 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha > "$dir/tmp/out" 2>&1; then
        refused=yes
        break
    fi
done
[ "$refused" = yes ] || job_fail "a full issuer issues and issues"
wait_for 30 grep -aqiE 'full|no space' "$dir/log/issuerd.log" || job_fail "the issuer does not say that its disk is full: $(tail -n 3 "$dir/log/issuerd.log")"
whole_files
survived
ctl issuer status > /dev/null || job_fail "the admin socket is silent"
ok "issuer, full: said, certificates stay"
# No restart: what was begun is completed, or given up, and the next ones are issued.
issuerd_pid=$(job_pid issuerd)
rm -f "$dir/issuer/ballast"
fault_rotates "${agents[@]}"
settled() { [ "$(ctl --json ca status | jq .pendingIntents)" = 0 ]; }
wait_for 90 settled || job_fail "signatures are still open: $(ctl --json ca status | jq .pendingIntents)"
fault_whole "${agents[@]}"
[ "$(job_pid issuerd)" = "$issuerd_pid" ] && job_alive issuerd || job_fail "the issuer ended"
ok "issuer, room again: issues, without a restart"
job_stop issuerd KILL
job_start_issuer
fault_rotates "${agents[@]}"
fault_whole "${agents[@]}"
ok "issuer, started again: issues"
echo "full disks: all held"
