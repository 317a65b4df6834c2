#!/usr/bin/env bash
# Certificates with their private key by SDS, with real processes (swtpm, keyd, whod, attestd, issuer, spiffed) and a client
# that follows the rules of xDS: who is refused and why, one export for a message, pushes at a rotation, the limit of
# exports, no copy of a key left in spiffed; a caller that executes another program; kills and a full disk amid an export.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "skipped: processes of several users need root"; exit 77; }
if [ -z "${SDS_IN_NAMESPACE:-}" ]; then # the disk that is full is a small one of this test's own
    unshare -m true 2> /dev/null || { echo "skipped: no mount namespaces here"; exit 77; }
    SDS_IN_NAMESPACE=yes exec unshare -m --propagation private "$0" "$@"
fi
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
chmod 755 "$dir" "$dir/tmp" "$dir/run"
ok() { echo "ok: $*"; }
user=62001 tpm_user=62002 stranger=62003 other_user=62004 service=62010
# shellcheck source=../support/spiffe/sds.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe/sds.sh"
sds_setup
cp "$ATT_SOURCE_DIR/tests/support/spiffe/streams.py" "$stubs/"
chmod a+r "$stubs/streams.py"

job_start_keyd() { # job_start_keyd [OPTION...]
    job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service "$@"
}
job_start_attestd() {
    job_start attestd "$bin/attestd" --config "$dir/attestd.yaml" --spiffed-user $service
    wait_for 30 ctl status
}
start_spiffed() {
    job_start spiffed setpriv --reuid $service --regid $service --groups 0 "$bin/attestd-spiffed" --config "$dir/attestd.yaml" \
        --attestd-user 0 --whod-user 0 --keyd-user 0
    wait_for 30 test -S "$socket"
}
mkdir "$dir/state"
trap 'status=$?; for name in stream exec spiffed attestd keyd; do job_stop $name KILL 2> /dev/null; done
    umount "$dir/state" 2> /dev/null; set +e; (exit $status); job_cleanup' EXIT
