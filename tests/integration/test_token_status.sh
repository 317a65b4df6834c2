#!/usr/bin/env bash
# The token service with real processes (swtpm, keyd, whod, attestd, tokend): what attestctl status shows of its
# connections, stale ones above all; and the limit of attestation by executable: code of the same user inside the
# right program is the agent (LD_PRELOAD, ptrace), code of another user is not.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
command -v setpriv > /dev/null || job_skip "no setpriv"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
job_setup
chmod 755 "$dir"
ok() { echo "ok: $*"; }
agent=62001 narrow=62002 stranger=62003
sleep=$(readlink -f "$(command -v sleep)")
export P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock
as() { # as USER COMMAND...
    local user=$1
    shift
    setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
}
job_make_tpm
job_write_conf
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
job_start_all
entries() { # entries NAME:WORKLOAD...
    local one
    {
        echo "trust_domain: bank.example"
        echo "agents:"
        for one in "$@"; do
            printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: %s, key: tpm, profile: trading}\n' \
                "${one%%=*}" "$(job_host_id)" "${one#*=}"
        done
    } > "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > /dev/null
}
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
entries "alpha={uid: $agent}" "beta={uid: $narrow, exe_sha256: [$(sha256sum "$sleep" | cut -d' ' -f1)]}"
wait_for 60 job_serial alpha
wait_for 60 job_serial beta
token_is() { ctl --json status > "$dir/tmp/status" && jq -e ".token | $1" "$dir/tmp/status" > /dev/null; }
token_was() { wait_for 30 token_is "$1" || { jq -c .token "$dir/tmp/status"; job_fail "status, wanted: $1"; }; }

# ---- status ------------------------------------------------------------------------------------------------------
token_was '. == {"state": "unknown"}'
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
token_was '.state == "serving" and .connections == 0 and .agents == [] and .outdated == false and .accepted == 0'
mkfifo "$dir/tmp/fifo"
chmod 644 "$dir/tmp/fifo"
chmod 755 "$dir/tmp"
exec 8<> "$dir/tmp/fifo"
end_idle() { job_stop idle KILL; }
trap 'status=$?; end_idle; set +e; (exit $status); job_cleanup' EXIT
setpriv --reuid $agent --regid $agent --clear-groups "$bin/../tests-bin/token-client" "$module" idle 3 < "$dir/tmp/fifo" > "$dir/log/idle.log" 2>&1 8>&- &
idle=$!
echo $idle > "$dir/idle.pid"
wait_for 60 grep -q idle "$dir/log/idle.log"
token_was '.connections == 3 and .stale == 0 and .signatures == 3 and .agents == [{"name": "alpha", "connections": 3, "stale": 0, "why": null}]'
before=$(jq .token.refused "$dir/tmp/status")
! as $stranger "$bin/../tests-bin/token-client" "$module" sign 1 > "$dir/tmp/out" 2>&1 || job_fail "a stranger signs"
/usr/bin/python3 - "$dir/run/public/pkcs11.sock" << 'END'
import os, socket, sys
os.setresgid(62001, 62001, 62001); os.setresuid(62001, 62001, 62001)
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"\0" + b"\xff" * 100)
assert s.recv(1) in (b"", b"\0")
while s.recv(100):
    pass
