#!/usr/bin/env bash
# The TPM in dictionary-attack lockout, for real (wrong passwords for a key that is protected against guessing): our
# keys are not (noDA), so that agents sign, keys are made and certificates renewed all the same, and keyd starts;
# status and doctor say what is the matter, and that it is over, when it is. Nobody resets the counter.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
for tool in tpm2_dictionarylockout tpm2_sign tpm2_getcap; do command -v $tool > /dev/null || job_skip "no $tool"; done
[ "$(id -u)" = 0 ] || job_skip "a workload of another user needs root"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
job_setup
chmod 755 "$dir"
ok() { echo "ok: $*"; }
job_make_tpm
job_write_conf
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
job_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
job_enrolled_with alpha
wait_for 30 test -S "$dir/run/public/pkcs11.sock"
client() { # client COMMAND…: as the agent's user
    P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock timeout 300 setpriv --reuid 1001 --regid 1001 --clear-groups \
        "$bin/../tests-bin/token-client" "$module" "$@" < /dev/null
}
lockout_is() { ctl --json status | jq -e ".tpm.inLockout == $1 and .tpm.state == \"ready\""; }
doctor_is() { # its exit status is about all that it looks at
    (ctl --json doctor || true) | jq -e ".checks[] | select(.name == \"tpmLockout\") | .ok == $1"
}
client sign 2 > "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
wait_for 30 lockout_is false
wait_for 30 doctor_is true

# ---- locked out, under a caller that signs ----
: > "$dir/tmp/loop"
client loop 20 5000 180 > "$dir/tmp/loop" 2>&1 &
loop=$!
wait_for 30 grep -q '^signs$' "$dir/tmp/loop"
job_stop keyd KILL # swtpm serves one client
recovery=40 # of the end; until then it does not end by itself, however slow the machine
(
    cd "$dir/tmp"
    TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti")
    export TPM2TOOLS_TCTI
    tpm2_flushcontext -t # keyd's
    tpm2_flushcontext -l
    tpm2_dictionarylockout -s -n 2 -t 10000 -l $recovery
    tpm2_createprimary -C o -g sha256 -G ecc -c p.ctx \
        -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|noda' > /dev/null
    tpm2_create -C p.ctx -G ecc:null -p secret -u k.pub -r k.priv \
        -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign' > /dev/null
    tpm2_flushcontext -t
    tpm2_load -C p.ctx -u k.pub -r k.priv -c k.ctx > /dev/null
    tpm2_flushcontext -t
    echo data > data
    for _ in 1 2 3; do
        ! tpm2_sign -c k.ctx -p wrong -g sha256 -o sig data 2> sign.err || exit 1
        tpm2_flushcontext -t
    done
    ! tpm2_sign -c k.ctx -p secret -g sha256 -o sig data 2> sign.err || exit 1
    grep -q 0x921 sign.err || { cat sign.err; exit 1; } # TPM_RC_LOCKOUT, with the right password
    tpm2_flushcontext -t
) > "$dir/tmp/lockout" 2>&1 || { cat "$dir/tmp/lockout"; job_fail "no lockout: the test is no test"; }
job_start_keyd
wait_for 60 lockout_is true
wait_for 30 doctor_is false || job_fail "doctor: $(ctl --json doctor | jq -c .checks)"
ctl doctor > "$dir/tmp/doctor" 2>&1 || true
grep -q 'do not reset the lockout' "$dir/tmp/doctor" || { cat "$dir/tmp/doctor"; job_fail "doctor does not say what to do"; }
ok "in lockout: status and doctor say so"
wait_for 60 client sign 3
wait $loop || { cat "$dir/tmp/loop"; job_fail "a running caller did not recover"; }
grep -qE 'error 0x(0|30) last 0x0' "$dir/tmp/loop" || { cat "$dir/tmp/loop"; job_fail "a running caller: another error than CKR_DEVICE_ERROR"; }
ok "in lockout agents sign: $(tail -n 1 "$dir/tmp/loop")"
before=$(job_serial alpha)
wait_for 60 ctl agent rotate alpha
[ "$(job_serial alpha)" != "$before" ] || job_fail "not rotated"
client sign 2 > "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
ok "in lockout a key is made, certified, quoted for, and signs: they are noDA"

# ---- over, by time alone ----
job_stop keyd KILL
TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_dictionarylockout -s -n 2 -t $recovery -l $recovery
job_start_keyd
wait_for 60 lockout_is true
recovered() { lockout_is false && doctor_is true; }
wait_for $((3 * recovery)) recovered
counter=$(ctl --json status | jq .tpm.lockoutCounter)
[ "$counter" -ge 1 ] || job_fail "the counter is $counter: somebody has reset it"
client sign 2 > "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
ok "over after its time; the counter is still $counter: nobody reset it"
job_stop tokend
echo "lockout: all held"