mount -t tmpfs -o size=8m,mode=755 tmpfs "$dir/state" || job_skip "no tmpfs"
job_make_tpm
job_write_conf
install -d -o $service "$dir/run/public"
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml" --client 0 --client $service
job_start_all
chmod 644 "$dir/attestd.yaml"
start_spiffed
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
entries() { # entries KEY-OF-ALPHA [UID-OF-ALPHA]
    printf 'trust_domain: bank.example\nagents:\n' > "$dir/agents.yaml"
    printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: {uid: %s}, key: %s, profile: trading}\n' \
        alpha "$(job_host_id)" "${2:-$user}" "$1" beta "$(job_host_id)" $tpm_user tpm \
        gamma "$(job_host_id)" $other_user exportable >> "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
}
other() { [ "$(job_serial alpha)" != "$serial" ] && job_settled alpha; }
given() { grep -c 'event=keyd.exported.*alpha' "$dir/log/keyd.log" || true; }
records() { cat "$dir"/state/host/decisions/* | grep '"exported"' | grep -c '"alpha"' || true; }

# ---- refusals ----
stays="the key of this agent never leaves its store*PKCS#11*attestd.v1.Signer*"
entries tpm
for name in alpha beta gamma; do
    wait_for 60 job_settled $name
done
refused PERMISSION_DENIED "no agent's entry fits this process (notAssigned)" $stranger fetch default
refused PERMISSION_DENIED "$stays" $user fetch default
refused PERMISSION_DENIED "$stays" $user stream ROOTCA default < /dev/null
refused PERMISSION_DENIED "$stays" $tpm_user fetch spiffe://bank.example/agent/beta
serial=$(job_serial alpha)
entries exportable
wait_for 60 other
refused PERMISSION_DENIED "exportUser: *" $user fetch default # this host's keyd gives none away
refused INVALID_ARGUMENT "resource_names: default, *" $user fetch spiffe://bank.example/agent/beta
refused PERMISSION_DENIED "$stays" $tpm_user fetch default
[ "$(given)" = 0 ] || job_fail "a key was given away"
serial=$(job_serial alpha)
job_stop keyd
job_start_keyd --exporter $service
ok "a stranger, a key in the TPM, an entry without leave, a host without leave, another's SPIFFE ID: refused, each with its reason"

# ---- the certificate and its key ----
wait_for 60 other # keyd's restart ended the keys in its memory: others are made
answered() { as "$1" fetch default > "$dir/tmp/fetch" 2> /dev/null && [ "$(jq -r .secrets.default.fits "$dir/tmp/fetch")" = true ]; }
wait_for 60 answered $user
leaf_of() { openssl x509 -in "$dir/state/host/agents/$1/chain.pem" -outform DER | sha256sum | cut -d' ' -f1; }
must "tls_certificate $(leaf_of alpha) true true $(grep -c BEGIN "$dir/state/host/agents/alpha/chain.pem")" \
    '.secrets.default | "\(.kind) \(.leaf) \(.fits) \(.pkcs8) \(.chain)"' $user fetch default
must "true" '(.secrets | .default == .["spiffe://bank.example/agent/alpha"]) and (.secrets.ROOTCA.roots == 1)' \
    $user fetch default ROOTCA spiffe://bank.example/agent/alpha
refused PERMISSION_DENIED "$stays" $tpm_user fetch default
ok "FetchSecrets: chain and PKCS #8 key in PEM, which fit, under both names and beside the roots"

# ---- one export for a message ----
before=$(given)
follow default ROOTCA
wait_for 30 count 1
for _ in 1 2 3; do
    say ack
done
say nack "it will not do"
say stale ROOTCA
say ack
[ "$(given)" = $((before + 1)) ] || job_fail "$(given) exports after $before, for one response"
[ "$(records)" -ge "$(given)" ] || job_fail "an export without a record"
version=$(last .version) key=$(last .secrets.default.key)
say names default
wait_for 30 count 2
[ "$(given)" = $((before + 2)) ] || job_fail "$(given) exports after $before, for two responses"
[ "$(last .secrets.default.key)" = "$key" ] && [ "$(last .version)" != "$version" ] || job_fail "other names: $(cat "$log")"
ok "ACKs, a NACK and a stale nonce cost no export; other names are another version, and one export"

# ---- rotations are pushed ----
rotations() { count "$1" && [ "$(last .secrets.default.leaf)" = "$(leaf_of alpha)" ]; }
best=100000
for n in 3 4 5; do
    version=$(last .version) key=$(last .secrets.default.key)
    ctl agent rotate alpha > /dev/null
    wait_for 30 rotations $n
    [ "$(last .version)" != "$version" ] && [ "$(last .secrets.default.key)" != "$key" ] && [ "$(last .secrets.default.fits)" = true ] ||
        job_fail "a rotation: $(cat "$log")"
    late=$(($(last .came) - $(stat -c %.3Y "$dir/state/host/agents/alpha" | tr -d .)))
    echo "a rotation: $late ms after it was installed"
    [ "$late" -lt 5000 ] || job_fail "the push came $late ms after the certificate"
    [ "$late" -ge $best ] || best=$late
    wait_for 60 job_settled alpha
    say old # an answer to the response before: as if it had not come
    say ack
done
[ "$best" -lt 1000 ] || job_fail "no push came within a second; the best after $best ms"
count 5 || job_fail "an answer to an old version is answered: $(cat "$log")"
[ "$(given)" = $((before + 5)) ] || job_fail "$(given) exports after $before, for five responses"
ok "three rotations: each is pushed with the new key, the best after $best ms; an ACK of the version before is stale"

# ---- what is left in spiffed's memory ----
as $user key default > "$dir/tmp/key.pem"
openssl pkey -in "$dir/tmp/key.pem" -noout || job_fail "no key"
wiped() { "$ATT_SOURCE_DIR/tests/support/spiffe/memory.py" "$(job_pid spiffed)" < "$dir/tmp/key.pem" > "$dir/tmp/memory" 2>&1; }
wait_for 10 wiped || job_fail "a key is left in spiffed: $(cat "$dir/tmp/memory")"
# shellcheck disable=SC2034 # it is to be here
held=$(cat "$dir/tmp/key.pem")
! "$ATT_SOURCE_DIR/tests/support/spiffe/memory.py" $$ < "$dir/tmp/key.pem" > "$dir/tmp/held" 2>&1 || job_fail "not found where it is: $(cat "$dir/tmp/held")"
unset held
rm "$dir/tmp/key.pem"
ok "of a key that is in force nothing is left in spiffed ($(cat "$dir/tmp/memory")), while where one is it is found"

# ---- spiffed killed amid a stream, and a client that comes again ----
version=$(last .version)
job_stop spiffed KILL
wait_for 30 code UNAVAILABLE
exec 8>&-
start_spiffed
wait_for 60 answered $user
follow "version=$version" default
wait_for 30 count 1
[ "$(last .version)" = "$version" ] && [ "$(last .secrets.default.leaf)" = "$(leaf_of alpha)" ] || job_fail "after a restart: $version, $(cat "$log")"
say ack
ok "spiffed killed amid a stream: UNAVAILABLE; who comes again with its version finds the same one"

# ---- another program by exec ----
job_start exec setpriv --reuid $user --regid $user --clear-groups /usr/bin/python3 "$stubs/streams.py" exec "$socket" default
executed() { tr '\0' ' ' < "/proc/$(job_pid exec)/cmdline" > "$dir/tmp/cmdline" && grep -q ' after ' "$dir/tmp/cmdline"; }
wait_for 30 executed
[ "$(head -n 1 "$dir/log/exec.log")" = '{"answered": 1}' ] || job_fail "$(cat "$dir/log/exec.log")"
before=$(given)
ctl agent rotate alpha > /dev/null
wait_for 30 count 2
over() { [ "$(wc -l < "$dir/log/exec.log")" = 2 ]; }
wait_for 30 over
[ "$(tail -n 1 "$dir/log/exec.log")" = '{"after": 0, "ended": [7], "over": false}' ] || job_fail "exec: $(cat "$dir/log/exec.log")"
[ "$(given)" = $((before + 1)) ] || job_fail "$(given) exports after $before: the other program's stream has cost one"
wait_for 60 job_settled alpha
say ack
ok "who executes another program gets nothing more: PERMISSION_DENIED at the next push, and no key leaves keyd for it"

# ---- kills amid an export ----
asked() { [ "$(records)" -gt "$noted" ]; }
noted=$(records)
kill -STOP "$(job_pid keyd)"
as $user fetch default > "$dir/tmp/amid" 2>&1 &
waiting=$!
wait_for 30 asked # attestd has said yes; keyd does not answer
job_stop spiffed KILL
wait $waiting || true
[ "$(jq -r .code "$dir/tmp/amid")" = UNAVAILABLE ] || job_fail "spiffed killed: $(cat "$dir/tmp/amid")"
kill -CONT "$(job_pid keyd)"
exec 8>&-
start_spiffed
wait_for 60 answered $user
follow default
wait_for 30 count 1
key=$(last .secrets.default.key)
noted=$(records)
kill -STOP "$(job_pid keyd)"
as $user fetch default > "$dir/tmp/amid" 2>&1 &
waiting=$!
wait_for 30 asked
serial=$(job_serial alpha)
kill -KILL "$(job_pid keyd)"
wait $waiting || true
[ "$(jq -r .code "$dir/tmp/amid")" = UNAVAILABLE ] || job_fail "keyd killed: $(cat "$dir/tmp/amid")"
job_stop keyd KILL
job_start_keyd --exporter $service
wait_for 60 other
wait_for 30 code PERMISSION_DENIED # its key ended with keyd: for a moment no certificate is in force
[[ "$(jq -r 'select(.code) | .message' "$log")" == noCertificate:* ]] || job_fail "after keyd's end: $(cat "$log")"
exec 8>&-
wait_for 60 answered $user
follow default
wait_for 30 count 1
[ "$(last .secrets.default.key)" != "$key" ] && [ "$(last .secrets.default.fits)" = true ] || job_fail "after keyd's end: $(cat "$log")"
say ack
kill -STOP "$(job_pid attestd)"
say names default ROOTCA # due, and attestd does not answer
sleep 1
job_stop attestd KILL
job_start_attestd
wait_for 60 rotations 2
[ "$(last .names)" = ROOTCA,default ] || job_fail "after attestd's end: $(cat "$log")"
[ -z "$(jq -r 'select(.code) | .code' "$log")" ] || job_fail "the stream ended: $(cat "$log")"
say ack
ok "spiffed, keyd, attestd killed amid an export: UNAVAILABLE for who has nothing, afterwards the key that is then in force"

# ---- a full disk: no record, no key ----
wait_for 60 job_settled alpha
fill() { # not a byte more, nor one in place of what goes
    dd if=/dev/zero of="$dir/state/ballast" bs=4k 2> /dev/null || true
    while printf x 2> /dev/null >> "$dir/state/ballast"; do :; done
}
before=$(given)
fill
full() { # pages of files that are there may still have room
    as $user fetch default > "$dir/tmp/full" 2>&1
    [ "$(jq -r '.code // empty' "$dir/tmp/full")" = UNAVAILABLE ]
}
wait_for 60 full || job_fail "a full disk: $(cat "$dir/tmp/full")"
[[ "$(jq -r .message "$dir/tmp/full")" == hostLog:* ]] || job_fail "a full disk: $(cat "$dir/tmp/full")"
before=$(given)
refused UNAVAILABLE "hostLog: *" $user fetch default
say names default # due, and may not be had
sleep 1
count 2 || job_fail "a key without a record: $(cat "$log")"
[ "$(given)" = "$before" ] || job_fail "$(given) exports, $before before the disk was full"
[ -z "$(jq -r 'select(.code) | .code' "$log")" ] || job_fail "the stream ended: $(cat "$log")"
rm "$dir/state/ballast"
wait_for 60 rotations 3
[ "$(records)" -ge "$(given)" ] || job_fail "an export without a record"
ok "a full disk: no record, no key (hostLog); a stream has its answer when there is room again"

# ---- the limit ----
before=$(given)
began=$(date +%s%3N)
as $user burst 300 default > "$dir/tmp/burst" 2> "$dir/tmp/burst.err" || job_fail "$(cat "$dir/tmp/burst.err")"
taken=$(($(date +%s%3N) - began))
cat "$dir/tmp/burst"
fine=$(jq -r '.ends.OK // 0' "$dir/tmp/burst") much=$(jq -r '[.ends | to_entries[] | select(.key | startswith("UNAVAILABLE exportRate: ")) | .value] | add // 0' "$dir/tmp/burst")
[ $((fine + much)) = 300 ] && [ "$much" -gt 0 ] && [ "$fine" -ge 50 ] || job_fail "300 at once: $(cat "$dir/tmp/burst")"
[ "$fine" -le $((102 + taken / 20)) ] || job_fail "$fine keys in $taken ms"
[ $(($(given) - before)) = "$fine" ] || job_fail "$(given) exports after $before, $fine answers"
must true .secrets.default.fits $other_user fetch default
say names default ROOTCA # a stream waits for its turn
wait_for 30 rotations 4
grep 'event=spiffed.limit' "$dir/log/spiffed.log" | grep -q "uid=$user.*keys too fast" || job_fail "no line about the limit"
ok "300 requests at once: $fine keys in $taken ms, $much refused (exportRate); another user has its own, a stream waits"

# ---- the end ----
ctl agent freeze alpha > /dev/null
refused PERMISSION_DENIED "frozen: *" $user fetch default
[ -z "$(jq -r 'select(.code) | .code' "$log")" ] || job_fail "the stream ended: $(cat "$log")"
say names default
wait_for 30 code PERMISSION_DENIED
exec 8>&-
ctl agent thaw alpha > /dev/null
wait_for 60 answered $user
follow default
wait_for 30 count 1
entries tpm
wait_for 30 code PERMISSION_DENIED
exec 8>&-
refused PERMISSION_DENIED "$stays" $user fetch default
wait_for 60 job_settled alpha
entries exportable
wait_for 60 answered $user
follow default
wait_for 30 count 1
entries exportable 62009
wait_for 30 code PERMISSION_DENIED
exec 8>&-
! grep -rqaF "$(printf '\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20')" "$dir/state" "$dir/log" "$dir/run/public" ||
    job_fail "a private key on the disk"
! grep -rqaF "BEGIN PRIVATE KEY" "$dir/state" "$dir/log" "$dir/run/public" || job_fail "a private key on the disk"
ok "frozen: no key; an entry that says so no more, or fits no more, ends the stream; no key in a file"
job_stop spiffed
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "sds certificates: all held"
