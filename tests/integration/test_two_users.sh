#!/usr/bin/env bash
# keyd, attestd, whod and tokend as users of their own, as the systemd units run them but without systemd: the
# main job works, and an agent signs; each of them hangs up on users that are not named; attestd takes no other
# user's process for keyd; a tokend that somebody has taken over opens none of the others' files.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" -eq 0 ] || job_skip "needs root to be two users"
command -v setpriv > /dev/null || job_skip "no setpriv"
job_setup
ok() { echo "ok: $*"; }
keyd_user=65101 attestd_user=65102 stranger=65103 tokend_user=65104 who_user=65105 agent_user=65106 ipc_group=65110
as() { # as USER COMMAND...: in the group that may reach keyd's socket
    local user=$1
    shift
    setpriv --reuid "$user" --regid "$user" --groups "$ipc_group" "$@"
}
job_start_keyd() {
    job_start keyd setpriv --reuid $keyd_user --regid $ipc_group --clear-groups \
        "$bin/attestd-keyd" --config "$dir/attestd.yaml" --client "${1:-$attestd_user}" --signer "${2:-$tokend_user}"
}
job_start_attestd() {
    job_start attestd setpriv --reuid $attestd_user --regid $attestd_user --groups $ipc_group \
        "$bin/attestd" --config "$dir/attestd.yaml" --keyd-user "${1:-$keyd_user}" --tokend-user "${2:-$tokend_user}" --whod-user $who_user --ipc-group $ipc_group
    wait_for 30 ctl status
}
job_make_tpm
job_write_conf
# As the units lay it out: the folders above are root's, run_dir is sticky.
chmod 755 "$dir" "$dir/tpm"
chmod 666 "$dir/tpm/sock" "$dir/tpm/sock.ctrl"
chmod 644 "$dir/firmware.log"
install -d -m 1775 -g $attestd_user "$dir/run"
install -d -m 755 "$dir/state"
install -d -m 755 -o $tokend_user "$dir/run/public"
install -d -m 700 -o $keyd_user "$dir/state/keyd"
install -d -m 750 -o $keyd_user -g $ipc_group "$dir/run/keyd"
install -d -m 755 -o $attestd_user "$dir/state/host"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || { cat "$dir/log/init.log"; job_fail "init"; }
job_start_issuer
chmod 755 "$dir/issuer" "$dir/issuer/ca"
chmod 644 "$dir/issuer/ca/tls-root.pem"
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
chmod 644 "$dir/ticket.json"

# ---- who is not there is not started -------------------------------------------------------------
! as $keyd_user "$bin/attestd-keyd" --config "$dir/attestd.yaml" --client no-such-user > "$dir/tmp/out" 2>&1 ||
    job_fail "keyd serves a user that does not exist"
grep -q 'user "no-such-user" does not exist' "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
! as $attestd_user "$bin/attestd" --config "$dir/attestd.yaml" --keyd-user no-such-user > "$dir/tmp/out" 2>&1 ||
    job_fail "attestd expects a user that does not exist"
grep -q 'user "no-such-user" does not exist' "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
! as $keyd_user "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer no-such-user > "$dir/tmp/out" 2>&1 ||
    job_fail "keyd signs for a user that does not exist"
grep -q -- '--signer: user "no-such-user" does not exist' "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
! as $attestd_user "$bin/attestd" --config "$dir/attestd.yaml" --tokend-user no-such-user > "$dir/tmp/out" 2>&1 ||
    job_fail "attestd answers a user that does not exist"
grep -q 'user "no-such-user" does not exist' "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
! as $attestd_user "$bin/attestd" --config "$dir/attestd.yaml" --ipc-group no-such-group > "$dir/tmp/out" 2>&1 ||
    job_fail "attestd gives its socket to a group that does not exist"
grep -q 'group "no-such-group" does not exist' "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
ok "a user that does not exist is an error"

