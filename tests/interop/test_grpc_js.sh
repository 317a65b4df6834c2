#!/usr/bin/env bash
# @grpc/grpc-js, Node's gRPC, with stubs from the published protocols, against the real stack: the header that is missing or
# doubled, nobody's agent, bundles with a push, X509-SVIDs over a rotation, tokens, signatures verified by Node's crypto, health.
# npm brings it, or ATT_GRPC_JS names a folder with its node_modules.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir, bin and id_port come from job.sh and port_into
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
command -v node > /dev/null || job_skip "no node (package nodejs)"
[ -n "${ATT_GRPC_JS:-}" ] || command -v npm > /dev/null || job_skip "no npm (package npm)"
job_setup
chmod 755 "$dir" "$dir/tmp" "$dir/run"
cp -r "$ATT_SOURCE_DIR/tests/support/spiffe/node" "$dir/node"
if [ -n "${ATT_GRPC_JS:-}" ]; then
    cp -r "$ATT_GRPC_JS/node_modules" "$dir/node/"
else
    (cd "$dir/node" && timeout 400 npm install --no-audit --no-fund --ignore-scripts) > "$dir/tmp/npm" 2>&1 ||
        { tail -n 5 "$dir/tmp/npm"; job_skip "npm cannot fetch @grpc/grpc-js"; }
fi
version=$(node -p "require('$dir/node/node_modules/@grpc/grpc-js/package.json').version")
chmod -R a+rX "$dir/node"
user=62001 tpm_user=62002 stranger=62003
socket=$dir/run/public/api.sock api=https://api.example
protos=("$dir/node/workload.proto" "$dir/node/signer.proto" "$dir/node/health.proto")
cp "$ATT_SOURCE_DIR/tests/support/spiffe/workload.proto" "$ATT_SOURCE_DIR/attestd/spiffe/proto/signer.proto" \
    "$ATT_SOURCE_DIR/attestd/spiffe/proto/health.proto" "$dir/node/"
chmod 644 "${protos[@]}"
javascript() { echo setpriv --reuid "$1" --regid "$1" --clear-groups node "$dir/node/client.js" "$socket" "${protos[@]}"; }
got() { tail -n 1 "$dir/tmp/got" | jq -r "$1"; }
answer() { # answer USER COMMAND…
    # shellcheck disable=SC2046 # words
    timeout 60 $(javascript "$1") "${@:2}" > "$dir/tmp/got" 2> "$dir/tmp/got.err" ||
        { cat "$dir/tmp/got" "$dir/tmp/got.err"; job_fail "$*"; }
}
must() { # must CODE MESSAGE-PATTERN USER COMMAND…
    local code=$1 message=$2
    shift 2
    answer "$@"
    # shellcheck disable=SC2053 # a pattern
    [[ "$(got '(.code // "none") + " " + (.message // "")')" == "$code "$message ]] ||
        { cat "$dir/tmp/got"; job_fail "$*: expected $code $message"; }
}
# shellcheck disable=SC2046 # words
follow_js() { job_start "$1" $(javascript "$2") "${@:3}"; }

