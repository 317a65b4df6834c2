#!/usr/bin/env bash
# Rotation under a running PKCS#11 session, with the real daemons: the old handle signs until the old
# certificate ends, also when it was frozen and thawed, and over restarts; then it gets a clean error. New
# sessions see only the new key. No key that can be found is one that keyd would not sign with, not for an
# instant. Their number is bounded; what is gone from the host leaves nothing.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
[ "$(id -u)" = 0 ] || job_skip "a workload of another user needs root"
command -v setpriv > /dev/null || job_skip "no setpriv"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
job_setup
chmod 755 "$dir"
fault_clock_make
clock=$dir/clock
fault_clock "$clock" 0 0
lifetime=600 # its renewal is not due before the test is done with it
export JOB_LIFETIME=${lifetime}s
job_start_attestd() {
    fault_start_clocked attestd "$clock" "$bin/attestd" --config "$dir/attestd.yaml"
    wait_for 30 ctl status
}
job_make_tpm
job_write_conf
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
job_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
job_enrolled_with alpha
wait_for 30 test -S "$dir/run/public/pkcs11.sock"
cp "$bin/../tests-bin/token-client" "$dir/client"
chmod 755 "$dir" "$dir/run" "$dir/client"

# session NAME: a workload that holds a connection; session_ask NAME: signs with its old and a new handle
session() {
    mkfifo "$dir/$1.in"
    job_start "$1" setpriv --reuid 1001 --regid 1001 --clear-groups \
        env P11_KIT_SERVER_ADDRESS="unix:path=$dir/run/public/pkcs11.sock" P11_KIT_STRICT=1 \
        sh -c 'exec "$1" "$2" hold < "$3"' sh "$dir/client" "$module" "$dir/$1.in"
    exec {session_fd}> "$dir/$1.in"
    eval "$1_fd=$session_fd"
    wait_for 30 grep -q ready "$dir/log/$1.log"
}
session_lines() { wc -l < "$dir/log/$1.log"; }
answered() { [ "$(session_lines "$1")" -gt "$2" ]; }
session_ask() {
    local n fd=$1_fd
    n=$(session_lines "$1")
    (trap '' PIPE && echo >&"${!fd}") || { cat "$dir/log/$1.log"; job_fail "$1 has ended"; return 1; }
    wait_for 30 answered "$1" "$n" || { cat "$dir/log/$1.log"; job_fail "$1 does not answer"; }
    tail -n 1 "$dir/log/$1.log"
}
says() { # NAME WORDS
    session_ask "$1" > "$dir/tmp/says"
    grep -qxF -- "$2" "$dir/tmp/says" || { cat "$dir/tmp/says"; return 1; }
}
key_of() { ctl --json agent show "$1" | jq -er .keyId; }
retired_of() { ctl --json agent show "$1" | jq -r '[.retired[].keyId] | join(" ")'; }

k1=$(key_of alpha)
session first
grep -qx "ready $k1" "$dir/log/first.log" || { cat "$dir/log/first.log"; job_fail "expected key $k1"; }

# ---- the next certificates live longer than the first ------------------------------------------------
job_stop issuerd
sed -i "s/lifetime: ${lifetime}s/lifetime: 1h/" "$dir/issuer.yaml"
job_start_issuer
fault_rotates alpha
k2=$(key_of alpha)
wait_for 10 says first "old 0x0 new 0x0 $k2"
[ "$(retired_of alpha)" = "$k1" ] || job_fail "retired: $(retired_of alpha)"
ctl agent show alpha > "$dir/tmp/show"
grep -q "$k1" "$dir/tmp/show" || { cat "$dir/tmp/show"; job_fail "agent show does not name the retired key"; }
session second
grep -qx "ready $k2" "$dir/log/second.log" || { cat "$dir/log/second.log"; job_fail "a new session sees other than $k2"; }
says second "old 0x0 new 0x0 $k2"
wait_for 30 fault_idle alpha
python3 "$ATT_SOURCE_DIR/tests/support/state_check.py" "$dir" alpha
ok "rotation: the old handle signs on, with its own key; a new session sees only the new one"

# ---- frozen: none signs; and over restarts ---------------------------------------------------------------
ctl agent freeze alpha > /dev/null
says first "old 0x200 new 0x200 $k2" || job_fail "frozen"
ctl agent thaw alpha > /dev/null
says first "old 0x0 new 0x0 $k2" || job_fail "thawed"
for name in keyd attestd; do
    job_stop "$name" KILL
    "job_start_$name"
done
wait_for 60 job_is alpha valid
wait_for 30 fault_idle alpha
wait_for 10 says first "old 0x0 new 0x0 $k2"
python3 "$ATT_SOURCE_DIR/tests/support/state_check.py" "$dir" alpha
ok "a frozen agent signs with neither; both outlive kill -9 of keyd and attestd"

