#!/usr/bin/env bash
# What attestd puts right by itself: a freeze that a kill cut in half, keys that keyd made though the answer
# never came, an expired chain that cannot be taken away; and what it does not do meanwhile: spin.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
fault_clock_make
job_make_tpm
job_write_conf
clock=$dir/clock
fault_clock "$clock" 0 0
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1
job_start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
job_start_keyd
start_attestd() {
    fault_start_clocked attestd "$clock" "$bin/attestd" --config "$dir/attestd.yaml"
    wait_for 30 ctl status
}
start_attestd
agents=(alpha beta gamma delta epsilon zeta)
job_enrolled_with "${agents[@]}"
wait_for 60 fault_idle "${agents[@]}"

# keyd_ask OPERATION COUNT TEXT...: past attestd
keyd_ask() {
    python3 - "$dir/run/keyd/keyd.sock" "$ATT_SOURCE_DIR/attestd/proc/keyd_proto.h" "$@" << 'END'
import re, socket, struct, sys
path, header, op, count = sys.argv[1:5]
number = int(re.search(r"PROC_KEYD_%s = (\d+)" % op, open(header).read()).group(1))
s = socket.socket(socket.AF_UNIX)
s.connect(path)
payload = b"".join(struct.pack(">I", len(text)) + text.encode() for text in sys.argv[5:])
for i in range(int(count)):
    s.sendall(struct.pack(">IIH", len(payload) + 6, i, number) + payload)
    s.recv(65536)
END
}
frozen_at_keyd() { ctl --json status | jq -e --arg n "$1" '.tpm.frozen | index($n)' > /dev/null; }

# ---- freeze: keyd has it, attestd was killed before its record had ----
keyd_ask FREEZE 1 beta
job_stop attestd KILL
start_attestd
wait_for 30 job_is beta frozen || job_fail "frozen at keyd, not in the record: $(ctl --json agent show beta | jq -c .)"
fault_refused 'frozen' "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate beta
ctl agent thaw beta > /dev/null
wait_for 30 job_is beta valid
! frozen_at_keyd beta || job_fail "thawed, but not at keyd"
# ---- and the other way round: a thaw of which only keyd has heard ----
ctl agent freeze gamma > /dev/null
keyd_ask THAW 1 gamma
! frozen_at_keyd gamma || job_fail "the test did not thaw"
job_stop attestd KILL
start_attestd
wait_for 30 frozen_at_keyd gamma || job_fail "frozen by its record, not at keyd"
wait_for 30 job_is gamma frozen
ctl agent thaw gamma > /dev/null
wait_for 60 fault_idle "${agents[@]}"
ok "a freeze cut in half is completed"

# ---- keys that no record knows, up to the limit: the first key that attestd asks for is refused ----
keyd_ask KEY_CREATE 16 theta tpm ec-p256 ""
keys=$(ctl --json status | jq .tpm.keys)
[ "$keys" = $((2 * ${#agents[@]} + 16)) ] || job_fail "the test made no keys: $keys"
job_entries "${agents[@]}" theta
agents+=(theta)
wait_for 60 fault_idle "${agents[@]}" || job_fail "left-over keys: $(ctl --json status | jq .tpm.keys)"
ok "keys up to the limit are collected"
# ---- keyd is stopped while a key is asked for, longer than attestd waits ----
# The new view reaches attestd only where its request waits at the issuer: a request needs keyd's signature. Whoever was
# stopped just before it is tried again.
lost=$(fault_log_count attestd 'agent.(failed|turnFailed)')
for name in eta iota kappa lambda; do
    kill -STOP "$(job_pid keyd)"
    agents+=("$name")
    job_entries "${agents[@]}"
    ! JOB_PATIENCE=1 wait_for 60 fault_log_more attestd 'agent.(failed|turnFailed)' "$lost" > "$dir/tmp/tried" || break
    kill -CONT "$(job_pid keyd)"
    wait_for 90 fault_idle "${agents[@]}"
done
fault_log_more attestd 'agent.(failed|turnFailed)' "$lost" || job_fail "no key was asked for while keyd stood"
kill -CONT "$(job_pid keyd)"
wait_for 90 fault_idle "${agents[@]}" || job_fail "a key was left over: $(ctl --json status | jq .tpm.keys)"
ok "a key whose answer did not come is collected"

# ---- more agents due than workers, and an issuer that hangs: main sleeps ----
kill -STOP "$(job_pid issuerd)"
fault_clock "$clock" 2300 2300
sleep 3
switches() { awk '/^voluntary/ {print $2}' "/proc/$(job_pid attestd)/task/$(job_pid attestd)/status"; }
before=$(switches)
sleep 4
woken=$(($(switches) - before))
[ "$woken" -lt 400 ] || job_fail "main woke $woken times in 4 s"
kill -CONT "$(job_pid issuerd)"
fault_clock "$clock" 0 2300
wait_for 90 fault_idle "${agents[@]}"
ok "main sleeps while agents wait for workers ($woken times awake in 4 s)"

# ---- an expired chain that cannot be taken away ----
agents_dir=$dir/state/host/agents
mv "$agents_dir/.gen" "$agents_dir/.gen.away"
: > "$agents_dir/.gen"
job_stop issuerd KILL
fault_clock "$clock" 7200 9500
wait_for 30 fault_log_has attestd 'turnFailed.*alpha' || job_fail "the test does not keep the chain from being withdrawn"
before=$(fault_log_count attestd 'turnFailed.*alpha')
sleep 6
tries=$(($(fault_log_count attestd 'turnFailed.*alpha') - before))
[ "$tries" -lt 10 ] || job_fail "$tries tries in 6 s"
rm "$agents_dir/.gen"
mv "$agents_dir/.gen.away" "$agents_dir/.gen"
withdrawn() { [ ! -L "$agents_dir/alpha" ]; }
wait_for 90 withdrawn || job_fail "the expired chain stays"
ok "a withdrawal that fails is tried with pauses ($tries in 6 s)"

fault_clock "$clock" 0 9500
job_start_issuer

# ---- a damaged AK certificate is kept, and made anew ----
job_stop attestd
echo garbage > "$dir/state/host/ak.pem"
start_attestd
ak_again() { openssl x509 -in "$dir/state/host/ak.pem" -noout 2> /dev/null; }
wait_for 30 ak_again || job_fail "no AK certificate: $(ctl --json status | jq -c .enrolment)"
[ "$(cat "$dir/state/host/ak.pem.bad")" = garbage ] || job_fail "the damaged ak.pem is not kept"
rm "$dir/state/host/ak.pem.bad"
ok "a damaged ak.pem is kept as .bad"
fault_whole "${agents[@]}"
echo "host repairs: all held"
