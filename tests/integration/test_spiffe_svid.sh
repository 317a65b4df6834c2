#!/usr/bin/env bash
# FetchX509SVID with real processes (swtpm, keyd, whod, attestd, issuer, spiffed) and gRPC's own Python library: only an
# agent whose entry says "exportable" is given a key, under a profile that allows it; rotation, revocation list and entry
# are pushed; every export stands in the host's log, and no key on a disk.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
spiffe_setup client.py "cryptography, hpack" workload.proto signer.proto health.proto
user=62001 tpm_user=62002 stranger=62003
must() { # must CODE MESSAGE-PATTERN USER: FetchX509SVID ends so, at once
    local code=$1 message=$2 uid=$3
    (client "$uid" svid) > "$dir/tmp/must" 2>&1 || { cat "$dir/tmp/must"; job_fail "svid"; }
    # shellcheck disable=SC2053 # a pattern
    [[ "$(tail -n 1 "$dir/tmp/must" | jq -r '.code + " " + .message')" == "$code "$message ]] ||
        { cat "$dir/tmp/must"; job_fail "expected $code $message"; }
    ! grep -q svids "$dir/tmp/must" || job_fail "a key was handed out"
}
job_make_tpm
job_write_conf
status=0
trap 'status=$?; for one in svid again late; do job_stop $one KILL; done; set +e; (exit $status); job_cleanup' EXIT
spiffe_start_all
entries() { # entries KEY-OF-ALPHA
    printf 'trust_domain: bank.example\nagents:\n' > "$dir/agents.yaml"
    printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: {uid: %s}, key: %s, profile: trading}\n' \
        alpha "$(job_host_id)" $user "$1" beta "$(job_host_id)" $tpm_user tpm >> "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
}
entries tpm
wait_for 60 job_settled alpha
wait_for 60 job_settled beta
wait_for 30 test -S "$socket"

# ---- refusals ----
must PERMISSION_DENIED "no agent's entry fits this process (notAssigned)" $stranger
must PERMISSION_DENIED "*never leaves its store*PKCS#11*attestd.v1.Signer*" $user
must PERMISSION_DENIED "*never leaves its store*" $tpm_user
serial=$(job_serial alpha)
entries exportable
other() { [ "$(job_serial alpha)" != "$serial" ] && job_settled alpha; }
wait_for 60 other
must PERMISSION_DENIED "exportUser: *" $user # this host's keyd gives none away
must PERMISSION_DENIED "*never leaves its store*" $tpm_user
job_stop keyd
job_start_keyd --exporter $service
ok "a stranger, a key in the TPM, an entry without leave, a host without leave: refused, each with its reason"

# ---- the key ----
answered() { # keyd's restart ended the key in its memory: another is made
    rm -f "$dir/tmp/first"
    (client $user svid) > "$dir/tmp/first" 2> "$dir/tmp/first.err" &
    local pid=$! n=0
    while [ ! -s "$dir/tmp/first" ] && [ $n -lt 100 ]; do
        n=$((n + 1))
        sleep 0.1
    done
    kill $pid 2> /dev/null || true
    wait $pid 2> /dev/null || true
    [ "$(head -n 1 "$dir/tmp/first" | jq -r .svids)" = 1 ]
}
wait_for 60 answered
follow svid $user svid
wait_for 30 lines svid 1
[ "$(last svid '[.svids, .id, .uris[0], .fits, .pkcs8, .marked, .life <= 660] | @json')" = \
    '[1,"spiffe://bank.example/agent/alpha","spiffe://bank.example/agent/alpha",true,true,true,true]' ] ||
    { cat "$dir/log/svid.log"; job_fail "not what the standard says"; }
sha_of() { openssl "$1" -in "$2" -outform DER | sha256sum | cut -d' ' -f1; }
last_is svid .bundle "$(sha_of x509 "$dir/issuer/ca/bundle.pem")" || job_fail "another root"
has_crl() { last_is svid '.crl[0]' "$(sha_of crl "$dir/state/host/crl.pem")"; }
wait_for 30 has_crl
must PERMISSION_DENIED "*never leaves its store*" $tpm_user
ok "the key fits the certificate, which says that it can be exported and ends within ten minutes; roots and revocation list"

