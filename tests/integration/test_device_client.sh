#!/usr/bin/env bash
# A device-attest-01 client that is not attestd, on a host that attestd enrolled: raw JWS, raw TPM commands, the AK made
# again from its template, its certificate as attestd has it. It gets a certificate for the EK's id; each thing made
# wrong is refused by its name; and no agent's name comes of it. Then the same by python3-acme, the library under certbot.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and port come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
/usr/bin/python3 -c 'import acme, cryptography, OpenSSL' 2> /dev/null || job_skip "no python3-acme"
job_setup
job_make_tpm
job_write_conf
printf 'devices:\n  profiles: [ { name: device, lifetime: 2h } ]\n' >> "$dir/issuer.yaml"
job_start_all
wait_for 60 job_host_known
host=$(job_host_id)
ctl host approve "$host" --label job > /dev/null
# The TPM's socket serves one client at a time.
for name in attestd keyd; do job_stop $name; done
sqlite3 "$dir/issuer/issuer.db" "SELECT cert FROM aks WHERE state = 'valid'" > "$dir/tmp/ak.pem"
ctl ticket create --uses 20 --out "$dir/tmp/ticket.json" > /dev/null

# Keys that a client leaves in the TPM would fill it: started anew each time, as between two boots.
client() { # EXPECTED [CASE]
    device client.py "$@"
}
library() { # EXPECTED [CASE]
    device acme_client.py "$@"
}
device() { # FILE EXPECTED [CASE]
    local file=$1
    shift
    swtpm_stop "$dir/tpm"
    swtpm_start "$dir/tpm" > /dev/null
    timeout 60 /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/device/$file" "https://127.0.0.1:$port/acme" "$dir/issuer/ca/tls-root.pem" \
        "$dir/tpm/sock" "$dir/tmp/ticket.json" "$dir/tmp/ak.pem" "${2:-}" > "$dir/tmp/said" 2>&1 || { cat "$dir/tmp/said"; job_fail "$file ${2:-}"; }
    [ "$(cat "$dir/tmp/said")" = "$1" ] || { cat "$dir/tmp/said"; job_fail "$file ${2:-}: expected $1"; }
    echo "ok: $file, ${2:-all right}: $1"
}
client valid
client certifyNonce nonce
client certifyNonce old
client certifyName name
client certifyType quote
client identifierMismatch order
client csrKey csrkey
client csrName spiffe
library valid
library certifyNonce nonce
library certifyName name
library certifyType quote
library identifierMismatch order
library unsupportedIdentifier type
library malformed again
library orderNotReady twice
library revoked revoke
ctl --json audit list --kind issue --limit 100 > "$dir/tmp/audit"
jq -e --arg host "$host" '[.records[].record | select(.outcome == "granted")] | length >= 1 and all(.subject == $host)' "$dir/tmp/audit" > /dev/null ||
    job_fail "something else was granted"
# What was refused is the account's: anybody may name a host.
who=$(jq -r --arg host "$host" '[.records[].record | select(.reason == "certifyName" and .identifier == $host) | .subject] | first' "$dir/tmp/audit")
[ "$who" != "$host" ] || job_fail "a refused statement counts against the host"
ctl audit why "$who" > "$dir/tmp/why"
grep -q 'This check failed: certifyName' "$dir/tmp/why" || { cat "$dir/tmp/why"; job_fail "audit why"; }
ctl host ban "$host" --reason test > /dev/null
client hostBanned
library hostBanned
