#!/usr/bin/env bash
# Three issuers on one PostgreSQL behind a TCP balancer, twenty simulated hosts that renew without a pause: each
# issuer is killed (SIGKILL) or stopped at work, the database falls over and comes back. No certificate is
# lost, none is issued twice for one order, no intent is left open, every host ends with a valid certificate, and
# the audit log says the same and holds for all three. With ATT_LONG 200 hosts and three rounds (HOSTS, ROUNDS).
set -euo pipefail

# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
for tool in psql jq openssl python3; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/att-job.XXXXXX")
trap job_cleanup EXIT
bin=$ATT_BIN_DIR
mkdir -p "$dir/log" "$dir/tmp" "$dir/ek"
export ATT_TEST_FSYNC=on
HOSTS=${HOSTS:-${ATT_LONG:+200}} ROUNDS=${ROUNDS:-${ATT_LONG:+3}}
HOSTS=${HOSTS:-20} ROUNDS=${ROUNDS:-1}

# shellcheck source=../support/issuers.sh
. "$ATT_SOURCE_DIR/tests/support/issuers.sh"

job_start_postgres
for n in 1 2 3; do
    job_port
    # shellcheck disable=SC2154 # of job_port
    ports[n]=$port
    issuers_conf "$n" "127.0.0.1:$port"
done
start_issuer() {
    job_start "issuer-$1" "$bin/attest-issuerd" --config "$dir/issuer-$1.yaml"
    wait_for 60 ctl_of "$1" issuer status
}

job_port
balancer=$port
job_start balancer "$ATT_SOURCE_DIR/tests/support/balancer.py" "$balancer" "${ports[@]}"
job_start fleet "$(dirname "$bin")/tests-bin/fleet" "$dir" "$balancer" "$HOSTS"
wait_for 120 test -e "$dir/roots"

# Three at once on an empty database: one makes the tables. The CA is one, each has a copy.
issuers_init 1 2 3
for n in 1 2 3; do
    job_start "issuer-$n" "$bin/attest-issuerd" --config "$dir/issuer-$n.yaml"
done
for n in 1 2 3; do
    wait_for 60 ctl_of "$n" issuer status
done
cp "$dir/state-1/ca/tls-root.pem" "$dir/tls-root.pem"
ln -s "$dir/run-3/admin.sock" "$dir/admin"
wait_for 180 test -e "$dir/enrolled"

progress "$HOSTS"
for _ in $(seq "$ROUNDS"); do
    job_stop issuer-2 KILL
    progress "$HOSTS"
    start_issuer 2
    job_stop postgres QUIT
    sleep 2
    job_start_postgres
    progress "$HOSTS"
    job_stop issuer-1 KILL
    progress "$HOSTS"
    start_issuer 1
    job_stop issuer-3 TERM
    progress "$HOSTS"
    start_issuer 3
done
# One that all three lose at the same time: an intent may be left by each.
for n in 1 2 3; do
    kill -KILL "$(job_pid "issuer-$n")"
done
for n in 1 2 3; do
    job_stop "issuer-$n" KILL
    start_issuer "$n"
done
progress "$HOSTS"
issuers_end
issuers_whole "$HOSTS" 1 2 3
# A change at one is noticed by the others.
version() { ctl_of "$1" --json issuer status | jq -r .viewVersion; }
same_version() { [ "$(version 1)" = "$(version "$1")" ]; }
before=$(version 1)
ctl_of 1 entry delete portfolio-rebalancer > /dev/null
[ "$(version 1)" -gt "$before" ] || job_fail "the view's version stays $before"
wait_for 30 same_version 2
wait_for 30 same_version 3
echo "ok: $(certs) certificates in hand, $(db "SELECT COUNT(*) FROM certs WHERE status = 'abandoned'") abandoned"