# ---- the main job ----------------------------------------------------------------------------------
job_start_keyd
job_start_attestd
job_enrolled_with alpha
job_check_chain alpha
[ "$(stat -c %u:%g:%a "$dir/run/keyd/keyd.sock")" = "$keyd_user:$ipc_group:660" ] || job_fail "$(ls -l "$dir/run/keyd")"
ok "two users: enrolled, certified"
asks='import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(struct.pack(">IIH", 6, 1, 1))
    print("answered" if s.recv(1) else "hung up on")
except ConnectionError:
    print("hung up on")'
reached() { as "$1" /usr/bin/python3 -c "$asks" "$dir/run/keyd/keyd.sock"; }
[ "$(reached $stranger)" = "hung up on" ] || job_fail "a stranger of the socket's group: $(reached $stranger 2>&1)"
[ "$(reached $attestd_user)" = "answered" ] || job_fail "attestd's user: $(reached $attestd_user 2>&1)"
! as $attestd_user ls "$dir/state/keyd" > "$dir/tmp/out" 2>&1 || job_fail "attestd's user reads keyd's folder"
! as $attestd_user mv "$dir/run/keyd" "$dir/run/other" > "$dir/tmp/out" 2>&1 || job_fail "attestd's user moves keyd's folder away"
ok "keyd hangs up on others; its folders are its own"

# ---- not named any more; not the one that is expected --------------------------------------------------
before=$(job_serial alpha)
job_stop keyd
job_start_keyd $stranger
! ctl agent rotate alpha > "$dir/tmp/out" 2>&1 || job_fail "rotated through a keyd that does not know attestd"
job_stop keyd
job_start_keyd
wait_for 60 ctl agent rotate alpha
job_stop attestd
job_start_attestd $stranger
keyd_refused() { ctl --json status | jq -e '.tpm.state == "keydAway" and (.tpm.reason | test("served by uid '$keyd_user', expected keyd.s, '$stranger'"))'; }
wait_for 30 keyd_refused
! ctl agent rotate alpha > "$dir/tmp/out" 2>&1 || job_fail "rotated through another user's keyd"
job_stop attestd
job_start_attestd
wait_for 60 ctl agent rotate alpha
[ "$(job_serial alpha)" != "$before" ] || job_fail "the serial is still $before"
job_check_chain alpha
ok "attestd asks only keyd's user, keyd answers only attestd's"

# ---- the token service as a user of its own ------------------------------------------------------------
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
if [ -z "$module" ]; then
    echo "not tried: tokend (no p11-kit-client.so, package p11-kit-modules)"
    echo "two users: all held"
    exit 0
fi
start_whod() { # as its unit: two capabilities, its socket for the group
    job_start whod setpriv --reuid $who_user --regid $ipc_group --clear-groups \
        --inh-caps=-all,+sys_ptrace,+dac_read_search --ambient-caps=-all,+sys_ptrace,+dac_read_search \
        "$bin/attestd-whod" --config "$dir/attestd.yaml" --client $attestd_user --client $tokend_user
    wait_for 10 test -S "$dir/run/whod.sock"
}
start_tokend() {
    job_start tokend setpriv --reuid $tokend_user --regid $tokend_user --groups $ipc_group \
        "$bin/attestd-tokend" --config "$dir/attestd.yaml" --attestd-user $attestd_user --whod-user $who_user --keyd-user $keyd_user
    wait_for 10 test -S "$dir/run/public/pkcs11.sock"
}
client() { # as the agent: one signature
    P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock timeout 60 setpriv --reuid $agent_user --regid $agent_user \
        --clear-groups "$bin/../tests-bin/token-client" "$module" sign 3 < /dev/null > "$dir/tmp/client" 2>&1
}
signs() { client || job_fail "$(cat "$dir/tmp/client")"; }
refused_with() { ! client && grep -q -- "$1" "$dir/tmp/client"; }
sed -i "s/uid: 1001/uid: $agent_user/" "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > /dev/null
chmod 1777 "$dir/run" # whod, here in no group of run_dir's
start_whod
start_tokend
chmod 1775 "$dir/run"
wait_for 60 client
signs
for path in "$dir/run/workload.sock:$attestd_user" "$dir/run/keyd/sign.sock:$keyd_user" "$dir/run/whod.sock:$who_user"; do
    [ "$(stat -c %u:%g:%a "${path%:*}")" = "${path##*:}:$ipc_group:660" ] || job_fail "$(ls -ln "${path%:*}")"
