#!/usr/bin/env bash
# attestd at a stock step-ca (provisioner of type ACME with device-attest-01, format tpm), on a swtpm: a certificate for
# the EK's identifier, a renewal that nobody asks for with another key and statement, kill -9 amid orders. Our issuer is
# there for its attestation CA alone. What step-ca refuses is refused by name, and nothing is installed. Fetching and
# building step-ca takes half an hour of one processor, so this runs with ATT_LONG=1, or with ATT_STEP_CA=its binary; the
# same without it: integration/test_acme_server.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and port come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
version=v0.30.2
[ -n "${ATT_LONG:-}${ATT_STEP_CA:-}" ] || job_skip "fetches and builds step-ca: ATT_LONG=1"
command -v go > /dev/null || [ -n "${ATT_STEP_CA:-}" ] || job_skip "no Go"
job_setup
server=${ATT_STEP_CA:-$dir/go/step-ca}
if [ -z "${ATT_STEP_CA:-}" ]; then
    CGO_ENABLED=0 GOBIN=$dir/go timeout 3600 nice go install "github.com/smallstep/certificates/cmd/step-ca@$version" > "$dir/tmp/build" 2>&1 ||
        { tail -n 5 "$dir/tmp/build"; job_skip "step-ca cannot be had here"; }
fi
job_make_tpm
job_write_conf
printf 'devices:\n  profiles: [ { name: device, lifetime: 2h } ]\n  attestation_ca: true\n' >> "$dir/issuer.yaml"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || { cat "$dir/log/init.log"; job_fail "attest-issuerd init"; }
job_start_issuer
port_into step_port

# ---- a step-ca ----------------------------------------------------------------------------------------
mkdir -p "$dir/step"
ca() { # NAME SUBJECT EXTENSIONS [ISSUER]
    openssl ecparam -name prime256v1 -genkey -noout -out "$dir/step/$1.key"
    openssl req -new -key "$dir/step/$1.key" -subj "/CN=$2" -out "$dir/tmp/$1.csr"
    printf 'basicConstraints=critical,CA:TRUE%s\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' "$3" > "$dir/tmp/$1.ext"
    if [ -n "${4:-}" ]; then
        openssl x509 -req -in "$dir/tmp/$1.csr" -CA "$dir/step/$4.crt" -CAkey "$dir/step/$4.key" -CAcreateserial -days 30 -extfile "$dir/tmp/$1.ext" -out "$dir/step/$1.crt" 2> /dev/null
    else
        openssl x509 -req -in "$dir/tmp/$1.csr" -signkey "$dir/step/$1.key" -days 30 -extfile "$dir/tmp/$1.ext" -out "$dir/step/$1.crt" 2> /dev/null
    fi
}
ca root "step root" ""
ca int "step intermediate" ",pathlen:0" root
ca stranger "another attestation CA" ""
provisioner() { # NAME ATTESTATION-ROOTS MORE
    printf '{"type": "ACME", "name": "%s", "challenges": ["device-attest-01"], "attestationFormats": ["tpm"], "attestationRoots": "%s"%s}' \
        "$1" "$(base64 -w 0 < "$2")" "$3"
}
claims=', "claims": {"minTLSCertDuration": "1m", "defaultTLSCertDuration": "90s"}'
cat > "$dir/step/ca.json" << END
{"root": "$dir/step/root.crt", "crt": "$dir/step/int.crt", "key": "$dir/step/int.key",
 "address": "127.0.0.1:$step_port", "dnsNames": ["127.0.0.1"], "logger": {"format": "json"},
 "db": {"type": "badgerv2", "dataSource": "$dir/step/db"},
 "authority": {"backdate": "1s", "provisioners": [
  $(provisioner device "$dir/issuer/ca/ak-roots.pem" "$claims"),
  $(provisioner stranger "$dir/step/stranger.crt" ""),
  $(provisioner eab "$dir/issuer/ca/ak-roots.pem" ', "requireEAB": true'),
  $(provisioner uri "$dir/issuer/ca/ak-roots.pem" ', "options": {"x509": {"template": "{\"subject\": {{ toJson .Subject }}, \"sans\": [{\"type\": \"permanentIdentifier\", \"value\": \"somebody-else\"}], \"keyUsage\": [\"digitalSignature\"], \"extKeyUsage\": [\"clientAuth\"]}"}}'),
  {"type": "ACME", "name": "web", "challenges": ["http-01"]}]}}
END
job_start step "$server" "$dir/step/ca.json"
healthy() { curl -sf --cacert "$dir/step/root.crt" "https://127.0.0.1:$step_port/health"; }
wait_for 60 healthy

