#!/usr/bin/env bash
# Orders that nobody comes back to, at three issuers of one PostgreSQL: a host may make as many as its limit says at all of them
# together, each further one is told when to come back, and 5000 that have ended are swept by an issuer at its
# start, while those that have time left stay.
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
mkdir -p "$dir/log" "$dir/tmp" "$dir/ek"
# shellcheck source=../support/issuers.sh
. "$ATT_SOURCE_DIR/tests/support/issuers.sh"

job_start_postgres
for n in 1 2 3; do
    port_into "ports[$n]"
    issuers_conf "$n" "127.0.0.1:${ports[n]}"
    printf 'limits:\n  account_fruitless_orders: 15\n' >> "$dir/issuer-$n.yaml"
done
port_into balancer
job_start balancer "$ATT_SOURCE_DIR/tests/support/balancer.py" "$balancer" "${ports[@]}"
job_start fleet env FLEET_ORDERS=25 "$(dirname "$bin")/tests-bin/fleet" "$dir" "$balancer" 2
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
wait_for 180 test -s "$dir/orders"
job_stop fleet KILL
[ "$(cat "$dir/orders")" = "30 20" ] || job_fail "made and refused: $(cat "$dir/orders"), expected 30 20"
[ "$(db "SELECT COUNT(*) FROM orders WHERE status = 'pending'")" = 30 ] || job_fail "orders in the store: $(db "SELECT COUNT(*) FROM orders")"
ok "15 orders a host at three issuers, further ones refused with a time"

db "INSERT INTO orders (id, account, host, ak, identifier_type, identifier, profile, status, chall_status, error, token, pcr_selection,
        logs, policy, entry, entry_version, clock, decision, cert, measured, authz, replaces, parent, key_spki, created_at, expires_at, verdict_at)
    SELECT 'ended.' || i, account, host, ak, identifier_type, identifier, profile, status, chall_status, error, 'ended.' || i, pcr_selection,
        logs, policy, entry, entry_version, clock, decision, cert, measured, authz, replaces, parent, key_spki, created_at, expires_at - 7200, verdict_at
    FROM (SELECT * FROM orders LIMIT 1) AS one, generate_series(1, 5000) AS s(i)" > /dev/null
rss() { sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$(job_pid "issuer-$1")/status"; }
before=$(rss 2)
job_stop issuer-1 TERM
start_issuer 1 # sweeps at its start, and each minute
swept() { [ "$(db "SELECT COUNT(*) FROM orders WHERE id LIKE 'ended.%'")" = 0 ]; }
wait_for 90 swept
[ "$(db "SELECT COUNT(*) FROM orders WHERE status = 'pending'")" = 30 ] || job_fail "orders that have time left were swept"
[ "$(rss 2)" -lt $((before + 16384)) ] || job_fail "an issuer grew from $before to $(rss 2) KiB"
fault_sanitizers
ok "5000 that had ended are swept, those with time left are not"