done
[ "$(sed -n 's/^Uid:\t\([0-9]*\).*/\1/p' "/proc/$(job_pid tokend)/status")" = $tokend_user ] ||
    job_fail "tokend is not its user"
ok "four users: an agent signs through its token"

# What somebody in tokend's place could open. The chain is for everybody; nothing else is.
closed() { # closed USER PATH
    ! as "$1" cat "$2" > "$dir/tmp/out" 2>&1 || job_fail "user $1 reads $2"
    grep -q 'Permission denied' "$dir/tmp/out" || job_fail "$2: $(cat "$dir/tmp/out")"
}
wait_for 60 job_settled alpha # no file comes or goes
find "$dir/state/host" -type f ! -perm -004 > "$dir/tmp/private"
[ -s "$dir/tmp/private" ] || job_fail "attestd keeps nothing to itself"
while read -r path; do closed $tokend_user "$path"; done < "$dir/tmp/private"
! as $tokend_user ls "$dir/state/keyd" > "$dir/tmp/out" 2>&1 || job_fail "tokend's user reads keyd's folder"
! as $tokend_user touch "$dir/state/host/x" "$dir/run/x" 2> "$dir/tmp/out" || job_fail "tokend's user writes attestd's folders"
! as $tokend_user rm -f "$dir/run/workload.sock" 2> "$dir/tmp/out" || job_fail "tokend's user removes attestd's socket"
ask_as() { as "$1" /usr/bin/python3 -c "$asks" "$dir/run/$2"; }
[ "$(ask_as $tokend_user keyd/keyd.sock)" = "hung up on" ] || job_fail "tokend's user at keyd.sock"
[ "$(ask_as $tokend_user keyd/sign.sock)" = "answered" ] || job_fail "tokend's user at sign.sock"
[ "$(ask_as $attestd_user keyd/sign.sock)" = "hung up on" ] || job_fail "attestd's user at sign.sock: it could sign as any agent"
for path in workload.sock whod.sock keyd/sign.sock keyd/keyd.sock; do
    [ "$(ask_as $stranger $path)" = "hung up on" ] || job_fail "a stranger of the group at $path: $(ask_as $stranger $path 2>&1)"
done
! setpriv --reuid $stranger --regid $stranger --clear-groups /usr/bin/python3 -c "$asks" "$dir/run/workload.sock" > "$dir/tmp/out" 2>&1 ||
    job_fail "a stranger outside of the group reaches workload.sock"
grep -q PermissionError "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
ok "tokend's user: $(wc -l < "$dir/tmp/private") files of attestd's closed to it, keyd.sock too; strangers are hung up on"

# Each of the three without tokend's user: no signature, and a clean error.
job_stop keyd
job_start_keyd $attestd_user $stranger
wait_for 30 refused_with 'Sign: 0x30'
job_stop keyd
job_start_keyd
wait_for 60 client
job_stop attestd
job_start_attestd $keyd_user $stranger
wait_for 30 refused_with .
wait_for 20 grep -q 'tokend.not-identified.*unreachable' "$dir/log/tokend.log" || job_fail "no line that attestd hung up on tokend"
job_stop attestd
job_start_attestd
wait_for 60 client
ok "keyd and attestd serve tokend's user only while they name it"

# ---- another user's process where the token service asks ----------------------------------------------------------
rogue='import os, socket, sys
path, user = sys.argv[1], int(sys.argv[2])
if os.path.exists(path):
    os.unlink(path)
