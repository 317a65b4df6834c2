#!/usr/bin/env bash
# The step command itself, against a swtpm: its AK by the attestation CA's endpoints, certificates for the EK's identifier
# by device-attest-01, for EC and RSA keys, a renewal, an AK whose certificate ended; each refusal by the words that step
# prints. Fetching and building it takes minutes, so this runs with ATT_LONG=1 (ATT_STEP_CLI_VERSION for another release),
# or with ATT_STEP_CLI: its binary. The same messages without it: unit/issuer/test_step_ca, test_device.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and port come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
version=${ATT_STEP_CLI_VERSION:-v0.30.2}
[ -n "${ATT_LONG:-}${ATT_STEP_CLI:-}" ] || job_skip "fetches and builds the step command: ATT_LONG=1, or ATT_STEP_CLI names its binary"
command -v go > /dev/null || [ -n "${ATT_STEP_CLI:-}" ] || job_skip "no Go"
for tool in tpm2_nvread tpm2_load tpm2_sign curl; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
job_setup
step=${ATT_STEP_CLI:-$dir/go/step}
if [ -z "${ATT_STEP_CLI:-}" ]; then
    CGO_ENABLED=0 GOBIN=$dir/go timeout 3600 nice go install "github.com/smallstep/cli/cmd/step@$version" > "$dir/tmp/build" 2>&1 ||
        { tail -n 5 "$dir/tmp/build"; job_skip "the step command cannot be had here"; }
fi
ok() { echo "ok: $*"; }
job_make_tpm
job_write_conf
printf 'devices:\n  profiles: [ { name: device, lifetime: 2h } ]\n  attestation_ca: true\n' >> "$dir/issuer.yaml"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || { cat "$dir/log/init.log"; job_fail "attest-issuerd init"; }
job_start_issuer

