#!/usr/bin/env bash
# step's own client library (go.step.sm/crypto, the Go module) with Go's ACME client, against a swtpm: it enrols an AK
# at the attestation CA's endpoints, and gets certificates for the EK's identifier by device-attest-01. Its AK is RSA
# and stands under the storage root: nothing that an agent could be had with. Fetching and building the module takes
# minutes, so this runs with ATT_LONG=1 only; the same messages without it: unit/issuer/test_step_ca, test_device.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ -n "${ATT_LONG:-}${ATT_STEP_CLIENT:-}" ] || job_skip "fetches and builds a Go module: ATT_LONG=1"
command -v go > /dev/null || job_skip "no Go"
job_setup
client=${ATT_STEP_CLIENT:-$dir/step-client}
if [ -z "${ATT_STEP_CLIENT:-}" ]; then
    (cd "$ATT_SOURCE_DIR/tests/support/step" && timeout 1500 nice go build -mod=readonly -o "$client" .) > "$dir/tmp/build" 2>&1 ||
        { cat "$dir/tmp/build"; job_skip "the module cannot be had here"; }
fi

job_make_tpm
job_write_conf
printf 'devices:\n  profiles: [ { name: device, lifetime: 2h } ]\n  attestation_ca: true\n' >> "$dir/issuer.yaml"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || { cat "$dir/log/init.log"; job_fail "attest-issuerd init"; }
job_start_issuer
# The EK that step prefers, by which the inventory knows the host; there is no attestd on it.
TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_nvread -C o 0x01c00002 > "$dir/tmp/ek"
openssl x509 -inform DER -in "$dir/tmp/ek" -noout -pubkey | openssl pkey -pubin -outform DER -out "$dir/tmp/ek.spki"
host=$(sha256sum "$dir/tmp/ek.spki" | cut -d' ' -f1)
step() { # NAME ALGORITHM
    ctl --json ticket create --uses 1 > "$dir/tmp/ticket.json"
    jq '.ticket // .' "$dir/tmp/ticket.json" > "$dir/tmp/ticket-$1.json"
    mkdir -p "$dir/step-$1"
    timeout 120 "$client" -base "https://127.0.0.1:$port/acme" -roots "$dir/issuer/ca/tls-root.pem" -device "$dir/tpm/sock" \
        -ticket "$dir/tmp/ticket-$1.json" -dir "$dir/step-$1" -key "$2" -chain "$dir/$1.der" > "$dir/tmp/step-$1" 2>&1
}
! step early ECDSA || job_fail "a host that nobody knows got a certificate"
grep -q '403' "$dir/tmp/step-early" || { cat "$dir/tmp/step-early"; job_fail "another refusal"; }
echo "ok: a host that is not in the inventory gets no AK certificate"

printf 'ek,label,labels\n%s,job,\n' "$host" > "$dir/tmp/hosts.csv"
ctl host import -f "$dir/tmp/hosts.csv" > /dev/null
for pair in ec:ECDSA rsa:RSA; do
    step "${pair%%:*}" "${pair##*:}" || { cat "$dir/tmp/step-${pair%%:*}"; job_fail "step's client failed"; }
    cat "$dir/tmp/step-${pair%%:*}"
    grep -q "certificate for $host" "$dir/tmp/step-${pair%%:*}" || job_fail "not for this host"
    openssl x509 -inform DER -in "$dir/${pair%%:*}.der" -out "$dir/tmp/leaf.pem"
    openssl verify -purpose sslclient -CAfile "$dir/issuer/ca/dns-root.crt" -untrusted "$dir/issuer/ca/dns-ca.crt" "$dir/tmp/leaf.pem" > "$dir/tmp/verify" ||
        { cat "$dir/tmp/verify"; job_fail "the certificate does not verify"; }
done
echo "ok: EC and RSA keys, certified by an RSA AK"

ctl host ban "$host" --reason test > /dev/null
! step late ECDSA || job_fail "a banned host got a certificate"
grep -q 'attestationCa.refused.*hostBanned' "$dir/log/"*issuer*.log || { cat "$dir/tmp/step-late"; job_fail "another refusal"; }
echo "ok: a banned host gets none"