s = socket.socket(socket.AF_UNIX)
s.bind(path)
os.chmod(path, 0o666)
os.setresuid(user, user, user)
s.listen(8) # whose process this is was its user at this moment
print("ready", flush=True)
while True:
    c = s.accept()[0]
    print("got", len(c.recv(1)), flush=True)'
rogue_at() { # rogue_at SOCKET
    : > "$dir/log/rogue.log"
    job_start rogue /usr/bin/python3 -c "$rogue" "$dir/run/$1" $stranger
    wait_for 10 grep -q ready "$dir/log/rogue.log"
}
rogue_heard_nothing() {
    wait_for 20 grep -q '^got 0$' "$dir/log/rogue.log" || job_fail "nobody came to $1: the test is no test"
    ! grep -q '^got [1-9]' "$dir/log/rogue.log" || job_fail "the rogue at $1 was asked something"
    job_stop rogue KILL
    rm "$dir/run/$1"
}
told_of() { grep "event=tokend.foreign-server" "$dir/log/tokend.log" | grep -q "socket=$dir/run/$1 uid=$stranger expected=$2 "; }
job_stop keyd
rogue_at keyd/sign.sock
wait_for 30 refused_with 'Sign: 0x30'
wait_for 20 told_of keyd/sign.sock $keyd_user || job_fail "no line about the rogue keyd: $(grep foreign "$dir/log/tokend.log")"
wait_for 20 grep -q 'event=tokend.refused .*reason=foreignServer' "$dir/log/tokend.log" || job_fail "the refusal does not say why"
rogue_heard_nothing keyd/sign.sock
job_start_keyd
wait_for 60 client
job_stop attestd
rogue_at workload.sock
! client || job_fail "somebody else says who is an agent"
wait_for 20 told_of workload.sock $attestd_user || job_fail "no line about the rogue attestd"
wait_for 20 grep -q 'event=tokend.not-identified .*expected '$attestd_user "$dir/log/tokend.log" || job_fail "no line that the caller was not identified"
rogue_heard_nothing workload.sock
job_start_attestd
wait_for 60 client
P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock job_start loop setpriv --reuid $agent_user --regid $agent_user \
    --clear-groups "$bin/../tests-bin/token-client" "$module" loop 20
wait_for 60 grep -q '^signs$' "$dir/log/loop.log"
job_stop whod
rogue_at whod.sock
refused_with . || job_fail "somebody else says who a caller is"
wait_for 20 grep -q 'event=tokend.not-identified .*code=unreachable .*served by uid '$stranger "$dir/log/tokend.log" ||
    job_fail "a caller was taken for nobody's agent on a foreign whod's word"
told_of_whod() { told_of whod.sock $who_user; }
wait_for 20 told_of_whod
attestd_says() { grep -q "event=workload.refused .*reason=foreignServer" "$dir/log/attestd.log"; }
wait_for 20 attestd_says || job_fail "attestd believes another user's whod"
loop_ended() { ! job_alive loop; }
wait_for 60 loop_ended
grep -q 'error 0x30' "$dir/log/loop.log" || job_fail "a running caller was signed for on somebody else's word: $(cat "$dir/log/loop.log")"
rogue_heard_nothing whod.sock
chmod 1777 "$dir/run"
start_whod
chmod 1775 "$dir/run"
wait_for 60 client
for option in attestd-user whod-user keyd-user; do
    ! "$bin/attestd-tokend" --config "$dir/attestd.yaml" --check --$option no-such-user > "$dir/tmp/out" 2>&1 || job_fail "--$option of nobody"
    grep -q -- "--$option: user \"no-such-user\" does not exist" "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
done
! as $attestd_user "$bin/attestd" --config "$dir/attestd.yaml" --whod-user no-such-user > "$dir/tmp/out" 2>&1 || job_fail "--whod-user of nobody"
ok "another user's process at keyd's, attestd's and whod's socket is asked nothing; the right one, when it is back, is"
job_stop tokend
echo "two users: all held"
