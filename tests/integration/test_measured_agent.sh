#!/usr/bin/env bash
# A Python agent by what it is made of: interpreter, script, package, model and prompt, listed in a
# manifest. The main job with real processes: certificate, decision record, refusals at the host (at
# start and at renewal) and at the issuer, each named; what is in service is taken away.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
command -v setpriv > /dev/null || job_skip "no setpriv"
job_setup
ok() { echo "ok: $*"; }
chmod 755 "$dir"
caller=
trap 'status=$?; set +e; [ -z "$caller" ] || kill -KILL "$caller"; (exit $status); job_cleanup' EXIT

agent=quant
home=$dir/agent
mkdir -p "$home/lib/risk" "$home/model"
cat > "$home/agent.py" << 'END'
import sys
sys.path.insert(0, sys.argv[1] + "/lib")
import risk, time
time.sleep(600)
END
echo 'LIMIT = 3' > "$home/lib/risk/__init__.py"
head -c 300000 /dev/zero > "$home/model/weights.bin"
echo 'be careful' > "$home/prompt.txt"
chmod 600 "$home/model/weights.bin" # for whod alone to read
(umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/operator.pem" 2> /dev/null)
(umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/other.pem" 2> /dev/null)
key_id() { openssl pkey -in "$1" -pubout -outform DER | sha256sum | cut -d' ' -f1; }
sha() { sha256sum "$1" | cut -d' ' -f1; }
make_manifest() { # KEY
    "$bin/attestctl" manifest create --no-verity executable="$(readlink -f /usr/bin/python3)" script="$home/agent.py" \
        package="$home/lib" model="$home/model" prompt="$home/prompt.txt" --key "$1" --out "$home/manifest.json" 2> "$dir/tmp/made"
    root=$(jq -r .root "$home/manifest.json")
}
make_manifest "$dir/operator.pem"
chmod -R go+rX "$home/agent.py" "$home/lib"

entry() { # MEASURED
    cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - name: $agent
    owner: trading-platform@bank.example
    hosts: [ "ek:$(job_host_id)" ]
    workload: { uid: 61001 }
    measured: $1
    key: tpm
    profile: trading
END
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply"
}
start_agent() {
    [ -z "$caller" ] || kill -KILL "$caller" 2> /dev/null || true
    setpriv --reuid 61001 --regid 61001 --clear-groups env PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 "${1:-$home/agent.py}" "$home" < /dev/null > /dev/null 2>&1 &
    caller=$!
    disown "$caller"
    wait_for 20 sh -c "readlink /proc/$caller/exe | grep -q python"
}
identify() { /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/ask.py" "$dir/run/workload.sock" identify "$caller" > "$dir/tmp/answer" || true; }
granted() {
    identify
    [ "$(jq -r .agent "$dir/tmp/answer")" = "$agent" ] || job_fail "not granted: $(cat "$dir/tmp/answer")"
}
not_granted() { # REASON WORDS...: in the message
    local reason=$1 word
    shift
    identify
    [ "$(jq -r .reason "$dir/tmp/answer")" = "$reason" ] || job_fail "expected $reason: $(cat "$dir/tmp/answer")"
    for word in "$@"; do
        grep -qF -- "$word" "$dir/tmp/answer" || job_fail "the message does not say $word: $(cat "$dir/tmp/answer")"
    done
}
rotated() { ctl agent rotate "$agent" > "$dir/tmp/rotate" 2>&1; }
not_rotated() { # REASON WORDS...
    local reason=$1 word
    shift
    ! rotated || job_fail "renewed, expected $reason"
    ctl --json agent show "$agent" > "$dir/tmp/show"
    [ "$(jq -r .lastError.reason "$dir/tmp/show")" = "$reason" ] || job_fail "expected $reason: $(jq -c .lastError "$dir/tmp/show")"
    for word in "$@"; do
        jq -r .lastError.message "$dir/tmp/show" | grep -qF -- "$word" || job_fail "does not say $word: $(jq -c .lastError "$dir/tmp/show")"
    done
}
withdrawn() { [ ! -e "$dir/state/host/agents/$agent/chain.pem" ]; }

job_make_tpm
job_write_conf
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml" --client root
wait_for 10 test -S "$dir/run/whod.sock"
job_start_all
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null

# ---- an entry that would allow anything is none ----
! entry "{ manifest: $home/manifest.json }" 2> "$dir/tmp/err" || job_fail "an entry without roots and signers"
grep -q 'expected roots or signers' "$dir/tmp/err" || job_fail "$(cat "$dir/tmp/err")"

# ---- good: certificate, extension, record, start ----
entry "{ manifest: $home/manifest.json, signers: [ $(key_id "$dir/operator.pem") ], reread_s: 0 }"
wait_for 60 job_serial "$agent"
ctl --json cert show "$agent" | jq -e --arg root "$root" '.measuredLevel == 1 and .manifestRoot == $root' > /dev/null ||
    job_fail "certificate: $(ctl --json cert show "$agent")"
job_check_chain "$agent"
ctl --json audit list > "$dir/tmp/audit"
grep -q "\"manifestRoot\": *\"$root\"" "$dir/tmp/audit" || ctl --json audit why "$(job_serial "$agent")" | grep -q "$root" ||
    job_fail "no decision record names the manifest"
start_agent
granted
ok "measured: certificate and record name the manifest's root and level 1; the agent is granted"

# ---- it runs something else ----
cp "$home/agent.py" "$home/other.py"
echo '# and more' >> "$home/other.py"
start_agent "$home/other.py"
not_granted modelDigest "runs script" "$(sha "$home/other.py")"
start_agent
granted

# ---- a changed file: refused at start and at renewal, by name and both digests; out of service ----
was=$(sha "$home/model/weights.bin")
cp -p "$home/model/weights.bin" "$dir/weights"
printf 'x' | dd of="$home/model/weights.bin" bs=1 seek=5000 conv=notrunc status=none
is=$(sha "$home/model/weights.bin")
key=$(ctl --json agent show "$agent" | jq -r .keyId)
[ -e "$dir/state/keyd/agents/$key.pem" ] || job_fail "keyd has no key $key: $(ls "$dir/state/keyd/agents")"
not_granted modelDigest "$home/model/weights.bin" "$was" "$is"
not_rotated modelDigest "$home/model/weights.bin" "$was" "$is"
wait_for 20 withdrawn
key_gone() { [ ! -e "$dir/state/keyd/agents/$key.pem" ]; }
wait_for 20 key_gone # who held a handle of it signs no more
wait_for 20 grep -q 'event=agent.withdrawn' "$dir/log/attestd.log" || job_fail "nothing in the log"
cp -p "$dir/weights" "$home/model/weights.bin"
wait_for 60 rotated
granted
ok "a changed model: refused at start and renewal, its certificate taken away; back with the file"

# ---- others, at renewal ----
touch "$home/lib/risk/evil.py"
not_rotated modelDigest "$home/lib/risk/evil.py" "not listed"
rm "$home/lib/risk/evil.py"
mv "$home/prompt.txt" "$home/prompt"
not_rotated modelDigest "$home/prompt.txt" "found nothing"
ln -s prompt "$home/prompt.txt"
not_rotated modelDigest "$home/prompt.txt" "a symbolic link"
rm "$home/prompt.txt"
mv "$home/prompt" "$home/prompt.txt"
mv "$home/manifest.json" "$home/m.json"
not_rotated manifestMissing "$home/manifest.json"
mv "$home/m.json" "$home/manifest.json"
chmod 600 "$home/manifest.json" # whod shows nobody what not everybody may read
not_rotated manifestMissing "everybody may read"
chmod 644 "$home/manifest.json"
wait_for 60 rotated
ok "an extra file, a missing one, a link in its place, no manifest, a private one"

# ---- manifests that the entry does not allow ----
cp "$home/manifest.json" "$dir/good.json"
sed -i 's/"size":300000/"size":300001/' "$home/manifest.json"
not_rotated manifestRoot "what it lists has root"
make_manifest "$dir/other.pem"
not_rotated manifestSignature "$(key_id "$dir/other.pem")" "$(key_id "$dir/operator.pem")"
cp "$dir/good.json" "$home/manifest.json"
wait_for 60 rotated
ok "edited, and signed by another"

# ---- another root than the entry's; a level that is not reached: the issuer's refusal ----
entry "{ manifest: $home/manifest.json, roots: [ $was ] }"
wait_for 30 sh -c "! $bin/attestctl --socket $dir/run/control.sock agent rotate $agent > /dev/null 2>&1"
not_rotated manifestRoot "$was"
entry "{ manifest: $home/manifest.json, roots: [ $(jq -r .root "$home/manifest.json") ], level: 2 }"
wait_for 30 sh -c "$bin/attestctl --socket $dir/run/control.sock --json agent rotate $agent > /dev/null 2>&1;
    [ \"\$($bin/attestctl --socket $dir/run/control.sock --json agent show $agent | jq -r .lastError.reason)\" = measuredLevel ]"
not_rotated measuredLevel "level 2 is demanded, level 1 is reached"
wait_for 20 grep -q 'event=order.refused .*reason=measuredLevel' "$dir/log/issuerd.log" || job_fail "the issuer's log"
ok "another root; level 2 without IMA's list: refused by the issuer"
