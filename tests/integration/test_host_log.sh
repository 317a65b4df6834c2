#!/usr/bin/env bash
# The host's own log of grants and refusals: its head rides in the quotes, the issuer's log holds it, and attestctl
# finds every way of falsifying the host's file against that.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "a caller of another user needs root"
command -v setpriv > /dev/null || job_skip "no setpriv"
job_setup
ok() { echo "ok: $*"; }
decisions=$dir/state/host/decisions
key=$dir/issuer/ca/log.vkey
job_make_tpm
job_write_conf
chmod 755 "$dir"
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
job_start_all
job_enrolled_with a

records() { cat "$decisions"/*.jsonl | jq -c "select(.kind == \"$1\")"; }
last_issue() { ctl --json audit list --kind issue --limit 1000 | jq '.records[-1].seq'; }
# rotated NAME: one more certificate, and in $dir/NAME.proof the decision's proof
published() { ctl audit prove "$1" > "$dir/tmp/proof"; }
rotated() {
    ctl agent rotate a > /dev/null
    wait_for 30 published "$(last_issue)"
    cp "$dir/tmp/proof" "$dir/$1.proof"
}
verify() { ctl hostlog verify "$@" --key "$key"; }
refused() { # refused REASON COMMAND...
    local got=0 reason=$1
    shift
    "$@" > "$dir/tmp/refused" 2>&1 || got=$?
    [ "$got" = 1 ] && grep -q "$reason" "$dir/tmp/refused" || { cat "$dir/tmp/refused"; job_fail "$*: exit $got, expected $reason"; }
}

# ---- what is in it ------------------------------------------------------------------------------------------------
identify() { /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/ask.py" "$dir/run/workload.sock" identify "$1" > "$dir/tmp/answer" || true; }
setpriv --reuid 1001 --regid 1001 --clear-groups sleep 300 < /dev/null > /dev/null 2>&1 &
caller=$!
disown "$caller"
trap 'status=$?; set +e; kill "$caller" 2> /dev/null; (exit $status); job_cleanup' EXIT
is_the_caller() { [ "$(stat -c %u "/proc/$caller")" = 1001 ] && [ "$(cat "/proc/$caller/comm")" = sleep ]; }
wait_for 30 is_the_caller
granted() { identify "$caller" && [ "$(jq -r .agent "$dir/tmp/answer")" = a ]; }
wait_for 30 granted
identify $$
[ "$(jq -r .reason "$dir/tmp/answer")" = notAssigned ] || { cat "$dir/tmp/answer"; job_fail "no refusal"; }
ctl agent freeze a > /dev/null
ctl agent thaw a > /dev/null
rotated first
[ "$(stat -c %a "$decisions")" = 700 ] || job_fail "mode of the log's folder"
records granted | jq -es --arg pid "$caller" '.[-1] | .agent == "a" and .uid == 1001 and (.pid | tostring) == $pid' > /dev/null || job_fail "the grant"
records refused | jq -es '.[-1] | .reason == "notAssigned" and .uid == 0 and (.exeSha256 | length) == 64' > /dev/null || job_fail "the refusal"
records frozen | jq -es '.[-1] | .agent == "a" and .by == 0' > /dev/null || job_fail "the freeze"
records thawed | jq -es 'length == 1' > /dev/null || job_fail "the thaw"
records certificate | jq -es --arg s "$(job_serial a)" '.[-1].serial == $s' > /dev/null || job_fail "the certificate"
ok "grants, refusals, freezes, certificates: one chained record each"

# ---- anchored -------------------------------------------------------------------------------------------------------
rotated second
jq -er '.record | fromjson | .hostLogHead | select(length == 64)' "$dir/second.proof" > "$dir/head"
verify "$decisions" "$dir/first.proof" "$dir/second.proof" > "$dir/tmp/out"
grep -q 'follow one another' "$dir/tmp/out" && [ "$(grep -c 'is held by decision' "$dir/tmp/out")" = 2 ] || { cat "$dir/tmp/out"; job_fail verify; }
ctl hostlog verify "$decisions" --head "$(cat "$dir/head")" > /dev/null
# After a kill: what was quoted is on disk.
job_stop attestd KILL
verify "$decisions" "$dir/first.proof" "$dir/second.proof" > /dev/null
job_start_attestd
rotated third
verify "$decisions" "$dir"/{first,second,third}.proof > /dev/null
ok "the heads that were quoted are held by the issuer's log, and are the host's log's, also after a kill"

# ---- falsified ------------------------------------------------------------------------------------------------------
falsified() { # falsified REASON SHELL [PROOF...]: in a copy; $f is the file
    local reason=$1 how=$2
    shift 2
    rm -rf "$dir/copy"
    cp -r "$decisions" "$dir/copy"
    (cd "$dir/copy" && f=$(echo ./*.jsonl) && export f && eval "$how")
    refused "$reason" verify "$dir/copy" "$@"
}
falsified hostLogEdited 'sed -i "/notAssigned/s/\"uid\":0/\"uid\":1001/" $f' "$dir/third.proof"
falsified hostLogTruncated 'sed -i "/notAssigned/d" $f' "$dir/third.proof"
falsified hostLogTruncated 'sed -i 1d $f' "$dir/third.proof"
falsified hostLogRecord 'echo "not a record" >> $f' "$dir/third.proof"
falsified hostLogTruncated 'head -n 2 $f > g && mv g $f' "$dir/third.proof"
# Written anew without the refusal, chained as it must be, and going on after what was quoted.
cat > "$dir/tmp/forge.py" << 'END'
import hashlib, json, sys, time
prev, seq, out = "0" * 64, 0, []
lines = [json.loads(l) for l in open(sys.argv[1])]
lines.append(dict(lines[-1], at=int(time.time()) + 60))
for r in lines:
    if r["kind"] == "refused": continue
    seq += 1
    r["seq"], r["prev"] = seq, prev
    text = json.dumps(r, separators=(",", ":"))
    prev = hashlib.sha256(("attestd-hostlog/1" + text).encode()).hexdigest()
    out.append(text)
open(sys.argv[1], "w").write("\n".join(out) + "\n")
END
falsified hostLogHead '/usr/bin/python3 "$dir/tmp/forge.py" $f' "$dir/first.proof"
(cd "$dir/copy" && ctl hostlog verify . > /dev/null) || job_fail "the forged log does not hold together by itself"
# Proofs that are none, of no host's head, or by another key.
jq '.record |= sub("hostLogHead"; "hostLogHood")' "$dir/first.proof" > "$dir/bent"
refused proofRecord verify "$decisions" "$dir/bent"
jq '.record = null | .salt = null' "$dir/first.proof" > "$dir/bent"
refused hostLogAnchor verify "$decisions" "$dir/bent"
ctl audit prove 1 > "$dir/other.proof"
refused hostLogAnchor verify "$decisions" "$dir/other.proof"
got=0
ctl hostlog verify "$decisions" "$dir/first.proof" > "$dir/tmp/out" 2>&1 || got=$?
[ "$got" = 2 ] || job_fail "proofs without a key: exit $got"
ok "edited, truncated, rewritten: attestctl names each"

# ---- rolled back: the host quoted an earlier head after a later one ----------------------------------------------------
job_stop attestd
cp -r "$decisions" "$dir/older"
job_start_attestd
rotated fourth
rotated fifth
job_stop attestd
cp -r "$decisions" "$dir/newer"
rm -r "$decisions"
cp -r "$dir/older" "$decisions"
job_start_attestd
rotated sixth
job_stop attestd
refused hostLogRolledBack verify "$dir/newer" "$dir/fifth.proof" "$dir/sixth.proof"
ok "a log that was put back between two quotes"

# ---- a file that does not hold together is kept aside, and the new one says why -----------------------------------------
sed -i '2s/"kind":"[a-z]*"/"kind":"granted"/' "$decisions"/*.jsonl
job_start_attestd
rotated seventh
[ "$(find "$decisions" -name '*.bad' | wc -l)" = 1 ] || job_fail "the edited log is not kept"
records begin | jq -es '.[0].reason == "hostLogEdited"' > /dev/null || job_fail "the new log does not say why it begins"
verify "$decisions" "$dir/seventh.proof" > /dev/null
refused hostLog verify "$decisions" "$dir/sixth.proof"
ok "an edited log is kept aside; the next head is the new one's"
job_stop attestd
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