# ---- pushes ----
key=$(last svid .key) leaf=$(last svid .leaf)
ctl agent rotate alpha > /dev/null
rotated() { [ "$(last svid .key)" != "$key" ] && [ "$(last svid .leaf)" != "$leaf" ] && last_is svid .fits true; }
wait_for 30 rotated
before=$(last svid '.crl[0]') serial=$(job_serial alpha)
ctl cert revoke "$serial" --reason superseded > /dev/null
# Between the certificate that was revoked and the next there may be none: then the stream ends, and a client asks again.
revoked() {
    if [ -n "$(last svid '.code // empty')" ]; then
        : > "$dir/log/svid.log"
        follow svid $user svid
    fi
    [ "$(last svid '.crl[0]')" != "$before" ] && has_crl && other && last_is svid .fits true
}
wait_for 60 revoked
ok "a rotation is pushed with a new key; after a revocation the next certificate comes with the list"

# ---- the records, and the disk ----
noted() { grep -c '"exported"' "$dir/tmp/hostlog"; }
cat "$dir"/state/host/decisions/* > "$dir/tmp/hostlog" 2> /dev/null || job_fail "no host log"
[ "$(noted)" -ge "$(grep -c '"svids": 1' "$dir/log/svid.log")" ] || job_fail "exports without a record"
given=$(grep -c 'event=keyd.exported' "$dir/log/keyd.log")
if [ "$given" -lt "$(grep -c '"svids": 1' "$dir/log/svid.log")" ] || [ "$given" -gt "$(noted)" ]; then
    job_fail "$given keys given away, $(noted) records"
fi
! grep -rqaF "$(printf '\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20')" "$dir/state" "$dir/log" "$dir/run/public" 2> /dev/null ||
    job_fail "a private key on the disk"
ok "$given keys given away, each with a record in the host's log; none in a file"

# ---- while keyd is slow ----
# It is stopped when the record is written and the key is asked for.
records() { cat "$dir"/state/host/decisions/*.jsonl > "$dir/tmp/hostlog" && noted; }
more_records() { [ "$(records)" -gt "$1" ]; }
job_stop svid KILL
halt keyd
before=$(records)
mkfifo "$dir/tmp/go"
PYTHONDONTWRITEBYTECODE=1 setpriv --reuid $user --regid $user --clear-groups \
    /usr/bin/python3 "$stubs/streams.py" late "$socket" < "$dir/tmp/go" > "$dir/log/late.log" 2>&1 &
echo $! > "$dir/late.pid"
exec 8> "$dir/tmp/go"
wait_for 30 more_records "$before"
echo >&8
exec 8>&-
executed() { tr '\0' ' ' < "/proc/$(job_pid late)/cmdline" > "$dir/tmp/cmdline" && grep -q ' after ' "$dir/tmp/cmdline"; }
wait_for 30 executed
sleep 1.2 # for so long who it was is believed
kill -s CONT "$(job_pid keyd)"
wait_for 30 lines late 2
[ "$(tail -n 1 "$dir/log/late.log")" = '{"after": 0, "ended": [7], "over": false}' ] || { cat "$dir/log/late.log"; job_fail "exec"; }
ok "a key that came late is not given to the program that took the connection over by exec"

halt keyd
before=$(records)
(client $user svid) > "$dir/tmp/revoked" 2>&1 &
asker=$!
wait_for 30 more_records "$before"
ctl cert revoke "$(job_serial alpha)" --reason keyCompromise > /dev/null
withdrawn() { [ "$(ctl --json agent show alpha | jq -r .state)" != valid ]; }
wait_for 30 withdrawn
sleep 1
kill -s CONT "$(job_pid keyd)"
wait_for 30 test -s "$dir/tmp/revoked"
sleep 0.2
kill $asker 2> /dev/null || true
[ "$(head -n 1 "$dir/tmp/revoked" | jq -r .code)" = UNAVAILABLE ] || { cat "$dir/tmp/revoked"; job_fail "revoked while keyd was slow"; }
wait_for 60 answered
ok "a key that came after its certificate was revoked is not given"

# ---- the end ----
ctl agent freeze alpha > /dev/null
before=$(records)
must PERMISSION_DENIED "frozen: *" $user
[ "$(records)" = "$before" ] || job_fail "a record of an export that was refused"
ctl agent thaw alpha > /dev/null
wait_for 60 answered
job_stop svid KILL
: > "$dir/log/again.log"
follow again $user svid
wait_for 30 lines again 1
entries tpm
wait_for 30 last_is again .code PERMISSION_DENIED
must PERMISSION_DENIED "*never leaves its store*" $user
wait_for 60 job_settled alpha
ok "frozen: no key; an entry that does not say so any more ends the stream"
for one in svid again; do job_stop $one KILL; done
job_stop spiffed
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "svid: all held"
