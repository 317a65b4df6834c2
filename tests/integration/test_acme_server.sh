#!/usr/bin/env bash
# attestd at another server than an attest-issuerd (section acme of attestd.yaml): device-attest-01 with a statement of
# TPM2_Certify alone, permanent identifiers, an AK certificate from an attestation CA in Smallstep's dialect. The server
# here is our issuer's endpoint for devices, which takes any such client; tests/interop/test_step_ca.sh has step-ca,
# test_acme_server_bad.sh servers that do what they should not. Refusals first.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
job_make_tpm
job_write_conf
printf 'devices:\n  profiles: [ { name: device, lifetime: 2h } ]\n  attestation_ca: true\n' >> "$dir/issuer.yaml"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || { cat "$dir/log/init.log"; job_fail "attest-issuerd init"; }
job_start_issuer
ctl ticket create --uses 5 --out "$dir/ticket.json" > /dev/null
jq -r .macKey "$dir/ticket.json" > "$dir/eab.key"
kid=$(jq -r .kid "$dir/ticket.json")

# acme_conf DIRECTORY [LINE...]: attestd.yaml with this section; ROOTS and EAB from the environment
acme_conf() {
    cat > "$dir/attestd.yaml" << END
acme:
  directory: $1
  ca_file: $dir/issuer/ca/tls-root.pem
  roots: ${ROOTS:-$dir/issuer/ca/dns-root.crt}
  agents: $dir/acme-agents.yaml
  attestation_ca: { url: "https://127.0.0.1:$port/acme/attestation-ca" }
${EAB-  eab: { kid: "$kid", key_file: $dir/eab.key\}}
tpm:
  tcti: "$(cat "$dir/tpm/tcti")"
state_dir: $dir/state
run_dir: $dir/run
control_group: none
logs:
  firmware: $dir/firmware.log
END
}
agents() { # NAME...
    echo "agents:"
    local name
    for name in "$@"; do
        printf '  - name: %s\n    profile: device\n    workload: { uid: 1001 }\n' "$name"
    done
}
directory=https://127.0.0.1:$port/acme/directory
host_reason() { [ "$(ctl --json status | jq -r '.lastError.reason // ""')" = "$1" ]; }
agent_reason() { [ "$(ctl --json agent show "$1" | jq -r '.lastError.reason // ""')" = "$2" ]; }
nothing_installed() { [ -z "$(find "$dir/state/host/agents" -mindepth 1 -maxdepth 1 ! -name '.*')" ] || job_fail "something was installed"; }
restart() {
    job_stop attestd
    job_start_attestd
}

# ---- bad configuration ------------------------------------------------------------------------------
agents web > "$dir/acme-agents.yaml"
acme_conf "$directory"
"$bin/attestd" --config "$dir/attestd.yaml" --check > /dev/null
sed 's/uid: 1001/uid: root/' "$dir/acme-agents.yaml" > "$dir/tmp/agents" && mv "$dir/tmp/agents" "$dir/acme-agents.yaml"
! "$bin/attestd" --config "$dir/attestd.yaml" --check > "$dir/tmp/check" 2>&1 || job_fail "a bad file of agents passed"
grep -q 'acme-agents.yaml:4: agents\[0\].workload\[0\].uid' "$dir/tmp/check" || { cat "$dir/tmp/check"; job_fail "--check does not say where"; }
agents web > "$dir/acme-agents.yaml"
echo "ok: --check reads the file of agents"

# ---- no EAB -----------------------------------------------------------------------------------------
EAB='' acme_conf "$directory"
job_start_keyd
job_start_attestd
wait_for 60 host_reason eabMissing
echo "not base64url!" > "$dir/eab.key"
acme_conf "$directory"
restart
wait_for 60 host_reason eabKey
head -c 32 /dev/urandom | basenc --base64url | tr -d '=' > "$dir/eab.key"
restart
eab_refused() { host_reason externalAccountRequired || host_reason ticketInvalid || host_reason unauthorized; }
wait_for 60 eab_refused
nothing_installed
ctl status | grep -q 'kind.*acme' || job_fail "status does not name the kind of server"
jq -r .macKey "$dir/ticket.json" > "$dir/eab.key"
echo "ok: eabMissing, eabKey, and a binding with another key"

