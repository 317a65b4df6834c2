#!/usr/bin/env bash
# An HSM's module that hangs, dies, loses its device or locks its PIN, seen by agents' programs: three agents with
# keys in the HSM and one with a key in the TPM, stock PKCS#11 clients, the real daemons. The HSM's agents get a
# clean error in time and work again on the same connection; the other one is not delayed; status and
# doctor say what it is.
set -euo pipefail
[ -n "${ATT_LONG:-}" ] || { echo "skipped: minutes long; scripts/test --all runs it (ATT_LONG=1)"; exit 77; }
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir, bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
# shellcheck source=../support/hsm.sh
. "$ATT_SOURCE_DIR/tests/support/hsm.sh"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
client=$ATT_BIN_DIR/../tests-bin/token-client
job_setup
chmod 755 "$dir"
hsm_bad_module
job_make_tpm
job_write_conf
job_start_all
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/whod.sock"
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
chmod -R a+rX "$dir/run"
chmod a+x "$dir/state" "$dir/state/host" "$dir/state/host/agents" # as the units have it
export P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock P11_KIT_STRICT=1
hsm_agents=(hsm-a hsm-b hsm-c)
declare -A uid_of=([in-tpm]=1101 [hsm-a]=1102 [hsm-b]=1103 [hsm-c]=1104)
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
{
    printf 'trust_domain: bank.example\nagents:\n'
    for name in in-tpm "${hsm_agents[@]}"; do
        echo "  - { name: $name, owner: x@bank.example, hosts: [ \"ek:$(job_host_id)\" ], workload: { uid: ${uid_of[$name]} },"
        echo "      key: $([ $name = in-tpm ] && echo tpm || echo hsm), profile: trading }"
    done
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > /dev/null
for name in in-tpm "${hsm_agents[@]}"; do
    wait_for 60 job_serial "$name"
done

as() { # NAME COMMAND...
    local uid=${uid_of[$1]}
    shift
    timeout 120 setpriv --reuid="$uid" --regid="$uid" --clear-groups env HOME=/nonexistent "$@" < /dev/null
}
signs() { as "$1" "$client" "$module" sign "${2:-1}" > "$dir/tmp/$1.out" 2>&1; }
all_sign() {
    local name
    for name in "${hsm_agents[@]}"; do
        signs "$name" || return 1
    done
}
# not_delayed: the slowest of 40 signatures by the TPM's key, in ms
slowest_ms() {
    signs in-tpm 40 || { cat "$dir/tmp/in-tpm.out"; job_fail "in-tpm does not sign"; }
    sed 's/.*p99_us \([0-9]*\).*/\1/; s/...$//' "$dir/tmp/in-tpm.out"
}
not_delayed() {
    local ms
    ms=$(slowest_ms)
    [ "${ms:-0}" -lt 1500 ] || job_fail "a signature by the TPM's key took $ms ms"
    echo "   beside it: slowest of 40 signatures by the TPM's key ${ms:-0} ms (alone $alone ms)"
}
loops() { # SECONDS [MAX_MS]: two programs of each HSM agent sign for so long
    local name i
    loop_pids=()
    for name in "${hsm_agents[@]}"; do
        for i in 1 2; do
            as "$name" "$client" "$module" loop "$1" "${2:-5000}" > "$dir/tmp/loop.$name.$i" 2>&1 &
            loop_pids+=($!)
        done
    done
}
# loops_end WORD: all end well, on their first connection, and what failed in between was WORD and nothing else
loops_end() {
    local pid path
    for pid in "${loop_pids[@]}"; do
        wait "$pid" || { cat "$dir"/tmp/loop.*; job_fail "a program did not get over it"; }
    done
    for path in "$dir"/tmp/loop.*; do
        grep -Eq "^ok [1-9][0-9]* failed [1-9][0-9]* error $1 last 0x0" "$path" || { cat "$path"; job_fail "expected failures by $1"; }
    done
}
doctor_says() { # NAME OK PATTERN
    ctl --json doctor > "$dir/tmp/doctor" || true
    jq -e --arg n "$1" --argjson ok "$2" --arg p "$3" '.checks[] | select(.name == $n) | .ok == $ok and (.detail | test($p))' "$dir/tmp/doctor"
}
device_error=0x30
all_sign
alone=$(slowest_ms)
hsm_is ready
wait_for 10 doctor_says hsmPin true ok
doctor_says hsm true ready
ok "three agents in the HSM, one in the TPM; status and doctor: ready"

# ---- unplugged in the middle of signatures ----
loops 12
sleep 3
hsm_tell "C_Sign rv 0x32" "C_GetTokenInfo rv 0x32"
wait_for 20 hsm_is tokenGone
not_delayed
doctor_says hsm false 'tokenGone.*CKR_DEVICE_REMOVED'
hsm_tell
loops_end $device_error
wait_for 20 hsm_is ready
ok "unplugged amid signatures: CKR_DEVICE_ERROR, then the same connections work"

# ---- all that the module is asked hangs ----
loops 45 17000 # tokend's patience is 15 s
sleep 3
hsm_tell "C_Sign hang" "C_GetTokenInfo hang" "C_GetSessionInfo hang"
not_delayed
sleep 2
not_delayed
before=$(fault_serial_on_disk in-tpm)
began=$(date +%s)
ctl agent rotate in-tpm > /dev/null
[ $(($(date +%s) - began)) -lt 15 ] || job_fail "the TPM's agent took $(($(date +%s) - began)) s to rotate"
[ "$before" != "$(fault_serial_on_disk in-tpm)" ]
wait_for 30 hsm_is silent
doctor_says hsm false 'not come back'
not_delayed
# Who asked before that was known has had its answer after eight seconds; by now who asks is refused at once.
sleep 9
began=$(date +%s%3N)
! signs hsm-a || job_fail "signed by a module that hangs"
[ $(($(date +%s%3N) - began)) -lt 3000 ] || job_fail "refused only after $(($(date +%s%3N) - began)) ms"
fault_refused "not come back|busy" "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate hsm-a
hsm_tell
wait_for 30 hsm_is ready
loops_end $device_error
ok "a module that hangs: the TPM's agent signs and rotates, the others are told so, and work again when it comes back"

# ---- it hangs for good: attestd-hsmd ends itself, and who starts it again is systemd's part ----
hsm_tell "C_Sign hang" "C_GetTokenInfo hang"
! signs hsm-a || job_fail "signed by a module that hangs"
ended() { ! job_alive hsmd; }
wait_for 90 ended
fault_log_has hsmd 'hsmd.stuck'
not_delayed
wait_for 10 hsm_is hsmdAway
doctor_says hsm false 'hsmdAway'
hsm_tell
job_stop hsmd KILL
job_start_hsmd
wait_for 30 all_sign
ok "a module that hangs for good: ended after a minute, the next process serves"

# ---- it takes its process with it ----
loops 20
sleep 3
hsm_tell "C_Sign die"
wait_for 10 ended
not_delayed
hsm_tell
job_stop hsmd KILL
job_start_hsmd
loops_end $device_error
ok "a module that ends its process: CKR_DEVICE_ERROR, then the same connections work"

# ---- what the device says ----
declare -A word=([0x30]=CKR_DEVICE_ERROR [0xb3]=CKR_SESSION_HANDLE_INVALID [0x101]=CKR_USER_NOT_LOGGED_IN)
for rv in 0x30 0xb3 0x101; do
    hsm_tell "C_Sign rv $rv 1"
    signs hsm-a || { cat "$dir/tmp/hsm-a.out"; job_fail "${word[$rv]} once: the program noticed"; }
    hsm_tell "C_Sign rv $rv"
    sleep 1.2 # keyd writes one line a second about refusals
    ! signs hsm-a || job_fail "${word[$rv]}: signed"
    grep -q "$device_error" "$dir/tmp/hsm-a.out" || { cat "$dir/tmp/hsm-a.out"; job_fail "${word[$rv]}: another error"; }
    fault_log_has keyd "C_Sign: ${word[$rv]}" || job_fail "keyd's log does not name ${word[$rv]}"
    not_delayed
    hsm_tell
    wait_for 20 signs hsm-a
    ok "${word[$rv]}: once, nobody notices; for ever, it is said by its name"
done

# ---- the PIN ----
logins() { wc -l < "$dir/bad/logins" 2> /dev/null || echo 0; }
hsm_tell "count $dir/bad/logins" "flags 0x10000"
pin_is() { [ "$(hsm_status pin)" = "$1" ]; }
wait_for 20 pin_is countLow
doctor_says hsmPin false countLow
all_sign || job_fail "COUNT_LOW: no signatures"
ok "CKF_USER_PIN_COUNT_LOW: it goes on, and is said"
hsm_tell "count $dir/bad/logins" "flags 0x20000" "C_Sign rv 0x101 5"
! signs hsm-a || job_fail "logged in with the last try"
for flag in 0x20000:finalTry 0x40000:locked; do
    hsm_tell "count $dir/bad/logins" "flags ${flag%:*}"
    wait_for 20 pin_is "${flag#*:}"
    wait_for 20 hsm_is failed
    job_stop hsmd KILL
    rm -f "$dir/run/hsm/default/hsm.sock"
    job_start hsmd "$bin/attestd-hsmd" --config "$dir/attestd.yaml"
    wait_for 20 test -S "$dir/run/hsm/default/hsm.sock"
    sleep 3 # keyd looks at it every two seconds: what it says is not of the process before
    wait_for 20 pin_is "${flag#*:}"
    wait_for 20 hsm_is failed
    doctor_says hsmPin false "${flag#*:}"
    doctor_says hsm false pinLocked
    jq -e '.checks[] | select(.name == "hsmPin") | .mend | test("security officer")' "$dir/tmp/doctor" > /dev/null
    ctl status | grep -q "PIN *${flag#*:}" || job_fail "status does not show the PIN"
    ! signs hsm-a || job_fail "signed without a login"
    fault_refused PIN "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate hsm-a
    not_delayed
done
[ "$(logins)" = 0 ] || job_fail "$(logins) logins with a PIN that may not be tried"
hsm_tell "count $dir/bad/logins"
wait_for 30 all_sign
[ "$(logins)" = 1 ] || job_fail "$(logins) logins, expected one"
ok "CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED: no login over restarts, said in status and doctor; set anew, it goes on"

wait_for 120 hsm_whole
fault_sanitizers
echo "an HSM's module at its worst: all held"