# The id of the EK that step prefers, the RSA one.
ek_of() { # TPM's folder
    TPM2TOOLS_TCTI=$(cat "$1/tcti") tpm2_nvread -C o 0x01c00002 2> /dev/null > "$dir/tmp/ek"
    openssl x509 -inform DER -in "$dir/tmp/ek" -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -d' ' -f1
}
host=$(ek_of "$dir/tpm")
export STEPPATH=$dir/steppath
mkdir -p "$STEPPATH"
# enrol STORE KEY CERT [OPTION...]: of the TPM $tpm for the identifier $ek
tpm=$dir/tpm ek=$host
enrol() {
    local store=$1 key=$2 cert=$3
    shift 3
    timeout 120 "$step" ca certificate "$ek" "$dir/$cert" --acme "https://127.0.0.1:$port/acme/directory" \
        --root "$dir/issuer/ca/tls-root.pem" --attestation-uri "tpmkms:name=$key;device=$tpm/sock" \
        --attestation-ca-url "https://127.0.0.1:$port/acme/attestation-ca" --attestation-ca-root "$dir/issuer/ca/tls-root.pem" \
        --tpm-storage-directory "$dir/$store" "$@" < /dev/null > "$dir/tmp/step" 2>&1
}
must() { enrol "$@" || { cat "$dir/tmp/step"; job_fail "step ca certificate: $*"; }; }
# refused WORDS STORE KEY CERT [OPTION...]: step ends with them, and writes no certificate
refused() {
    local words=$1
    shift
    ! enrol "$@" || job_fail "step got a certificate; expected: $words" || return 1
    grep -qF -- "$words" "$dir/tmp/step" || { cat "$dir/tmp/step"; job_fail "step says something else than: $words" || return 1; }
    [ ! -e "$dir/$3" ] || job_fail "step wrote $3"
}
# signs STORE KEY CERT: the TPM's own key, loaded by tpm2-tools from step's file, signs what the certificate's key verifies
signs() {
    local part data
    data=$(jq -r .data "$dir/$1/key-$2.tpmobj" | base64 -d)
    for part in Public KeyBlob; do
        printf '%s' "$data" | jq -r ".$part" | base64 -d > "$dir/tmp/part"
        { printf '%b' "$(printf '\\x%02x\\x%02x' $(($(stat -c %s "$dir/tmp/part") / 256)) $(($(stat -c %s "$dir/tmp/part") % 256)))" && cat "$dir/tmp/part"; } > "$dir/tmp/$part"
    done
    date +%N > "$dir/tmp/message"
    export TPM2TOOLS_TCTI
    TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti")
    tpm2_load -Q -C 0x81000001 -u "$dir/tmp/Public" -r "$dir/tmp/KeyBlob" -c "$dir/tmp/key.ctx"
    tpm2_flushcontext -t
    tpm2_sign -Q -c "$dir/tmp/key.ctx" -g sha256 -f plain -o "$dir/tmp/signature" "$dir/tmp/message"
    tpm2_flushcontext -t
    unset TPM2TOOLS_TCTI
    openssl x509 -in "$dir/$3" -noout -pubkey > "$dir/tmp/key.pem"
    openssl dgst -sha256 -verify "$dir/tmp/key.pem" -signature "$dir/tmp/signature" "$dir/tmp/message" > "$dir/tmp/verify" ||
        job_fail "the key of $3 is not the TPM's $2"
}
# good STORE KEY CERT: chain, SAN, use, key
good() {
    local san
    openssl verify -x509_strict -purpose sslclient -CAfile "$dir/issuer/ca/dns-root.crt" -untrusted "$dir/$3" "$dir/$3" > "$dir/tmp/verify" 2>&1 ||
        { cat "$dir/tmp/verify"; job_fail "$3 does not verify"; }
    ! openssl verify -CAfile "$dir/issuer/ca/bundle.pem" -untrusted "$dir/$3" "$dir/$3" > /dev/null 2>&1 ||
        job_fail "$3 verifies under the agents' root"
    # Exactly one name: otherName 1.3.6.1.5.5.7.8.3 (RFC 4043) with the identifier, and no other.
    san=$(openssl x509 -in "$dir/$3" -outform DER | openssl asn1parse -inform DER | grep -A2 'X509v3 Subject Alternative Name' | sed -n 's/.*HEX DUMP\]://p')
    printf '%s' "$san" | xxd -r -p | openssl asn1parse -inform DER > "$dir/tmp/san"
    [ "$(grep -c 'cons: cont \[' "$dir/tmp/san")" = 2 ] && grep -q 'OBJECT *:Permanent Identifier' "$dir/tmp/san" &&
        grep -q "UTF8STRING *:$host\$" "$dir/tmp/san" || { cat "$dir/tmp/san"; job_fail "names of $3"; }
    [ "$(openssl x509 -in "$dir/$3" -noout -ext extendedKeyUsage | tail -n 1 | xargs)" = "TLS Web Client Authentication" ] || job_fail "use of $3"
    signs "$1" "$2" "$3"
}
serial_of() { openssl x509 -in "$dir/$1" -noout -serial | sed 's/serial=//' | tr 'A-F' 'a-f'; }
status_of() { ctl --json cert list | jq -r --arg s "$1" '.certificates[] | select(.serial == $s) | .status'; }
ak_serial() { ctl --json cert list | jq -r '[.certificates[] | select(.kind == "ak" and .status == "issued")][0].serial'; }
at_ca='POST "https://127.0.0.1:'$port'/acme/attestation-ca/attest" failed with HTTP status'

# ---- refused, then enrolled --------------------------------------------------------------------------
refused "an account needs an enrolment ticket (externalAccountBinding)" store k0 none.pem
ok "refused while accounts need a binding, which step does not know: $(tail -n 1 "$dir/tmp/step")"
job_stop issuerd
printf 'eab_required: false\n' >> "$dir/issuer.yaml"
job_start_issuer
refused "$at_ca \"403 hostUnknown\"" store k0 none.pem
ok "refused: a host that is not in the inventory"
printf 'ek,label,labels\n%s,job,\n' "$host" > "$dir/tmp/hosts.csv"
ctl host import -f "$dir/tmp/hosts.csv" > /dev/null
refused "notBefore and notAfter are the profile's to decide" store k0 none.pem --not-after 30m
ok "refused: a lifetime of step's own"

