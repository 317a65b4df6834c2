#!/usr/bin/env bash
# attestd-spiffed, attestd and attestd-hsmd at the limits of their resources (RLIMIT_NOFILE, RLIMIT_FSIZE), set under them
# while an agent signs over api.sock with a key in the HSM: it signs on, or is told UNAVAILABLE where its signature itself
# needs what is not there; who comes gets an error or waits, nobody ends, what cannot be written fails as a whole, and all
# is well when the limit is gone. tokend and whod: test_token_limits.sh; keyd: test_keyd_limits.sh.
set -euo pipefail
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir, bin and socket come from job.sh and spiffe.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
# shellcheck source=../support/hsm.sh
. "$ATT_SOURCE_DIR/tests/support/hsm.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
command -v prlimit > /dev/null || job_skip "no prlimit"
spiffe_setup client.py cryptography workload.proto signer.proto health.proto
user=62001
job_make_tpm
job_write_conf
status=0
trap 'status=$?; set +e; job_stop signer KILL; (exit $status); job_cleanup' EXIT
spiffe_start_all
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: alpha, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: $user}, key: hsm, profile: trading}
END
ctl entry apply -f "$dir/agents.yaml" > /dev/null
wait_for 60 job_settled alpha
served() { as $user chain > "$dir/tmp/served" 2>&1 && [ "$(tail -n 1 "$dir/tmp/served" | jq -r .id)" = spiffe://bank.example/agent/alpha ]; }
wait_for 30 served
follow signer $user sign-forever
wait_for 30 last_is signer .code OK

alive() { job_alive "$1" || job_fail "$1 ended with $2"; }
signs_on() { # signs_on WHAT: it was told nothing but OK since spiffed's descriptors
    last_is signer .code OK && [ "$(wc -l < "$dir/log/signer.log")" = "$told" ] || { cat "$dir/log/signer.log"; job_fail "a running caller: $1"; }
}
comes_back() { # comes_back WHAT: it was told UNAVAILABLE at most, and signs again
    wait_for 60 last_is signer .code OK
    ! grep -vE '"code": "(OK|UNAVAILABLE)"' "$dir/log/signer.log" || job_fail "a running caller: $1"
    told=$(wc -l < "$dir/log/signer.log")
}
was=
limits() { # limits WHO OPTIONS...: soft ones are its own user's to set
    local uid
    uid=$(awk '/^Uid:/ {print $2}' "/proc/$(job_pid "$1")/status")
    setpriv --reuid "$uid" --regid "$uid" --clear-groups prlimit --pid "$(job_pid "$1")" "${@:2}"
}
limited() { # limited WHO LIMIT VALUE
    was=$(limits "$1" --noheadings --output SOFT "--$2")
    limits "$1" "--$2=$3:"
}
unlimited() { limits "$1" "--$2=$was:"; }
no_more() { # no_more WHO: as many descriptors as it has, none below them free
    local pid n
    pid=$(job_pid "$1")
    n=$(find "/proc/$pid/fd" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n | awk '$1 != NR - 1 {exit} {n = NR} END {print n}')
    limited "$1" nofile "$n"
}
settles() { # settles WHAT: a rotation works again
    again() { ctl agent rotate alpha > "$dir/tmp/rotate" 2>&1; }
    wait_for 90 again || { cat "$dir/tmp/rotate"; job_fail "$1: no rotation after it"; }
    wait_for 60 job_settled alpha
    wait_for 60 hsm_whole || job_fail "$1: the token's keys are not those of the files"
}

# ---- spiffed ----
no_more spiffed
! served || job_fail "a connection without a descriptor: the limit is none, and the test no test"
alive spiffed "no descriptor more"
deaf=$(grep -c event=spiffed.deaf "$dir/log/spiffed.log")
began=$(date +%s)
sleep 3
[ $(($(grep -c event=spiffed.deaf "$dir/log/spiffed.log") - deaf)) -le $(($(date +%s) - began + 1)) ] || job_fail "more than a line a second"
# It copies a descriptor to look at a caller anew: who signs is told to come back, and nothing worse.
unlimited spiffed nofile
comes_back "spiffed with no descriptor more"
wait_for 60 served || { cat "$dir/tmp/served"; job_fail "after spiffed had no descriptors"; }
ok "spiffed, no descriptor more: newcomers are not served, callers get at most UNAVAILABLE, and all are served again"
limited spiffed fsize 0 # its log is a file here
wait_for 60 served || { cat "$dir/tmp/served"; job_fail "spiffed with no byte more in any file"; }
alive spiffed "no byte more in any file"
signs_on "spiffed with no byte more in any file"
unlimited spiffed fsize
ok "spiffed, no byte more in any file: it serves, only its log is silent"

# ---- attestd ----
no_more attestd
! timeout 5 "$bin/attestctl" --socket "$dir/run/control.sock" status > "$dir/tmp/status" 2>&1 ||
    job_fail "attestd answers without a descriptor: the limit is none, and the test no test"
alive attestd "no descriptor more"
signs_on "attestd with no descriptor more"
unlimited attestd nofile
wait_for 60 ctl status
settles "attestd without descriptors"
ok "attestd, no descriptor more: who has connections signs on; then it answers, and a rotation works"
limited attestd fsize 0
before=$(fault_serial_on_disk alpha)
! ctl agent rotate alpha > "$dir/tmp/rotate" 2>&1 || job_fail "a rotation with no byte more in any file"
alive attestd "no byte more in any file"
signs_on "attestd with no byte more in any file"
[ "$(fault_serial_on_disk alpha)" = "$before" ] || job_fail "another certificate with no byte more in any file"
unlimited attestd fsize
settles "attestd with no byte more in any file"
ok "attestd, no byte more in any file: no rotation, the certificate of before; then one"

# ---- hsmd ----
no_more hsmd
alive hsmd "no descriptor more"
sleep 2
unlimited hsmd nofile
comes_back "hsmd with no descriptor more" # SoftHSM opens the token's files for a signature
settles "hsmd without descriptors"
ok "hsmd, no descriptor more: callers get at most UNAVAILABLE, sign again on the same connection, and a key is made"
# Not FSIZE: SoftHSM 2.6.1 empties its token's file before it writes it, and the token is gone for good (by any program).
fault_sanitizers
echo "limits of spiffed, attestd and hsmd: all held"
