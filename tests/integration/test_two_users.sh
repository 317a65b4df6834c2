#!/usr/bin/env bash
# keyd and attestd as two users, as the systemd units run them but without systemd: the main job works; keyd
# hangs up on users that are not named; attestd takes no other user's process for keyd.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" -eq 0 ] || job_skip "needs root to be two users"
command -v setpriv > /dev/null || job_skip "no setpriv"
job_setup
ok() { echo "ok: $*"; }
keyd_user=65101 attestd_user=65102 stranger=65103 ipc_group=65110
as() { # as USER COMMAND...: in the group that may reach keyd's socket
    local user=$1
    shift
    setpriv --reuid "$user" --regid "$user" --groups "$ipc_group" "$@"
}
job_start_keyd() {
    job_start keyd setpriv --reuid $keyd_user --regid $ipc_group --clear-groups \
        "$bin/attestd-keyd" --config "$dir/attestd.yaml" --client "${1:-$attestd_user}"
}
job_start_attestd() {
    job_start attestd setpriv --reuid $attestd_user --regid $attestd_user --groups $ipc_group \
        "$bin/attestd" --config "$dir/attestd.yaml" --keyd-user "${1:-$keyd_user}"
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
echo "two users: all held"
