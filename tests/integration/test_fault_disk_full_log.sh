#!/usr/bin/env bash
# Full disks under the audit log with a TPM: the folder of attest-issuerd-tpm, the issuer's, that of what is published, each
# a small tmpfs in a mount namespace of this test. Nothing is signed that is not remembered, nothing is half written, what
# was signed and not written is written when there is room again, and the log goes on without a gap.
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
# shellcheck source=../support/auditlog.sh
. "$ATT_SOURCE_DIR/tests/support/auditlog.sh"
# shellcheck source=../support/logtpm.sh
. "$ATT_SOURCE_DIR/tests/support/logtpm.sh"
for tool in swtpm swtpm_setup; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
log_setup
trap 'status=$?; for name in issuerd logtpm; do job_stop "$name" KILL 2> /dev/null || true; done
    umount "$dir/issuer/audit-log" "$dir/issuer" "$dir/tpm-state" "$dir/tpm-new" 2> /dev/null || true
    set +e; (exit "$status"); job_cleanup' EXIT
log_decide 2
job_stop issuerd
put_on() { # put_on SIZE FOLDER: what is there lies on a disk of its own from now on
    mkdir -p "$2" "$dir/was"
    cp -a "$2/." "$dir/was/"
    mount -t tmpfs -o "size=$1,mode=$(stat -c %a "$2")" tmpfs "$2" || job_skip "no tmpfs"
    cp -a "$dir/was/." "$2/"
    rm -r "$dir/was"
}
mkdir -m 700 "$dir/tpm-state"
put_on 8m "$dir/issuer"
put_on 2m "$dir/issuer/audit-log"
put_on 64k "$dir/tpm-state"
logtpm_make "$dir/tpm"
plain=$(cat "$dir/issuer.yaml")
with_tpm() { { echo "$plain" && logtpm_conf "$dir/tpm" "$1"; } > "$dir/issuer.yaml"; }
with_tpm "$dir/tpm-state"
logtpm_start
job_start_issuer
log_decide 2
log_tpm_verify "$log" --save "$dir/first" > /dev/null

fill() { # not a byte more
    dd if=/dev/zero of="$1/ballast" bs=4k 2> /dev/null || true
    ! printf x 2> /dev/null > "$1/.probe" || [ ! -s "$1/.probe" ] || job_fail "$1 is not full"
    rm -f "$1/.probe"
}
room() { rm "$1/ballast"; }
state() { ctl --json issuer status | jq ".log.$1"; }
is() { [ "$(state "$1")" = "$2" ]; }
said() { fault_log_more "$1" '[Nn]o space left' "$2"; }
quiet() { fault_log_count "$1" '[Nn]o space left'; }
waits() { # waits PROCESS WORDS-SO-FAR SIZE: the log waits, decisions go on, no checkpoint is published
    wait_for 60 is waiting true
    wait_for 30 said "$1" "$2" || job_fail "$1 does not say that its disk is full"
    is broken false || job_fail "broken"
    [ "$(log_size "$log")" = "$3" ] || job_fail "$(log_size "$log") leaves are published, $3 before the disk was full"
    job_alive issuerd && job_alive logtpm || job_fail "a process ended"
}
goes_on() { # goes_on CHECKPOINT: all is published, and it continues that one
    wait_for 60 log_is_current "$(log_records)"
    log_tpm_verify "$log" --since "$1" > "$dir/tmp/verify" || { cat "$dir/tmp/verify"; job_fail "verify"; }
    fault_sanitizers
}

# ---- the TPM process's folder -------------------------------------------------------------------------------------
size=$(log_size "$log") counter=$(log_counter "$log") words=$(quiet logtpm)
fill "$dir/tpm-state"
cp "$dir/tpm-state/record.json" "$dir/tmp/record"
ctl ticket create > /dev/null
waits logtpm "$words" "$size"
cmp "$dir/tmp/record" "$dir/tpm-state/record.json" || job_fail "the record changed"
ctl ticket create > /dev/null
job_stop logtpm KILL # what is there is read, and no more is signed than before
words=$(quiet logtpm)
logtpm_start
ctl ticket create > /dev/null
waits logtpm "$words" "$size"
cmp "$dir/tmp/record" "$dir/tpm-state/record.json" || job_fail "the record changed"
[ "$(find "$dir/tpm-state" -type f -printf '%f\n' | sort | tr '\n' ' ')" = 'ballast key.pem lock record.json secret.pem ' ] ||
    { ls -la "$dir/tpm-state"; job_fail "something half written is left"; }