# ---- who nobody knows -------------------------------------------------------------------------------
acme_conf "$directory"
restart
wait_for 60 host_reason attestationCa
nothing_installed
echo "ok: attestationCa: a host that is not in the inventory gets no AK certificate"
host=$(ctl --json status | jq -r .enrolment.ekId)
[ "${#host}" = 64 ] || job_fail "no EK id, which the operator needs: $host"
printf 'ek,label,labels\n%s,job,\n' "$host" > "$dir/tmp/hosts.csv"
ctl host import -f "$dir/tmp/hosts.csv" > /dev/null

# ---- roots that the certificate does not lead to -----------------------------------------------------
ROOTS=$dir/issuer/ca/tls-root.pem acme_conf "$directory"
restart
wait_for 60 agent_reason web chainPath
nothing_installed
echo "ok: chainPath: a certificate under another root is not installed"

# ---- a certificate -----------------------------------------------------------------------------------
acme_conf "$directory"
restart
wait_for 90 job_settled web
chain=$dir/state/host/agents/web/chain.pem
verify() {
    openssl verify -purpose sslclient -CAfile "$dir/issuer/ca/dns-root.crt" -untrusted "$chain" "$chain" > "$dir/tmp/verify" ||
        { cat "$dir/tmp/verify"; job_fail "the certificate does not verify"; }
}
verify
openssl x509 -in "$chain" -outform DER | grep -aq "$host" || job_fail "the certificate does not name the EK"
cmp "$dir/issuer/ca/dns-root.crt" "$dir/state/host/bundle.pem" || job_fail "the bundle is not the roots"
ctl --json agent show web > "$dir/tmp/show"
jq -e --arg host "$host" '.identifier == $host and .spiffeId == null and .key == "tpm" and .lifetimeS >= 7000' "$dir/tmp/show" > /dev/null ||
    { cat "$dir/tmp/show"; job_fail "agent show"; }
ctl --json status | jq -e '.issuer.kind == "acme" and (.issuer.lacks | index("bootEvidence") and index("revocationPush") and
    index("jwtTokens") and index("transparencyLog") and index("spiffeIds"))' > /dev/null || job_fail "status does not say what is missing"
ctl doctor > "$dir/tmp/doctor" || true
grep -q 'bootEvidence.*nobody judges how this host booted' "$dir/tmp/doctor" || { cat "$dir/tmp/doctor"; job_fail "doctor does not say what is missing"; }
! ctl token web --audience https://api.example > "$dir/tmp/token" 2>&1 || job_fail "a token of a server that mints none"
grep -q tokensOff "$dir/tmp/token" || { cat "$dir/tmp/token"; job_fail "another refusal of a token"; }
echo "ok: a certificate for $host; what such a server lacks is said"

# ---- renewal: another key, another statement ----------------------------------------------------------
key_of() { ctl --json agent show web | jq -er .keyId; }
granted() { ctl --json audit list --kind issue --limit 100 | jq '[.records[].record | select(.outcome == "granted")] | length'; }
k1=$(key_of) s1=$(job_serial web) n1=$(granted)
openssl x509 -in "$chain" -noout -pubkey > "$dir/tmp/pub1"
ctl agent rotate web > /dev/null
k2=$(key_of) s2=$(job_serial web)
openssl x509 -in "$chain" -noout -pubkey > "$dir/tmp/pub2"
[ "$k1" != "$k2" ] && [ "$s1" != "$s2" ] && ! cmp -s "$dir/tmp/pub1" "$dir/tmp/pub2" || job_fail "a renewal with the old key"
[ "$(granted)" -gt "$n1" ] || job_fail "a renewal without a verdict"
verify
[ "$(ctl --json agent show web | jq -r '.retired[0].keyId')" = "$k1" ] || job_fail "the old key is not retired"
echo "ok: a renewal has a new key, its own statement, and retires the old key"

# ---- kill -9 amid orders ------------------------------------------------------------------------------
(while [ -d "$dir/run" ]; do
    timeout 20 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate web > /dev/null 2>&1 || sleep 0.05
done) &
rotator=$!
trap 'status=$?; kill $rotator 2> /dev/null || true; set +e; (exit "$status"); job_cleanup' EXIT
issued() { ctl --json agent show web | jq .issued; }
more_than() { [ "$(issued)" -gt "$1" ]; }
for i in $(seq "${KILLS:-6}"); do
    sleep "0.$((RANDOM % 10))$((RANDOM % 10))"
    victim=$([ $((i % 3)) = 0 ] && echo keyd || echo attestd)
    job_stop "$victim" KILL
    verify
    "job_start_$victim"
    n=$(issued)
    wait_for 60 more_than "$n" || job_fail "after kill $i of $victim: $(ctl --json agent show web)"