must store k1 one.pem
good store k1 one.pem
ctl --json cert list | jq -e --arg s "$(serial_of one.pem)" '.certificates[] | select(.serial == $s) |
    (.notAfter | fromdate) - (.createdAt | fromdate) | . >= 7190 and . <= 7210' > /dev/null || { ctl --json cert list; job_fail "the lifetime"; }
[ "$(ctl --json cert list | jq '[.certificates[] | select(.kind == "ak")] | length')" = 1 ] || job_fail "not one AK certificate"
ok "enrolled: an AK certificate, and a certificate for an EC key that the TPM signs with"
must store rsa rsa.pem --kty RSA
good store rsa rsa.pem
[ "$(ctl --json cert list | jq '[.certificates[] | select(.kind == "ak")] | length')" = 1 ] || job_fail "a second AK"
ok "an RSA key by the same AK"

# ---- renewed: the same command with another key's name ---------------------------------------------------
first=$(serial_of one.pem)
cp "$dir/one.pem" "$dir/renewed.pem"
must store k2 renewed.pem --force
good store k2 renewed.pem
[ "$(serial_of renewed.pem)" != "$first" ] || job_fail "not renewed"
! cmp -s <(openssl x509 -in "$dir/one.pem" -noout -pubkey) <(openssl x509 -in "$dir/renewed.pem" -noout -pubkey) || job_fail "the same key"
refused 'failed creating key "k2": already exists' store k2 none.pem
ok "renewed with a new key; a name that step's folder has is no new key"

# ---- an AK whose certificate ended: step does not look, and goes on with it -----------------------------------
ak=$(ak_serial)
ctl cert revoke "$ak" --reason superseded > /dev/null
refused "the AK certificate $ak is revoked" store k3 none.pem
rm "$dir"/store/ak-*.tpmobj
must store k4 four.pem
good store k4 four.pem
[ "$(ak_serial)" != "$ak" ] || job_fail "the AK certificate is the old one"
signs store k1 one.pem
ok "after step's file of the AK is removed, a new one; keys that it certified go on"

# ---- a TPM of a maker that is not trusted ------------------------------------------------------------------
swtpm_make "$dir/other"
swtpm_start "$dir/other"
trap 'status=$?; swtpm_stop "$dir/other"; set +e; (exit $status); job_cleanup' EXIT
tpm=$dir/other ek=$(ek_of "$dir/other")
printf 'ek,label,labels\n%s,other,\n' "$ek" > "$dir/tmp/hosts.csv"
ctl host import -f "$dir/tmp/hosts.csv" > /dev/null
refused "$at_ca \"403 ekChain\"" other k1 none.pem
ok "refused, though its host is approved: a TPM whose maker is unknown: $(grep -o 'POST.*' "$dir/tmp/step")"
# … and with its maker it is one like another, but not the first one.
cp "$dir/other/ek-roots.pem" "$dir/ek-roots/other.pem"
kill -HUP "$(job_pid issuerd)"
taken() { enrol other "k$((tries += 1))" other.pem; }
tries=1
wait_for 30 taken || { cat "$dir/tmp/step"; job_fail "with its maker"; }
ek=$host
refused "Unable to validate challenge" other wrong none.pem
grep -q 'order.refused.*reason=identifierMismatch' "$dir/log/issuerd.log" || job_fail "another refusal"
ok "refused: the identifier of another TPM: $(tail -n 1 "$dir/tmp/step")"

# ---- a banned host --------------------------------------------------------------------------------------------
tpm=$dir/tpm
ctl host ban "$host" --reason stolen > /dev/null
refused "Unable to validate challenge: host ${host:0:12} is banned: stolen" store k5 none.pem
ok "refused: a banned host, by its AK: $(tail -n 1 "$dir/tmp/step")"
refused "$at_ca \"403 hostBanned\"" fresh k1 none.pem
ok "refused: a banned host, with a new AK: $(grep -o 'POST.*' "$dir/tmp/step")"
for cert in one.pem rsa.pem renewed.pem four.pem; do
    [ "$(status_of "$(serial_of $cert)")" = revoked ] || job_fail "$cert is not revoked"
done
[ "$(status_of "$(serial_of other.pem)")" = issued ] || job_fail "another host's certificate is revoked"
ok "the ban revoked all that the host had, and nothing else"
echo "step ($("$step" version | head -n 1)): all held"
