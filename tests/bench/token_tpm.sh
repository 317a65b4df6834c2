#!/usr/bin/env bash
# Area "spiffe", with tpm2-pkcs11 here: newToken whose key is in a TPM (swtpm) behind attestd-hsmd --issuer, beside
# TPM2_Sign by ESAPI in another swtpm. token_tpm.sh BUILD SAMPLES: rows of JSON.
set -euo pipefail
build=$(realpath "$1") samples=$2
ATT_SOURCE_DIR=$(realpath "$(dirname "$0")/../..")
export ATT_SOURCE_DIR ATT_BIN_DIR=$build/bin
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/ca.sh
. "$ATT_SOURCE_DIR/tests/support/ca.sh"
# shellcheck source=../support/tpm2_pkcs11.sh
. "$ATT_SOURCE_DIR/tests/support/tpm2_pkcs11.sh"
module=$(find /usr/lib -name libtpm2_pkcs11.so -print -quit 2> /dev/null || true)
if [ -z "$module" ] || ! command -v tpm2_ptool > /dev/null || ! command -v pkcs11-tool > /dev/null; then
    exit 77
fi
exec 3>&1 1>&2
job_setup
job_write_conf
tpm2_pkcs11_make "$dir/third" "$module"
# shellcheck disable=SC2154 # dir and bin come from job.sh
(umask 077 && echo 47110815 > "$dir/hsm.pin")
cat >> "$dir/issuer.yaml" << END
hsm:
  module: $module
  token: "pkcs11:token=third;serial=$tpm2_pkcs11_serial?pin-source=file:$dir/hsm.pin"
  files: [ $dir/third ]
  sessions: 1
END
ca_start_hsmd
BENCH_HSM_CONFIG=$dir/issuer.yaml "$build/tests/bench_issuer__spiffe" "$samples" "$ATT_SOURCE_DIR/tests/vectors" >&3