done
kill $rotator 2> /dev/null || true
wait $rotator 2> /dev/null || true
wait_for 60 job_settled web
sqlite3 "$dir/issuer/issuer.db" "SELECT count(*) - count(DISTINCT serial) FROM certs" > "$dir/tmp/serials"
[ "$(cat "$dir/tmp/serials")" = 0 ] || job_fail "a serial number twice"
verify
echo "ok: ${KILLS:-6} kills; what is installed is whole at each"

# An order that stood when attestd was killed: the issuer is held after it has it, and the record has its URL.
order_url() { jq -er '.orderUrl | select(. != "")' "$dir/state/host/records/web.json"; }
hold_order() {
    local i
    for i in $(seq 200); do
        timeout 20 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate web > /dev/null 2>&1 &
        for _ in $(seq 200); do
            if order_url > "$dir/tmp/order" 2> /dev/null; then
                kill -STOP "$(job_pid issuerd)"
                wait
                return 0
            fi
        done
        wait
    done
    job_fail "no order was seen in the record"
}
hold_order
job_stop attestd KILL
if order=$(order_url); then
    kill -CONT "$(job_pid issuerd)"
    job_start_attestd
    no_order() { ! order_url > /dev/null 2>&1; }
    wait_for 60 no_order
    wait_for 60 job_settled web
    verify
    echo "ok: the order ${order##*/} was gone on with after a kill"
else
    kill -CONT "$(job_pid issuerd)"
    job_start_attestd
    echo "not tried: the order was over before the issuer was held"
fi

# ---- the file of agents -------------------------------------------------------------------------------
agents web batch > "$dir/acme-agents.yaml"
kill -HUP "$(job_pid attestd)"
wait_for 60 job_settled batch
printf 'agents: [ { name: batch, key: memory, workload: { uid: 1 } } ]\n' > "$dir/acme-agents.yaml"
kill -HUP "$(job_pid attestd)"
wait_for 30 grep -q conf.notReloaded "$dir/log/attestd.log"
job_is web valid || job_fail "a bad file changed something"
agents batch > "$dir/acme-agents.yaml"
kill -HUP "$(job_pid attestd)"
gone() { ! ctl agent show web > /dev/null 2>&1; }
wait_for 60 gone
[ ! -e "$chain" ] || job_fail "what was taken out of the file is still installed"
chain=$dir/state/host/agents/batch/chain.pem
verify
n=$(grep -c conf.notReloaded "$dir/log/attestd.log")
cp "$dir/attestd.yaml" "$dir/tmp/good"
printf 'issuer: { url: "%s", ca_file: %s }\n' "https://127.0.0.1:$port/acme" "$dir/issuer/ca/tls-root.pem" > "$dir/attestd.yaml"
sed -n '/^tpm:/,$p' "$dir/tmp/good" >> "$dir/attestd.yaml"
kill -HUP "$(job_pid attestd)"
refused_again() { [ "$(grep -c conf.notReloaded "$dir/log/attestd.log")" -gt "$n" ]; }
wait_for 30 refused_again
grep -q 'conf.notReloaded.*section acme' "$dir/log/attestd.log" || job_fail "another refusal of a reload"
cp "$dir/tmp/good" "$dir/attestd.yaml"
echo "ok: agents come and go with the file; a bad one, and another kind of server, change nothing"

# ---- the server says no --------------------------------------------------------------------------------
ctl host ban "$host" --reason test > /dev/null
! timeout 30 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate batch > /dev/null 2>&1 || job_fail "a banned host got a certificate"
agent_reason batch hostBanned || { ctl --json agent show batch; job_fail "another refusal"; }
verify
echo "ok: hostBanned: refused by name; what is installed serves until it ends"

# ---- a server that has nothing for devices ------------------------------------------------------------------
job_stop issuerd
sed -i '/^devices:/,$d' "$dir/issuer.yaml"
job_start_issuer
no_devices() {
    timeout 30 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate batch > /dev/null 2>&1 && return 1
    agent_reason batch unsupportedIdentifier || agent_reason batch rejectedIdentifier
}
wait_for 60 no_devices
echo "ok: a server without permanent identifiers: $(ctl --json agent show batch | jq -r .lastError.reason)"
