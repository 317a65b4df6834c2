#!/usr/bin/env bash
# keyd at the limits of its resources (RLIMIT_FSIZE, NOFILE, NPROC; AS in builds without sanitizers), set under it while
# it serves: what cannot be done is refused with its reason and half done nowhere, agents sign on, and when the limit is
# gone all works again. With real processes; keyd is a user of its own, since root has no limit of processes.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
for tool in setpriv prlimit; do command -v $tool > /dev/null || job_skip "no $tool"; done
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
job_setup
ok() { echo "ok: $*"; }
keyd_user=65211 agent_user=1001
job_start_keyd() {
    job_start keyd setpriv --reuid $keyd_user --regid $keyd_user --clear-groups "$bin/attestd-keyd" --config "$dir/attestd.yaml" --client 0 --signer 0
}
job_start_attestd() {
    job_start attestd "$bin/attestd" --config "$dir/attestd.yaml" --keyd-user $keyd_user
    wait_for 30 ctl status
}
job_make_tpm
job_write_conf
chmod 755 "$dir" "$dir/tpm"
chmod 666 "$dir/tpm/sock" "$dir/tpm/sock.ctrl"
install -d -m 755 "$dir/state"
install -d -m 700 -o $keyd_user "$dir/state/keyd"
install -d -m 755 -o $keyd_user "$dir/run/keyd"
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
job_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml" --keyd-user $keyd_user
job_enrolled_with alpha
wait_for 30 test -S "$dir/run/public/pkcs11.sock"
sanitized=no
! grep -q 'sanitizer build' "$dir/log/keyd.log" || sanitized=yes
client() {
    P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock timeout 120 setpriv --reuid $agent_user --regid $agent_user --clear-groups \
        "$bin/../tests-bin/token-client" "$module" "$@" < /dev/null
}
keyd=$(job_pid keyd)
is_keyd() { [ "$(readlink "/proc/$keyd/exe")" = "$(readlink -f "$bin/attestd-keyd")" ]; }
is_keyd || job_fail "another process than keyd"
files() { find "$dir/state/keyd" -type f -printf '%P\n' | sort; }
limits() { setpriv --reuid $keyd_user --regid $keyd_user --clear-groups prlimit --pid "$keyd" "$@"; } # soft ones: its own user may
# at LIMIT VALUE WHAT [REASON]: a rotation is refused (with REASON in words), or done as a whole; agents sign on
at() {
    local limit=$1 value=$2 what=$3 reason=${4:-} was before rotated=yes
    wait_for 60 client sign 1 > "$dir/tmp/out" 2>&1
    before=$(job_serial alpha)
    was=$(limits --noheadings --output SOFT "--$limit")
    : > "$dir/tmp/loop"
    client loop 10 > "$dir/tmp/loop" 2>&1 &
    loop=$!
    wait_for 30 grep -q '^signs$' "$dir/tmp/loop" || { cat "$dir/tmp/loop"; job_fail "no caller before keyd has $what"; }
    limits "--$limit=$value:"
    timeout 300 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate alpha > "$dir/tmp/rotate" 2>&1 || rotated=no
    if [ -n "$reason" ]; then
        [ $rotated = no ] || job_fail "$what: rotated: the limit is none, and the test no test"
        grep -q -- "$reason" "$dir/tmp/rotate" || grep -q -- "$reason" "$dir/log/attestd.log" ||
            { cat "$dir/tmp/rotate"; job_fail "$what: the error does not say $reason"; }
    fi
    [ $rotated = yes ] || [ "$(job_serial alpha)" = "$before" ] || job_fail "$what: refused, and another certificate"
    job_alive keyd && is_keyd || job_fail "keyd ended: $what"
    limits "--$limit=$was:"
    wait $loop || { cat "$dir/tmp/loop"; job_fail "a running caller, keyd with $what"; }
    grep -qE 'error 0x(0|30) last 0x0' "$dir/tmp/loop" || { cat "$dir/tmp/loop"; job_fail "a running caller, keyd with $what"; }
    wait_for 120 job_is alpha valid
    before=$(job_serial alpha)
    wait_for 120 ctl agent rotate alpha
    [ "$(job_serial alpha)" != "$before" ] || job_fail "not rotated after keyd had $what"
    client sign 2 > "$dir/tmp/out" || job_fail "after keyd had $what: $(cat "$dir/tmp/out")"
    ok "keyd with $what: rotated: $rotated, agents sign on ($(tail -n 1 "$dir/tmp/loop" | cut -d' ' -f1-4)); without the limit it works again"
}
at fsize 0 "no byte more in any file" "File too large"
at nofile 3 "no descriptor more"
at nproc 0 "no thread more"
[ $sanitized = yes ] || at as "$(awk '/^VmSize/ {print $2 * 1024}' "/proc/$keyd/status")" "no memory more"

# ---- nothing is half there ----
settled() { [ "$(ctl --json status | jq '.tpm.bad | length')" = 0 ] && [ "$(files | grep -c '\.pem$')" -le 12 ]; }
wait_for 60 settled || { files; job_fail "state is left over"; }
# The next key may just be in the making: what is asked for holds when it is made.
whole() {
    local id
    ! files | grep -E '\.(tmp|bad)' || return 1
    for id in $(files | sed -n 's,^agents/\(.*\)\.json$,\1,p'); do
        [ -e "$dir/state/keyd/agents/$id.pem" ] || { echo "a sidecar without its key: $id" && return 1; }
    done
}
wait_for 60 whole || job_fail "half a file, or a sidecar without its key"
job_stop tokend
ok "no half file is left"
! grep -E 'ERROR: AddressSanitizer|runtime error' "$dir"/log/*.log || job_fail "sanitizer"