job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service --exporter $service; }
job_make_tpm
job_write_conf
id_port=
port_into id_port
printf 'jwt:\n  issuer: "https://127.0.0.1:%s"\n  listen: "127.0.0.1:%s"\n' "$id_port" "$id_port" >> "$dir/issuer.yaml"
status=0
trap 'status=$?; job_stop bundles KILL; job_stop svid KILL; set +e; (exit $status); job_cleanup' EXIT
spiffe_start_all
{
    printf 'trust_domain: bank.example\nagents:\n'
    printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:'"$(job_host_id)"'"], workload: {uid: %s}, key: %s, profile: trading, audiences: ["'$api'"]}\n' \
        alpha $user exportable hard $tpm_user tpm
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
wait_for 60 job_settled alpha
wait_for 60 job_settled hard

# ---- refusals ----
must INVALID_ARGUMENT "*workload.spiffe.io*" $user bundles
must INVALID_ARGUMENT "*workload.spiffe.io*" $user bundles true true
must INVALID_ARGUMENT "*workload.spiffe.io*" $user bundles false
must INVALID_ARGUMENT "*workload.spiffe.io*" $user svid-without
must PERMISSION_DENIED "no agent's entry fits this process (notAssigned)" $stranger svid
must PERMISSION_DENIED "*notAssigned*" $stranger bundles true
must PERMISSION_DENIED "*notAssigned*" $stranger token $api
must PERMISSION_DENIED "*notAssigned*" $stranger sign
must PERMISSION_DENIED "*never leaves its store*" $tpm_user svid
must PERMISSION_DENIED "*audienceDenied*" $user token https://other.example
must INVALID_ARGUMENT "*digest*" $tpm_user sign-short
ok "grpc-js $version (Node $(node --version)): the header, no identity, a key in the TPM, an audience, a digest: refused, each with its reason"

# ---- streams ----
sha_of() { openssl "$1" -in "$2" -outform DER | sha256sum | cut -d' ' -f1; }
leaf() { sha_of x509 "$dir/state/host/agents/alpha/chain.pem"; }
follow_js bundles $user bundles true
follow_js svid $user svid
wait_for 30 lines bundles 1
wait_for 30 lines svid 1
[ "$(last bundles '.bundles["spiffe://bank.example"]')" = "$(sha_of x509 "$dir/issuer/ca/bundle.pem")" ] || job_fail "$(cat "$dir/log/bundles.log")"
current() { last_is svid .leaf "$(leaf)" && last_is svid .fits true; }
wait_for 30 current
[ "$(last svid '[.svids, .id, .names] | @json')" = '[1,"spiffe://bank.example/agent/alpha","URI:spiffe://bank.example/agent/alpha"]' ] ||
    job_fail "$(cat "$dir/log/svid.log")"
before=$(leaf)
ctl agent rotate alpha > /dev/null
rotated() { [ "$(leaf)" != "$before" ] && current; }
wait_for 30 rotated
ok "FetchX509SVID: the key fits its certificate; the next one is pushed after a rotation"
has_crl() { [ -s "$dir/state/host/crl.pem" ] && last_is bundles '.crl[0]' "$(sha_of crl "$dir/state/host/crl.pem")"; }
wait_for 30 has_crl
before=$(last bundles '.crl[0]')
ctl cert revoke "$(job_serial hard)" --reason superseded > /dev/null
listed() { [ "$(last bundles '.crl[0]')" != "$before" ] && has_crl; }
wait_for 30 listed
job_stop bundles KILL
job_stop svid KILL
must none "" $user cancel
[ "$(got .status)" = SERVING ] && grep -q '"code":"CANCELLED"' "$dir/tmp/got" || job_fail "$(cat "$dir/tmp/got")"
ok "FetchX509Bundles: roots as installed, the list after a revocation pushed; a stream that its client cancels"

# ---- tokens, signatures, health ----
token() { answer $user token $api && [ "$(got .code)" = OK ]; }
wait_for 30 token
[ "$(got '[.id, .alg, .aud, .sub, .verified, .judged] | @json')" = \
    "[\"spiffe://bank.example/agent/alpha\",\"ES256\",\"$api\",\"spiffe://bank.example/agent/alpha\",true,\"spiffe://bank.example/agent/alpha\"]" ] ||
    job_fail "$(cat "$dir/tmp/got")"
signed() { answer $tpm_user sign && [ "$(got .code)" = OK ]; } # the revoked certificate's successor has come
wait_for 60 signed || job_fail "$(cat "$dir/tmp/got")"
[ "$(got '[.id, .store, .verified, .other] | @json')" = '["spiffe://bank.example/agent/hard","tpm",true,false]' ] || job_fail "$(cat "$dir/tmp/got")"
answer $user many
[ "$(got '.OK')" = 100 ] || job_fail "$(cat "$dir/tmp/got")"
answer $stranger health
[ "$(got .status)" = SERVING ] || job_fail "$(cat "$dir/tmp/got")"
ok "FetchJWTSVID, a signature by the TPM: verified by Node's crypto; 100 calls at once; health"
job_stop spiffed
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "grpc-js: all held"