room "$dir/tpm-state"
goes_on "$dir/first"
[ "$(log_counter "$log")" -le $((counter + 1)) ] || job_fail "the counter rose: $counter, $(log_counter "$log")"
ok "the TPM process's disk full: nothing is signed, its record stays, decisions go on; with room the log is published"

# ---- the issuer's folder, when the TPM has signed and the checkpoint cannot be kept ---------------------------------
signed_unwritten() { # the record names more leaves than are published
    [ "$(jq .size "$dir/tpm-state/record.json")" -gt "$(log_size "$log")" ]
}
full_amid() { # full_amid FOLDER: decided while the TPM does not answer; then it does, and there is no room
    log_tpm_verify "$log" --save "$dir/before" > /dev/null
    size=$(log_size "$log") words=$(quiet issuerd)
    kill -STOP "$(job_pid logtpm)"
    ctl ticket create > /dev/null
    wait_for 60 is waiting true
    fill "$1"
    kill -CONT "$(job_pid logtpm)"
}
full_amid "$dir/issuer"
waits issuerd "$words" "$size"
wait_for 30 signed_unwritten || job_fail "the TPM was not asked: the test tries nothing"
room "$dir/issuer"
goes_on "$dir/before"
ok "the issuer's disk full once the TPM has signed: no checkpoint, then the one that was signed"
full_amid "$dir/issuer"
waits issuerd "$words" "$size"
wait_for 30 signed_unwritten
job_stop issuerd KILL
job_stop logtpm KILL
room "$dir/issuer"
logtpm_start
job_start_issuer
goes_on "$dir/before"
ok "… and both killed then: started again, the log goes on"

# ---- what is published --------------------------------------------------------------------------------------------
log_tpm_verify "$log" --save "$dir/before" > /dev/null
size=$(log_size "$log") words=$(quiet issuerd)
fill "$log"
ctl ticket create > /dev/null
waits issuerd "$words" "$size"
log_tpm_verify "$log" --since "$dir/first" > /dev/null || job_fail "what was published does not verify any more"
room "$log"
goes_on "$dir/before"
ok "no room for what is published: what was there verifies, then the log goes on"

# ---- an operator's word -------------------------------------------------------------------------------------------
act() { "$bin/attest-issuerd-tpm" --config "$dir/issuer.yaml" "$@"; }
log_tpm_verify "$log" --save "$dir/before" > /dev/null
job_stop issuerd
job_stop logtpm
fill "$dir/tpm-state"
cp "$dir/tpm-state/record.json" "$dir/tmp/record"
for what in --new-counter --new-log; do
    fault_refused '[Nn]o space left' "$bin/attest-issuerd-tpm" --config "$dir/issuer.yaml" $what --reason 'a full disk'
    cmp "$dir/tmp/record" "$dir/tpm-state/record.json" || job_fail "$what: the record changed"
done
room "$dir/tpm-state"
ready() { tail -n 1 "$dir/log/logtpm.log" | grep -q 'logtpm.tpm-ready'; }
logtpm_start
wait_for 30 ready || job_fail "a counter that could not be made anew is gone: $(tail -n 1 "$dir/log/logtpm.log")"
job_stop logtpm
act --new-counter --reason 'there is room' > /dev/null
logtpm_start
job_start_issuer
log_decide 1
goes_on "$dir/before"
[ "$(ctl --json audit list --kind logTpm | jq -r '.records[-1].record.detail | fromjson | .reason')" = 'there is room' ] ||
    job_fail "the new counter is not in the log"
ok "--new-counter and --new-log on a full disk: said, and nothing changed"

# ---- a folder that begins on a full disk ---------------------------------------------------------------------------
job_stop issuerd
job_stop logtpm
mkdir -m 700 "$dir/tpm-new"
put_on 64k "$dir/tpm-new"
fill "$dir/tpm-new"
logtpm_make "$dir/tpm2"
{ echo "$plain" && logtpm_conf "$dir/tpm2" "$dir/tpm-new"; } > "$dir/issuer.yaml"
words=$(quiet logtpm)
logtpm_start
wait_for 30 said logtpm "$words"
for _ in 1 2 3; do # room for a file more at a time; an end at each step
    job_stop logtpm KILL
    truncate -s -4k "$dir/tpm-new/ballast"
    logtpm_start
    sleep 1
done
room "$dir/tpm-new"
wait_for 30 ready || job_fail "not ready: $(tail -n 3 "$dir/log/logtpm.log")"
jq -e '.counter >= 1 and .origin == ""' "$dir/tpm-new/record.json" > /dev/null || job_fail "$(cat "$dir/tpm-new/record.json")"
fault_sanitizers
ok "a folder made on a full disk: with room it is whole, and nothing was made twice"
echo "full disks under the log: all held"
