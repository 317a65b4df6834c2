#!/usr/bin/env bash
# The authorities' keys in a TPM, by tpm2-pkcs11 behind attestd-hsmd --issuer, on a swtpm of its own: made there by `init`,
# a host's certificate by them, a rotation within the TPM, and, with
# ATT_LONG=1, a TPM that is started anew in the middle of a signature.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/ca.sh
. "$ATT_SOURCE_DIR/tests/support/ca.sh"
# shellcheck source=../support/tpm2_pkcs11.sh
. "$ATT_SOURCE_DIR/tests/support/tpm2_pkcs11.sh"
module=$(find /usr/lib -name libtpm2_pkcs11.so -print -quit 2> /dev/null || true)
if [ -z "$module" ] || ! command -v tpm2_ptool > /dev/null || ! command -v pkcs11-tool > /dev/null; then
    echo "needs libtpm2-pkcs11-1, libtpm2-pkcs11-tools and opensc"
    exit 77
fi
job_setup
job_make_tpm
job_write_conf
ok() { echo "ok: $*"; }
tpm2_pkcs11_make "$dir/third" "$module"
(umask 077 && echo 47110815 > "$dir/hsm.pin")
cat >> "$dir/issuer.yaml" << END
ca:
  keys: hsm
  publish_wait: 1s
hsm:
  module: $module
  token: "pkcs11:token=third;serial=$tpm2_pkcs11_serial?pin-source=file:$dir/hsm.pin"
  files: [ $dir/third ]
  sessions: 1
END
ca_start_hsmd
job_start_all
for name in workload-root workload-ca attest-root attest-ca tls-root; do
    [ -e "$dir/issuer/ca/$name.hsm" ] || job_fail "$name.hsm is not there"
    [ ! -e "$dir/issuer/ca/$name.key" ] || job_fail "$name.key is there"
done
"$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > "$dir/tmp/check" 2>&1 || { cat "$dir/tmp/check"; job_fail "--check"; }
job_enrolled_with market-data
job_check_chain market-data
ok "five keys in the TPM, none in a file; a certificate that openssl and certtool accept"

# ---- a rotation within the TPM ----
step_is() { [ "$(ctl --json ca rotate workload "${@:2}" | jq -r .step)" = "$1" ]; }
first=$(openssl x509 -in "$dir/state/host/agents/market-data/chain.pem" -noout -issuer)
step_is prepared --start --new-root || job_fail "not prepared"
[ "$(ctl --json ca status | jq -r '.generations[] | select(.state == "prepared") | .key')" = hsm ] || job_fail "its key is not in the TPM"
step_is published || job_fail "not published"
wait_for 60 step_is activated || job_fail "not activated: $(ctl ca rotate workload)"
ctl agent rotate market-data > /dev/null
new_ca() { [ "$(openssl x509 -in "$dir/state/host/agents/market-data/chain.pem" -noout -issuer)" != "$first" ]; }
wait_for 60 new_ca
job_check_chain market-data
ok "rotated: new root and intermediate in the TPM, the new root signed by the old one there"

# ---- the TPM is started anew while signatures are asked for ----
if [ -z "${ATT_LONG:-}" ]; then
    ctl audit verify > /dev/null || job_fail "the audit chain"
    echo "not tried: a TPM that goes in the middle of a signature (ATT_LONG=1)"
    exit 0
fi
pending() { ctl --json ca status | jq -r .pendingIntents; }
none_pending() { [ "$(pending)" = 0 ]; }
some_pending() { [ "$(pending)" != 0 ]; }
wait_for 60 job_settled market-data
before=$(job_serial market-data)
kill -STOP "$(job_pid third-tpm)" # it has the command, and will never answer
(ctl agent rotate market-data > "$dir/tmp/rotate" 2>&1 || true) &
rotating=$!
wait_for 60 some_pending || job_fail "no intent stands open"
job_stop third-tpm KILL
job_start third-tpm swtpm socket --tpm2 --tpmstate "dir=$dir/third/state" --server "type=unixio,path=$dir/third/sock" \
    --ctrl "type=unixio,path=$dir/third/sock.ctrl" --flags not-need-init,startup-clear
answers() { tpm2_pkcs11_run tpm2_getrandom 4 > /dev/null 2>&1; }
wait_for 20 answers
if ! job_alive ca-hsmd; then
    job_stop ca-hsmd KILL
    ca_start_hsmd
fi
wait_for 120 none_pending || { ctl --json ca status | jq -c .hsm; job_fail "the intent was not completed"; }
wait $rotating
renewed() { [ "$(job_serial market-data)" != "$before" ]; }
wait_for 120 renewed || job_fail "no certificate came"
job_check_chain market-data
ctl --json cert list | jq -r '.certificates[] | select(.status == "issued") | .serial' | sort > "$dir/tmp/issued"
[ "$(uniq -d "$dir/tmp/issued" | wc -l)" = 0 ] || job_fail "a serial number twice"
ctl audit verify > /dev/null || job_fail "the audit chain"
ok "a TPM that went in the middle of a signature: the same certificate came, once"
