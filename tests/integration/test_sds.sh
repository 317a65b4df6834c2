#!/usr/bin/env bash
# Envoy's Secret Discovery Service on api.sock with real processes (swtpm, keyd, whod, attestd, issuer, spiffed) and a
# client that follows the rules of xDS: what is refused and why, validation contexts, ACK, NACK, stale nonces, other names,
# pushes at a revocation, a caller whose entry changes.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
job_setup
chmod 755 "$dir" "$dir/tmp" "$dir/run"
ok() { echo "ok: $*"; }
user=62001 stranger=62003
# shellcheck source=../support/spiffe/sds.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe/sds.sh"
sds_setup

service=62010
job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service; }
job_start_attestd() {
    job_start attestd "$bin/attestd" --config "$dir/attestd.yaml" --spiffed-user $service
    wait_for 30 ctl status
}
job_make_tpm
job_write_conf
install -d -o $service "$dir/run/public"
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml" --client 0 --client $service
job_start_all
chmod 644 "$dir/attestd.yaml"
job_start spiffed setpriv --reuid $service --regid $service --groups 0 "$bin/attestd-spiffed" --config "$dir/attestd.yaml" \
    --attestd-user 0 --whod-user 0 --keyd-user 0
wait_for 30 test -S "$socket"
trap 'status=$?; job_stop stream KILL; set +e; (exit $status); job_cleanup' EXIT
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
entries() { # entries UID
    cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: alpha, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: $1}, key: tpm, profile: trading}
END
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
}
entries $user
wait_for 60 job_settled alpha

# ---- refusals ----
refused PERMISSION_DENIED "no agent's entry fits this process (notAssigned)" $stranger stream ROOTCA < /dev/null
refused PERMISSION_DENIED "no agent's entry fits this process (notAssigned)" $stranger fetch ROOTCA
refused INVALID_ARGUMENT "the request is no DiscoveryRequest" $user raw bytes=0affffff7f
refused INVALID_ARGUMENT "type_url: type.googleapis.com/envoy.extensions.*Secret expected" $user raw type=type.googleapis.com/envoy.config.cluster.v3.Cluster
refused INVALID_ARGUMENT "resource_names: 16 at most" $user raw names=17
refused INVALID_ARGUMENT "resource_names: 1 to 512 printable *" $user raw long=513
refused INVALID_ARGUMENT "version_info, response_nonce: 64 bytes at most*" $user raw version=65
refused INVALID_ARGUMENT "resource_names: at least one expected" $user raw empty
refused INVALID_ARGUMENT "resource_names: default, the caller's SPIFFE ID, *" $user raw long=512
refused RESOURCE_EXHAUSTED "the request is longer than 64 KiB" $user raw long=70000
refused INVALID_ARGUMENT "resource_names: default, *" $user fetch ROOTCA spiffe://bank.example/agent/beta
refused INVALID_ARGUMENT "resource_names: default, *" $user fetch spiffe://other.example
refused PERMISSION_DENIED "the key of this agent never leaves its store*PKCS#11*attestd.v1.Signer*" $user fetch default
refused PERMISSION_DENIED "the key of this agent never leaves its store*PKCS#11*attestd.v1.Signer*" $user fetch spiffe://bank.example/agent/alpha
refused PERMISSION_DENIED "the key of this agent never leaves its store*PKCS#11*attestd.v1.Signer*" $user stream ROOTCA default < /dev/null
ok "strangers, other messages and types, too many and too long names, unknown ones, a key that stays: refused, each with its reason"

# ---- validation contexts ----
sha_of() { openssl "$1" -in "$2" -outform DER | sha256sum | cut -d' ' -f1; }
root=$(sha_of x509 "$dir/issuer/ca/bundle.pem")
has_crl() {
    as $user fetch ROOTCA > "$dir/tmp/fetch" && [ "$(jq -r .secrets.ROOTCA.crl "$dir/tmp/fetch")" = "$(sha_of crl "$dir/state/host/crl.pem")" ]
}
wait_for 30 has_crl
must "$root" '.secrets.ALL.root' $user fetch ALL
must "validation_context 1 true" '.secrets["spiffe://bank.example"] | "\(.kind) \(.roots) \(.leafOnly)"' $user fetch spiffe://bank.example
must "ALL,ROOTCA,spiffe://bank.example" .names $user fetch ROOTCA ALL spiffe://bank.example ROOTCA
ok "FetchSecrets: the issuer's root and this host's revocation list in PEM, by each of their names"

# ---- a stream that follows the rules ----
follow ROOTCA
wait_for 30 count 1
[ "$(last '.secrets.ROOTCA.root')" = "$root" ] || job_fail "$(cat "$log")"
version=$(last .version)
say ack
say stale ALL
say names ALL
wait_for 30 count 2
[ "$(last .names)" = ALL ] || job_fail "other names: $(cat "$log")"
[ "$(last .version)" != "$version" ] || job_fail "one version for two states"
say nack "it will not do"
nacked() { grep 'event=spiffed.sds-rejected' "$dir/log/spiffed.log" > "$dir/tmp/nack"; }
wait_for 30 nacked
grep -q 'agent=alpha.*it will not do' "$dir/tmp/nack" || job_fail "$(cat "$dir/tmp/nack")"
say early ALL ROOTCA # a subscription after it: had the refused one been sent again, this would not be the third
wait_for 30 count 3
[ "$(last .names)" = ALL,ROOTCA ] || job_fail "names after a NACK: $(cat "$log")"
say none
say names ROOTCA
wait_for 30 count 4
[ "$(last .names)" = ROOTCA ] && [ "$(last .version)" = "$version" ] || job_fail "again the first: $(cat "$log")"
[ "$(answers | jq -r .nonce | tr '\n' ' ')" = "1 2 3 4 " ] || job_fail "nonces: $(cat "$log")"
ok "ACK, a stale nonce, other names, NACK, no names and some again: an answer where the state is another, none else"

# ---- pushes ----
say mismatch # a rejection, too: the change comes all the same
ctl cert revoke "$(job_serial alpha)" --reason superseded > /dev/null
wait_for 60 count 5
pushed() { [ "$(last .secrets.ROOTCA.crl)" = "$(sha_of crl "$dir/state/host/crl.pem")" ]; }
wait_for 30 pushed
late=$(($(last .ms) - $(stat -c %.3Y "$dir/state/host/crl.pem" | tr -d .)))
[ "$late" -lt 5000 ] || job_fail "the push came $late ms after the list"
say ack
wait_for 60 job_settled alpha
entries 62009
wait_for 30 code PERMISSION_DENIED
entries $user
exec 8>&-
wait_for 30 has_crl # the entries are in force again
follow ROOTCA
wait_for 30 count 1
say end
wait_for 30 code OK
exec 8>&-
ok "a revocation is pushed with the new list ($late ms after it came); an entry that fits no more ends the stream; a client's end is OK"
job_stop spiffed
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "sds: all held"