# ---- attestd at it --------------------------------------------------------------------------------------
conf() { # PROVISIONER
    cat > "$dir/attestd.yaml" << END
acme:
  directory: https://127.0.0.1:$step_port/acme/$1/directory
  ca_file: $dir/step/root.crt
  agents: $dir/acme-agents.yaml
  attestation_ca: { url: "https://127.0.0.1:$port/acme/attestation-ca", ca_file: $dir/issuer/ca/tls-root.pem }
tpm:
  tcti: "$(cat "$dir/tpm/tcti")"
state_dir: $dir/state
run_dir: $dir/run
control_group: none
END
}
agents() { printf 'agents:\n  - name: web\n    identifier: "%s"\n    workload: { uid: 1001 }\n' "$1" > "$dir/acme-agents.yaml"; }
host_reason() { [ "$(ctl --json status | jq -r '.lastError.reason // ""')" = "$1" ]; }
agent_reason() { [ "$(ctl --json agent show web | jq -r '.lastError.reason // ""')" = "$1" ]; }
nothing_installed() { [ -z "$(find "$dir/state/host/agents" -mindepth 1 -maxdepth 1 ! -name '.*')" ] || job_fail "something was installed"; }
# step-ca knows one account of a key, and ties it to the provisioner that saw it first ("kid does not match stored account
# location"): another provisioner wants another account key.
at() { # PROVISIONER
    job_stop attestd
    job_stop keyd
    rm -f "$dir/state/keyd/account.pem"
    conf "$1"
    job_start_keyd
    job_start_attestd
}

agents ek
conf eab
job_start_keyd
job_start_attestd
wait_for 60 host_reason eabMissing
echo "ok: eabMissing"
host=$(ctl --json status | jq -r .enrolment.ekId)
printf 'ek,label,labels\n%s,job,\n' "$host" > "$dir/tmp/hosts.csv"
ctl host import -f "$dir/tmp/hosts.csv" > /dev/null

at stranger
wait_for 60 agent_reason badAttestationStatement
ctl --json agent show web | jq -e '.lastError.message | contains("x5c is not valid")' > /dev/null || { ctl --json agent show web | jq .lastError; job_fail "another refusal"; }
nothing_installed
echo "ok: badAttestationStatement: an attestation CA that this provisioner does not trust"

at web
no_challenge() { agent_reason unsupportedIdentifier || agent_reason noDeviceAttest || agent_reason rejectedIdentifier || agent_reason malformed; }
wait_for 60 no_challenge
nothing_installed
echo "ok: $(ctl --json agent show web | jq -r '.lastError.reason'): a provisioner without device-attest-01"

at uri
wait_for 60 agent_reason chainSan
nothing_installed
echo "ok: chainSan: a certificate for somebody else is not installed"

agents somebody-else
at device
not_its_own() { agent_reason rejectedIdentifier || agent_reason badAttestationStatement; }
wait_for 60 not_its_own || { ctl --json agent show web; job_fail "another TPM's identifier"; }
nothing_installed
echo "ok: $(ctl --json agent show web | jq -r '.lastError.reason'): an identifier that the AK certificate does not name"

agents ek
kill -HUP "$(job_pid attestd)"
wait_for 90 job_settled web
chain=$dir/state/host/agents/web/chain.pem
verify() {
    openssl verify -no_check_time -purpose sslclient -CAfile "$dir/step/root.crt" -untrusted "$chain" "$chain" > "$dir/tmp/verify" ||
        { cat "$dir/tmp/verify"; job_fail "the certificate does not verify"; }
}
verify
openssl x509 -in "$chain" -outform DER | grep -aq "$host" || job_fail "the certificate does not name the EK"
ctl --json agent show web | jq -e --arg host "$host" '.identifier == $host and .lifetimeS > 80 and .lifetimeS < 100' > /dev/null || { ctl --json agent show web; job_fail "agent show"; }
echo "ok: a certificate from $("$server" version | head -n 1)"

key_of() { ctl --json agent show web | jq -er .keyId; }
k1=$(key_of)
renewed() { [ "$(key_of)" != "$k1" ] && job_settled web; }
wait_for 60 renewed
verify
[ "$(ctl --json agent show web | jq -r '.retired[0].keyId')" = "$k1" ] || job_fail "the old key is not retired"
echo "ok: renewed by itself, with a new key"

(while [ -d "$dir/run" ]; do
    timeout 20 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate web > /dev/null 2>&1 || sleep 0.05
done) &
rotator=$!
trap 'status=$?; kill $rotator 2> /dev/null || true; set +e; (exit "$status"); job_cleanup' EXIT
issued() { ctl --json agent show web | jq .issued; }
more_than() { [ "$(issued)" -gt "$1" ]; }
for i in $(seq "${KILLS:-8}"); do
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
verify
echo "ok: ${KILLS:-8} kills; what is installed is whole at each"