END
token_was ".refused > $before and .strangers == 0 and .connections == 3"
ctl status > "$dir/tmp/text"
grep -qE '^  connections +3$' "$dir/tmp/text" || { cat "$dir/tmp/text"; job_fail "attestctl status"; }
grep -qE '^  alpha +3, stale 0' "$dir/tmp/text" || { cat "$dir/tmp/text"; job_fail "attestctl status by agent"; }
ok "status: $(jq -c '.token | {connections, strangers, accepted, refused, signatures}' "$dir/tmp/status")"
ctl agent freeze alpha > /dev/null
token_was '.stale == 0 and .connections == 3'
ctl agent thaw alpha > /dev/null
entries "beta={uid: $narrow, exe_sha256: [$(sha256sum "$sleep" | cut -d' ' -f1)]}" "alpha={uid: 62009}"
job_stop attestd
job_start_attestd 8>&-
token_was '.connections == 3 and .stale == 3 and .agents[0].why == "callerChanged"'
entries "beta={uid: $narrow, exe_sha256: [$(sha256sum "$sleep" | cut -d' ' -f1)]}" "alpha={uid: $agent}"
token_was '.connections == 3 and .stale == 0'
ok "stale: an entry that fits the caller no more; put right, they are not"
ctl entry delete alpha > /dev/null
token_was '.connections == 3 and .stale == 3 and .agents[0].name == "alpha" and (.agents[0].why | IN("agentGone", "noCertificate"))'
ok "stale: connections of an agent that is gone ($(jq -r '.token.agents[0].why' "$dir/tmp/status")); a frozen one's are not"
echo > "$dir/tmp/fifo" # signs once more, in vain
exec 8>&-
code=0
wait $idle || code=$?
[ $code = 1 ] && grep -q 'Sign at the end: 0x' "$dir/log/idle.log" || job_fail "a removed agent's connection: exit $code, $(cat "$dir/log/idle.log")"
token_was '.connections == 0 and .stale == 0 and .agents == []'
ok "its connections can sign no more: $(tail -n 1 "$dir/log/idle.log")"

# ---- the limit ------------------------------------------------------------------------------------------------------
if command -v cc > /dev/null && pkg-config --exists p11-kit-1; then
    # shellcheck disable=SC2046 # flags
    cc -shared -fPIC -O1 $(pkg-config --cflags p11-kit-1) -o "$dir/tmp/sign.so" "$ATT_SOURCE_DIR/tests/support/preload/sign.c" -ldl
    chmod 755 "$dir/tmp/sign.so"
    inside() { # inside USER PROGRAM: its code in the program, before the program's own
        as "$1" env LD_PRELOAD="$dir/tmp/sign.so" ATT_TEST_MODULE="$module" "$2" 0 > "$dir/tmp/out" 2>&1 < /dev/null
    }
    cp "$sleep" "$dir/tmp/other"
    printf '\n' >> "$dir/tmp/other"
    inside $narrow "$dir/tmp/other"
    grep -qx 'not signed: 0x3' "$dir/tmp/out" || job_fail "another program of the agent's user: $(cat "$dir/tmp/out")"
    inside $stranger "$sleep"
    grep -qx 'not signed: 0x3' "$dir/tmp/out" || job_fail "the right program of another user: $(cat "$dir/tmp/out")"
    inside $narrow "$sleep"
    grep -qx signed "$dir/tmp/out" || job_fail "LD_PRELOAD into the right program of the right user: $(cat "$dir/tmp/out") (if this is refused now, docs/THREATS.md promises too little)"
    grep 'event=workload.granted agent=beta' "$dir/log/attestd.log" | grep -q "uid=$narrow .*exe=$sleep exeSha256=" || job_fail "no line with the selectors seen"
    ok "LD_PRELOAD: another program or user gets nothing; the same user's code inside the right program signs (the limit)"
else
    echo "not tried: LD_PRELOAD (no cc or libp11-kit-dev)"
fi
setpriv --reuid $narrow --regid $narrow --clear-groups "$sleep" 600 &
target=$!
echo $target > "$dir/target.pid"
trap 'status=$?; job_stop target KILL; end_idle; set +e; (exit $status); job_cleanup' EXIT
is_target() { [ "$(readlink "/proc/$target/exe")" = "$sleep" ]; }
wait_for 10 is_target
attaches() { # attaches USER: PTRACE_SEIZE of the agent's process; what the kernel said
    as "$1" /usr/bin/python3 -c 'import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
print("attached" if libc.ptrace(0x4206, int(sys.argv[1]), None, None) == 0 else os.strerror(ctypes.get_errno()))' $target
}
[ "$(attaches $stranger)" = "Operation not permitted" ] || job_fail "another user traces an agent: $(attaches $stranger)"
scope=$(cat /proc/sys/kernel/yama/ptrace_scope 2> /dev/null || echo 0)
said=$(attaches $narrow)
[ "$said" = "$([ "$scope" = 0 ] && echo attached || echo 'Operation not permitted')" ] || job_fail "ptrace_scope $scope: the same user: $said"
job_stop target KILL
ok "ptrace: refused to another user; to the same user with ptrace_scope $scope: $said (the limit)"
job_stop tokend
echo "token status: all held"
