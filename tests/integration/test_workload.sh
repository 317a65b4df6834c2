#!/usr/bin/env bash
# Which agent is a caller? The real whod and attestd, with real processes: user × executable × script
# × manifest, refusals first; what happens to a caller that calls exec or ends; rates; whod away;
# attestd started while the issuer is away.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
command -v setpriv > /dev/null || job_skip "no setpriv"
job_setup
ok() { echo "ok: $*"; }
chmod 755 "$dir"

callers=()
end_callers() {
    local pid
    for pid in ${callers[@]+"${callers[@]}"}; do
        kill -KILL "$pid" 2> /dev/null || true
    done
    callers=()
}
trap 'status=$?; set +e; end_callers; (exit $status); job_cleanup' EXIT

# caller UID COMMAND...: starts it as that user; pid in $caller
caller() {
    local uid=$1
    shift
    setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@" < /dev/null > /dev/null 2>&1 &
    caller=$!
    disown "$caller"
    callers+=("$caller")
    local n=0
    # until it is the program itself, not the shell or setpriv
    until [ "$(stat -c %u "/proc/$caller" 2> /dev/null)" = "$uid" ] &&
        ! readlink "/proc/$caller/exe" | grep -qE '/(bash|setpriv)$'; do
        n=$((n + 1))
        [ "$n" -lt 6000 ] || job_fail "caller does not start: $*"
        sleep 0.02
    done
}

