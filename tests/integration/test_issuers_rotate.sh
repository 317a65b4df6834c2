#!/usr/bin/env bash
# Three issuers on one PostgreSQL go through a rotation of the intermediate while hosts renew: no renewal fails,
# and at every moment every pair of hosts shakes hands, each with the certificate and the bundle that it has then. HOSTS (6). With ATT_LONG 20, an issuer is killed between publication and activation, which waits for it, and the old
# authority is retired when its last certificate (2 minutes) has ended; then all of it once more with a new root.
# shellcheck disable=SC2154 # ports and balancer are made by port_into
set -euo pipefail
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
for tool in psql jq openssl python3; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/att-job.XXXXXX")
trap job_cleanup EXIT
bin=$ATT_BIN_DIR
mkdir -p "$dir/log" "$dir/tmp" "$dir/ek" "$dir/chains"
# shellcheck source=../support/issuers.sh
. "$ATT_SOURCE_DIR/tests/support/issuers.sh"
HOSTS=${HOSTS:-${ATT_LONG:+20}}
HOSTS=${HOSTS:-6}

job_start_postgres
for n in 1 2 3; do
    port_into "ports[$n]"
    issuers_conf "$n" "127.0.0.1:${ports[n]}" "${ATT_LONG:+2m}"
    printf 'ca:\n  publish_wait: 1s\n' >> "$dir/issuer-$n.yaml"
done
port_into balancer
job_start balancer "$ATT_SOURCE_DIR/tests/support/balancer.py" "$balancer" "${ports[@]}"
job_start fleet env FLEET_RATE="${FLEET_RATE:-4}" "$(dirname "$bin")/tests-bin/fleet" "$dir" "$balancer" "$HOSTS"
wait_for 120 test -e "$dir/roots"
issuers_init 1 2 3
start_issuer() {
    job_start "issuer-$1" "$bin/attest-issuerd" --config "$dir/issuer-$1.yaml"
    wait_for 60 ctl_of "$1" issuer status
}
for n in 1 2 3; do
    start_issuer "$n"
done
cp "$dir/state-1/ca/tls-root.pem" "$dir/tls-root.pem"
ln -s "$dir/run-1/admin.sock" "$dir/admin"
wait_for 180 test -e "$dir/enrolled"

all_have_chains() { [ "$(find "$dir/chains" -name '*.pem' | wc -l)" = "$HOSTS" ]; }
wait_for 120 all_have_chains
handshakes=0
shake() { # while something happens, and once after it
    local n
    n=$(python3 "$ATT_SOURCE_DIR/tests/support/handshakes.py" "$dir/chains") || job_fail "a handshake failed"
    handshakes=$((handshakes + n))
}
progress_shaking() { # N
    local from
    from=$(certs)
    while ! more_than $((from + $1)); do
        job_alive fleet || job_fail "the fleet ended: $(tail -n 5 "$dir/log/fleet.log")"
        shake
    done
    shake
}
step() { ctl_of "$1" --json ca rotate workload "${@:3}" > "$dir/tmp/step" && [ "$(jq -r .step "$dir/tmp/step")" = "$2" ]; }
# Keys in files: the operator copies ca/keys from the issuer that made them (docs/OPERATIONS.md).
copy_keys() { for n in 2 3; do cp -a "$dir/state-1/ca/keys" "$dir/state-$n/ca/"; done; }
signer() { openssl x509 -in "$dir/chains/$1.pem" -noout -issuer; }
all_signed_by_another_than() {
    local host
    for host in $(seq 0 $((HOSTS - 1))); do
        [ "$(signer "$host")" != "$1" ] || return 1
    done
}

progress_shaking "$HOSTS"
for what in intermediate root; do
    old=$(openssl x509 -in "$dir/chains/0.pem" -noout -issuer)
    step 1 prepared --start ${what:+$([ "$what" = intermediate ] || echo --new-root)} || job_fail "prepare: $(cat "$dir/tmp/step")"
    progress_shaking "$HOSTS"
    [ "$(signer 0)" = "$old" ] || job_fail "a certificate by an authority that nobody knows yet"
    wait_for 30 step 2 published || job_fail "publish: $(cat "$dir/tmp/step")"
    # One that died is waited for, for two minutes, and so are keys that one has not: activated is what all can sign with.
    [ -z "${ATT_LONG:-}" ] || job_stop issuer-3 KILL
    progress_shaking "$HOSTS"
    step 1 activated && job_fail "activated without the keys of others: $(cat "$dir/tmp/step")"
    copy_keys
    [ -z "${ATT_LONG:-}" ] || start_issuer 3
    activated() { shake && step 1 activated; }
    wait_for 90 activated || job_fail "activate: $(cat "$dir/tmp/step")"
    progress_shaking "$HOSTS"
    wait_for 90 all_signed_by_another_than "$old"
    shake
    if [ -n "${ATT_LONG:-}" ]; then
        retired() { shake && step 1 retired; }
        wait_for 300 retired || job_fail "retire: $(cat "$dir/tmp/step")"
        progress_shaking "$HOSTS"
        ok "$what: prepared, published, activated, retired"
    else
        ok "$what: prepared, published, activated"
        break
    fi
done
issuers_end
grep -q ' 0 orders that came to nothing' "$dir/log/fleet.log" || job_fail "a renewal failed: $(cat "$dir/log/fleet.log")"
issuers_whole "$HOSTS" 1 2 3
fault_sanitizers
ok "$(certs) certificates, $handshakes handshakes, none failed"
