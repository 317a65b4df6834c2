#!/usr/bin/env bash
# TPMs as makers and clouds deliver them, each once with real daemons: what a host with it gets, and what the doctor says.
# (A TPM without RSA: unit/att_tpm/test_bus; templates and handles of the high range: unit/att_tpm/test_ek; EBUSY,
# EACCES and ENOENT of a device: unit/att_tpm/test_context.)
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
for tool in tpm2_nvundefine tpm2_evictcontrol tpm2_dictionarylockout python3; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done

# tool COMMAND...: of tpm2-tools, on the TPM; keyd is not running then
tool() { TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") "$@" > "$dir/tmp/tool" 2>&1 || { cat "$dir/tmp/tool"; job_fail "$*"; }; }
undefine() { TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_nvundefine "$1" -C p > /dev/null 2>&1 || tool tpm2_nvundefine "$1" -C o; }
evict() { TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_evictcontrol -C p -c "$1" > /dev/null 2>&1 || tool tpm2_evictcontrol -C o -c "$1"; }

# host [BANKS [COMMAND...]]: another host, with a new TPM of these banks, on which the command is run; its daemons start
host() {
    local banks=${1:-sha256}
    shift || true
    job_stop attestd
    job_stop keyd
    [ ! -d "$dir/tpm" ] || swtpm_stop "$dir/tpm"
    rm -rf "$dir/tpm" "$dir/state" "$dir/run" "$dir/firmware.log"
    mkdir -p "$dir/run"
    swtpm_make "$dir/tpm"
    [ "$banks" = sha256 ] || swtpm_setup --tpm2 --tpm-state "$dir/tpm/state" --config "$dir/tpm/setup.conf" --reconfigure \
        --pcr-banks "$banks" > "$dir/tmp/setup" 2>&1 || { cat "$dir/tmp/setup"; job_fail "banks $banks"; }
    swtpm_start "$dir/tpm" > /dev/null
    cp "$dir/tpm/ek-roots.pem" "$dir/ek-roots/swtpm.$RANDOM.pem"
    cp "$job_vectors/eventlog.bin" "$dir/firmware.log"
    case $banks in *sha256*) job_boot_tpm ;; esac
    if [ -f "$dir/issuer.yaml" ]; then
        kill -HUP "$(job_pid issuerd)" # for the new root
        ctl ticket create --host "host$RANDOM" --out "$dir/ticket.json" > /dev/null
    fi
    [ $# -eq 0 ] || "$@"
}
start() {
    job_start_keyd
    job_start_attestd
}
doctor() { ctl --json doctor > "$dir/tmp/doctor" || true; }
# finds NAME DETAIL MEND: this line is not ok, and says that; content NAME DETAIL: it is
finds() {
    doctor
    jq -e --arg name "$1" --arg detail "$2" --arg mend "$3" 'any(.checks[]; .name == $name and (.ok | not)
        and (.detail | test($detail)) and (.mend | test($mend)))' "$dir/tmp/doctor"
}
content() {
    doctor
    jq -e --arg name "$1" --arg detail "$2" 'any(.checks[]; .name == $name and .ok and (.detail | test($detail)))' "$dir/tmp/doctor"
}
refused_as() { ctl --json status | jq -e --arg reason "$1" '.lastError.reason == $reason'; }
pending() { ctl --json host list --state pending | jq -er '.hosts[0].id'; }
# A certificate on this TPM, quoted and judged.
certified() {
    wait_for 60 pending
    local id
    id=$(pending)
    ctl host approve "$id" > /dev/null
    printf 'trust_domain: bank.example\nagents:\n  - name: alpha\n    owner: t@bank.example\n    hosts: [ "ek:%s" ]\n    workload: { uid: 1001 }\n    key: tpm\n    profile: trading\n' "$id" > "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > /dev/null
    wait_for 90 job_serial alpha
    job_check_chain alpha
}

# ---- an RSA EK's certificate is all there is ----
host sha256
job_write_conf
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || { cat "$dir/log/init.log"; job_fail "attest-issuerd init"; }
job_start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host rsa --out "$dir/ticket.json" > /dev/null
undefine 0x01c00016
evict 0x81010016
start
certified
wait_for 30 content ekKey '^RSA-2048, low-range template, at 0x81010001'
wait_for 30 content ekCertificate 0x01c00002
ok "RSA-only EK: enrolled, certified; the doctor says which EK it is"

# ---- the high range, SHA-1 beside SHA-256, and in lockout ----
lockout() {
    tool tpm2_dictionarylockout -s -n 2 -t 1000 -l 1000
    tool tpm2_nvdefine 0x01800001 -C o -s 8 -p right -a 'authread|authwrite'
    local _
    for _ in 1 2 3; do
        ! TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_nvread 0x01800001 -C 0x01800001 -P wrong > /dev/null 2>&1 || job_fail "a wrong guess was right"
    done
}
host sha1,sha256 lockout
start
certified
wait_for 30 content ekKey '^P-384, high-range template'
wait_for 30 content pcrBank 'sha1, sha256'
wait_for 30 finds sha1Bank 'in use' 'firmware'
wait_for 30 finds tpmLockout '2 of 2' 'forgets one failure each 1000 s'
ok "high-range EK, SHA-1 bank beside SHA-256, lockout: certified all the same, and said"

# ---- SHA-1 alone ----
host sha1
start
wait_for 60 finds pcrBank 'in use: sha1$' 'tpm2_pcrallocate'
wait_for 60 refused_as pcrSelection
ok "SHA-1 alone: refused as pcrSelection; the doctor says how to switch SHA-256 on"

# ---- no certificate in NV ----
host sha256
undefine 0x01c00002
undefine 0x01c00016
start
wait_for 60 finds ekCertificate 'NV$' 'inventory'
wait_for 60 refused_as ekChain
wait_for 30 content ekKey '^P-256, low-range template, made from its template'
ok "no EK certificate in NV: refused as ekChain where no inventory knows the EK; the doctor names the inventory"

# ---- no log, as in a container ----
host sha256
rm "$dir/firmware.log"
start
wait_for 60 finds firmwareLog 'firmware.log' 'container'
wait_for 60 refused_as logMissing
ok "no firmware log: refused as logMissing; the doctor speaks of containers"

# ---- the TPM serves somebody else ----
host sha256
python3 -c 'import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(bytes.fromhex("80010000000c0000017b0008")); s.recv(100) # GetRandom: it is ours
open(sys.argv[2], "w").close()
time.sleep(600)' "$dir/tpm/sock" "$dir/tmp/held" < /dev/null > "$dir/log/holder.log" 2>&1 &
echo $! > "$dir/holder.pid"
disown $!
wait_for 30 test -e "$dir/tmp/held"
start
wait_for 30 finds tpm '^(starting|tpmSilent|tpmGone)' 'fuser'
job_stop holder KILL
wait_for 60 content tpm '^ready$'
ok "a TPM that another program holds: the doctor says so; ready when it is let go"
fault_sanitizers