ask() { /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/ask.py" "$dir/run/$1.sock" "${@:2}"; }
identify() { ask workload identify "$@" > "$dir/tmp/answer" || true; }
is_agent() { # NAME PID
    identify "$2"
    [ "$(jq -r .agent "$dir/tmp/answer")" = "$1" ] || job_fail "expected agent $1 for $(tr '\0' ' ' < "/proc/$2/cmdline"): $(cat "$dir/tmp/answer")"
}
is_refused() { # REASON PID [words in the message]
    identify "$2"
    [ "$(jq -r .reason "$dir/tmp/answer")" = "$1" ] || job_fail "expected refusal $1: $(cat "$dir/tmp/answer")"
    grep -q -- "${3:-}" "$dir/tmp/answer" || job_fail "the message does not say $3: $(cat "$dir/tmp/answer")"
}

# ---- programs, scripts, a manifest ----
mkdir "$dir/opt"
sleep=$(readlink -f "$(command -v sleep)")
python=$(readlink -f /usr/bin/python3)
cp "$sleep" "$dir/opt/agent"
cp "$sleep" "$dir/opt/other"
printf '\n' >> "$dir/opt/other"
echo 'import time; time.sleep(600)' > "$dir/opt/good.py"
echo 'import time; time.sleep(601)' > "$dir/opt/bad.py"
echo '{"model": 1}' > "$dir/opt/manifest.json"
chmod -R a+rX "$dir/opt"
sha() { sha256sum "$1" | cut -d' ' -f1; }

start_whod() {
    job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
    wait_for 10 whod_answers
}
whod_answers() { ask whod who $$; } # the socket's file may be that of the one before
apply() {
    {
        echo "trust_domain: bank.example"
        echo "agents:"
        sed "s/HOST/$(job_host_id)/; s/^/  /"
    } > "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2> "$dir/tmp/warnings"
}
entry() { # NAME WORKLOAD
    printf -- '- {name: %s, owner: "x@bank.example", hosts: ["ek:HOST"], workload: %s, key: tpm, profile: trading}\n' "$1" "$2"
}

"$bin/attestd-whod" --config "$dir/none.yaml" --check 2> /dev/null && job_fail "--check of no file"
job_make_tpm
job_write_conf
"$bin/attestd-whod" --config "$dir/attestd.yaml" --check > /dev/null
code=0
"$bin/attestd-whod" --client no-such-user-here 2> /dev/null || code=$?
[ "$code" = 1 ] || job_fail "--client of nobody: exit $code"
start_whod
job_start_all
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
{
    entry alpha "{uid: 61001}"
    entry beta "{uid: 61002, exe_sha256: [$(sha "$dir/opt/agent")]}"
    entry gamma "{uid: 61003, exe_sha256: [$(sha "$python")], script_sha256: [$(sha "$dir/opt/good.py")]}"
    entry delta "{uid: 61004, manifest: {path: $dir/opt/manifest.json, sha256: $(sha "$dir/opt/manifest.json")}}"
    entry twin-a "{uid: 61005}"
    entry twin-b "[{uid: 61006}, {uid: 61005, exe_sha256: [$(sha "$dir/opt/agent")]}]"
    entry unit "{unit: no-such-unit.service}"
} | apply
grep -q 'agents twin-a, twin-b share uid 61005 ' "$dir/tmp/warnings" || job_fail "no warning: $(cat "$dir/tmp/warnings")"
[ "$(grep -c warning "$dir/tmp/warnings")" = 1 ] || job_fail "other warnings: $(cat "$dir/tmp/warnings")"
wait_for 60 job_serial alpha
ok "entry apply warns of agents that share a user"

# ---- refusals ----
caller 61999 "$sleep" 600
is_refused notAssigned "$caller" "wants user"
caller 61002 "$dir/opt/other" 600
is_refused notAssigned "$caller" "is not listed"
caller 61003 "$python" "$dir/opt/bad.py"
is_refused notAssigned "$caller" "its script .*bad.py"
caller 61003 "$python" -c 'import time; time.sleep(600)'
is_refused notAssigned "$caller" "wants a script"
caller 61005 "$dir/opt/agent" 600
is_refused ambiguous "$caller" "twin-a, twin-b"
echo '{"model": 2}' > "$dir/opt/manifest.json"
caller 61004 "$sleep" 600
is_refused notAssigned "$caller" "its manifest"
mkfifo "$dir/opt/fifo"
mv "$dir/opt/manifest.json" "$dir/opt/was.json"
mv "$dir/opt/fifo" "$dir/opt/manifest.json"
is_refused notAssigned "$caller" "cannot be read"
rm "$dir/opt/manifest.json"
is_refused notAssigned "$caller" "cannot be read"
identify "$caller" 1
[ "$(jq -r .reason "$dir/tmp/answer")" = pidReused ] || job_fail "accepted long before it began: $(cat "$dir/tmp/answer")"
ok "refused: user, executable, script, manifest, several agents, reused pid"

# ---- grants ----
echo '{"model": 1}' > "$dir/opt/manifest.json"
chmod 600 "$dir/opt/manifest.json"
is_agent delta "$caller"
caller 61001 "$sleep" 600
is_agent alpha "$caller"
caller 61005 "$dir/opt/other" 600
is_agent twin-a "$caller"
caller 61003 "$python" -u "$dir/opt/good.py"
is_agent gamma "$caller"
caller 61002 "$dir/opt/agent" 600
is_agent beta "$caller"
kill -STOP "$caller"
is_agent beta "$caller"
kill -CONT "$caller"
for event in granted refused; do
    grep -q "event=workload.$event .*exeSha256=" "$dir/log/attestd.log" || job_fail "no $event line with selectors"
done
# 9 IDENTIFY were refused above, 6 granted, each with one line.
written() { [ "$(grep -c "event=workload.$1" "$dir/log/attestd.log")" = "$2" ]; }
wait_for 10 written refused 9 || job_fail "refusals in the log"
wait_for 10 written granted 6 || job_fail "grants in the log"
[ "$(ctl --json status | jq -c .callers)" = '{"granted":6,"refused":9,"limited":0,"byLocalRule":0}' ] || job_fail "counts: $(ctl --json status | jq -c .callers)"
ok "granted: user, executable, script, manifest; one line each"

# ---- attestctl who ----
ctl --json who "$caller" | jq -e '.agent == "beta" and .process.uid == 61002' > /dev/null || job_fail "who"
code=0
caller 61999 "$sleep" 600
ctl who "$caller" > "$dir/tmp/who" || code=$?
[ "$code" = 1 ] && grep -q 'beta .*wants user 61002, the caller is user 61999' "$dir/tmp/who" || job_fail "who: $code $(cat "$dir/tmp/who")"
code=0
ctl who 0 > /dev/null 2>&1 || code=$?
[ "$code" = 1 ] || job_fail "who 0: exit $code"
ok "attestctl who"

# ---- a caller changes or ends ----
caller 61001 "$python" -c 'import os, signal, time
signal.signal(signal.SIGUSR1, lambda *a: os.execv("/bin/sleep", ["sleep", "600"]))
while True: time.sleep(600)'
handles() { [ $((0x$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$caller/status") & 0x200)) -ne 0 ]; } # SIGUSR1: it is past its start
wait_for 30 handles
identity=$(ask whod who "$caller" | jq -r .identity)
[ "$(ask whod same "$caller" "$identity")" = '{"same": 1}' ] || job_fail "not the same"
kill -USR1 "$caller"
changed() { [ "$(ask whod same "$caller" "$identity")" = '{"same": 0}' ]; }
wait_for 10 changed
kill -KILL "$caller"
/usr/bin/python3 - "$ATT_SOURCE_DIR/tests/support" "$dir/run/whod.sock" << 'END' || job_fail "an ended caller"
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from ask import Asker, Refused
whod = Asker(sys.argv[2])
def refused(code, reason, call, *args):
    try:
        call(*args)
    except Refused as r:
        assert (r.code, r.reason) == (code, reason), (r.code, r.reason, r.message)
        return
    raise AssertionError("not refused")
pid = os.fork()
if pid == 0:
    time.sleep(60)
    os._exit(0)
pidfd = os.pidfd_open(pid)
seen = whod.who(pid, pidfd)
# one process's pidfd with another's pid, and a descriptor that is no pidfd
refused("denied", "pidMismatch", whod.who, os.getpid(), pidfd)
refused("denied", "pidMismatch", whod.same, os.getpid(), pidfd, seen["identity"])
refused("invalid", "notPidfd", whod.who, pid, 0)
# another process (a forked child, say) that was handed the connection is not the same
assert whod.same(os.getpid(), os.pidfd_open(os.getpid()), seen["identity"]) == {"same": 0}
os.kill(pid, signal.SIGKILL)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
refused("gone", "", whod.same, pid, pidfd, seen["identity"])  # a zombie
os.waitpid(pid, 0)
refused("gone", "", whod.who, pid, pidfd)
# no descriptor at all ends in an error of form, and the connection goes on
refused("parse", "", whod.call, 1, b"")
whod.who(os.getpid(), os.pidfd_open(os.getpid()))
END
ok "exec, end, another's pid, no pidfd"

# ---- a storm of one user takes nothing from another ----
caller 61999 "$sleep" 600
# Some 50 a second are served, and 200 at once: a laden machine may not ask faster in one process.
ask whod flood "$caller" 100000 500 > "$dir/tmp/flood"
jq -e '.rateLimited >= 500 and .ok >= 200' "$dir/tmp/flood" > /dev/null || job_fail "flood: $(cat "$dir/tmp/flood")"
stormy=$caller
/usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/ask.py" "$dir/run/whod.sock" flood "$stormy" 1000000 > /dev/null 2>&1 &
callers+=("$!")
disown "$!"
limited() {
    identify "$stormy"
    [ "$(jq -r .reason "$dir/tmp/answer")" = rateLimited ]
}
wait_for 20 limited
caller 61001 "$sleep" 600
is_agent alpha "$caller" # while the storm goes on
kill "${callers[-2]}"
wait_for 10 grep -q 'event=workload.refused .*reason=rateLimited' "$dir/log/attestd.log" || job_fail "no line about the rate"
ok "rate limit: $(cat "$dir/tmp/flood")"

# ---- what attestd shows of an agent ----
ask workload view alpha > "$dir/tmp/view"
openssl x509 -in "$dir/state/host/agents/alpha/chain.pem" -outform DER | xxd -p -c 100000 > "$dir/tmp/leaf"
[ "$(jq -r '.chain[0]' "$dir/tmp/view")" = "$(cat "$dir/tmp/leaf")" ] || job_fail "the chain of VIEW is another"
[ "$(jq -r .spiffeId "$dir/tmp/view")" = spiffe://bank.example/agent/alpha ] || job_fail "VIEW: $(cat "$dir/tmp/view")"
[ "$(jq -r .keyId "$dir/tmp/view")" = "$(ctl --json agent show alpha | jq -r .keyId)" ] || job_fail "key id of VIEW"
[ "$(jq '.bundle | length' "$dir/tmp/view")" -ge 1 ] || job_fail "no bundle in VIEW"
[ "$(ask workload view nobody | jq -r .reason)" = noCertificate ] || job_fail "VIEW of nobody"
ctl agent rotate alpha > /dev/null
ask workload view alpha > "$dir/tmp/view2"
[ "$(jq .generation "$dir/tmp/view")" != "$(jq .generation "$dir/tmp/view2")" ] || job_fail "the same generation after rotate"
[ "$(jq -r .keyId "$dir/tmp/view2")" != "$(jq -r .keyId "$dir/tmp/view")" ] || job_fail "the same key after rotate"
ok "VIEW before and after a rotation"
# What is installed is of another key than the one in force, and stays so: nobody is told either.
uri=$(readlink -f "$dir/state/host/agents/alpha")/key.uri
mv "$uri" "$dir/tmp/key.uri"
sed 's/id=%../id=%00/' "$dir/tmp/key.uri" > "$uri"
! cmp -s "$uri" "$dir/tmp/key.uri" || echo 'pkcs11:token=attestd;object=agent;type=private;id=%01' > "$uri"
ask workload view alpha > "$dir/tmp/view3" || true
[ "$(jq -r .reason "$dir/tmp/view3")" = keyChanging ] || job_fail "VIEW amid a change of keys: $(cat "$dir/tmp/view3")"
cp "$dir/tmp/key.uri" "$uri"
[ "$(ask workload view alpha | jq -r .keyId)" = "$(jq -r .keyId "$dir/tmp/view2")" ] || job_fail "VIEW after the change"
ok "refused: keyChanging"

# ---- whod away, and back; the issuer away at start ----
job_stop whod
doctor_says() { ctl --json doctor | jq -e ".checks[] | select(.name == \"whod\") | .ok == $1" > /dev/null; }
wait_for 10 doctor_says false || job_fail "doctor finds whod"
identify "$caller"
[ "$(jq -r .error "$dir/tmp/answer")" = unreachable ] || job_fail "whod away: $(cat "$dir/tmp/answer")"
start_whod
is_agent alpha "$caller"
wait_for 10 doctor_says true || job_fail "doctor does not find whod"
job_stop attestd
job_stop issuerd
job_start attestd "$bin/attestd" --config "$dir/attestd.yaml"
wait_for 30 ctl status
wait_for 30 is_agent alpha "$caller"
ask workload view alpha > /dev/null
ok "whod restarted; attestd started without its issuer"

# ---- whod's own rights ----
pid=$(job_pid whod)
[ "$(sed -n 's/^CapPrm:\t//p' "/proc/$pid/status")" = 0000000000080004 ] || job_fail "capabilities of whod"
[ "$(sed -n 's/^CapBnd:\t//p' "/proc/$pid/status")" = 0000000000080004 ] || job_fail "bounding set of whod"
[ "$(sed -n 's/^Seccomp:\t//p' "/proc/$pid/status")" = 2 ] || job_fail "whod without seccomp"
job_stop whod
[ ! -S "$dir/run/whod.sock" ] || rm "$dir/run/whod.sock"
end_callers
for name in attestd keyd; do
    job_stop "$name"
done
ok "done"