# ---- the first certificate ends, by attestd's clocks --------------------------------------------------------
job_stop keyd # the time comes while keyd is away: nothing is lost, nothing stays
fault_clock "$clock" $((lifetime + 60)) $((lifetime + 60))
wait_for 60 fault_log_more attestd 'agent.keyNotDestroyed' 0 || job_fail "keyd is away, and nobody notices"
job_start_keyd
destroyed() { fault_log_has attestd "event=key.destroyed agent=alpha key=$k1 state=retired why=certificateEnded"; }
wait_for 60 destroyed || job_fail "$(ctl --json agent show alpha | jq -c .)"
k1_gone() { [ ! -e "$dir/state/keyd/agents/$k1.pem" ]; }
wait_for 10 k1_gone || job_fail "the key's file is still there"
wait_for 10 says first "old 0x60 new 0x0 $k2" || job_fail "after the end: expected CKR_KEY_HANDLE_INVALID"
wait_for 10 says second "old 0x0 new 0x0 $k2"
wait_for 30 fault_idle alpha
[ "$(retired_of alpha)" = "" ] || job_fail "still retired: $(retired_of alpha)"
ok "the old certificate ends: its key is destroyed, its handle gets CKR_KEY_HANDLE_INVALID"

# ---- destroyed, and killed before the record was written ------------------------------------------------------
fault_rotates alpha
k3=$(key_of alpha)
wait_for 30 fault_idle alpha
job_stop attestd KILL
python3 - "$dir/run/keyd/keyd.sock" "$k2" << 'END'
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
key = sys.argv[2].encode()
s.sendall(struct.pack(">IIHI", 10 + len(key), 1, 22, len(key)) + key)
assert s.recv(64)[10] == 0
END
job_start_attestd
wait_for 60 fault_idle alpha || job_fail "a key that is gone stays in the record: $(ctl --json agent show alpha | jq -c .)"
[ "$(retired_of alpha)" = "" ] || job_fail "still retired: $(retired_of alpha)"
python3 "$ATT_SOURCE_DIR/tests/support/state_check.py" "$dir" alpha
ok "a key destroyed before a kill is forgotten"

# ---- the bound, and nobody finds a key that does not sign ---------------------------------------------------------
cat > "$dir/watch.py" << 'END'
"""Whatever key the installed link names is one that keyd has, and not a new one, at every look."""
import os, sys
source = open(os.environ["CHECK"], encoding="utf-8").read()
exec(source[:source.rindex("\nmain()")])
base = sys.argv[1]
keyd, seen = Keyd(base + "/run/keyd/keyd.sock"), set()
while not os.path.exists(base + "/watch.stop"):
    with open(base + "/state/host/agents/alpha/key.uri", encoding="ascii") as uri:
        key = uri.read().rstrip("\n").split("id=")[1].replace("%", "")
    state = keys_of(keyd).get(key, (None, "gone"))[1]
    if state not in ("active", "retired"):
        sys.exit(f"key {key} can be found, and is {state}")
    seen.add(key)
print(len(seen))
END
CHECK=$ATT_SOURCE_DIR/tests/support/state_check.py job_start watch python3 "$dir/watch.py" "$dir"
rotations=12
for _ in $(seq "$rotations"); do
    ctl agent rotate alpha > /dev/null
done
touch "$dir/watch.stop"
watch_ended() { ! job_alive watch; }
wait_for 30 watch_ended
grep -qxE '[0-9]+' "$dir/log/watch.log" && [ "$(cat "$dir/log/watch.log")" -gt 6 ] ||
    job_fail "the watch saw too little, or a key that does not sign: $(cat "$dir/log/watch.log")"
wait_for 60 fault_idle alpha || job_fail "$(ctl --json agent show alpha | jq -c .)"
[ "$(retired_of alpha | wc -w)" = 8 ] || job_fail "retired: $(retired_of alpha)"
[ ! -e "$dir/state/keyd/agents/$k3.pem" ] || job_fail "the oldest made no room"
python3 "$ATT_SOURCE_DIR/tests/support/state_check.py" "$dir" alpha
wait_for 10 says second "old 0x60 new 0x0 $(key_of alpha)"
ok "$rotations rotations: eight keys retired, the oldest gave way; whatever can be found signs"

# ---- removal ---------------------------------------------------------------------------------------------------------
touch "$dir/state/host/withdrawn/alpha.pem" # as after an expiry
[ -e "$dir/state/host/evidence/alpha/quote" ]
ctl entry delete alpha > /dev/null
no_keys() { [ "$(ctl --json status | jq .tpm.keys)" = 0 ]; }
wait_for 60 no_keys || job_fail "keys are left: $(ctl --json status | jq .tpm.keys)"
no_agent() { [ "$(ctl --json agent list | jq '.agents | length')" = 0 ]; }
wait_for 30 no_agent
nothing_left() { find "$dir/state" -name '*alpha*' > "$dir/tmp/left" && ! grep . "$dir/tmp/left"; }
wait_for 30 nothing_left || job_fail "files of an agent that was removed"
ok "removed: no key, no evidence, no chain is left"
fault_sanitizers
echo "retired keys: all held"
