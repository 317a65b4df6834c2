#!/usr/bin/env bash
# Three issuers, PostgreSQL and the hosts on machines of their own (network namespaces), the database over TLS with client
# certificates: an issuer that loses the database and nothing else, is killed in that state and comes back; hosts that lose an
# issuer; a database that nobody reaches. Meanwhile the issuers' clocks are 90 s apart. No certificate is lost, none is
# issued twice for one order, no serial number twice, every host ends with a certificate that is valid by the true time:
# by the database and by the audit log. Each cut lasts PARTITION seconds (5); with ATT_LONG 30, and 200 hosts instead of 20.
set -euo pipefail
# shellcheck source=../support/netns.sh
. "$ATT_SOURCE_DIR/tests/support/netns.sh"
net_own "$@"
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
for tool in psql jq openssl python3 curl; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/att-job.XXXXXX")
trap job_cleanup EXIT
bin=$ATT_BIN_DIR
mkdir -p "$dir/log" "$dir/tmp" "$dir/ek" "$dir/chains"
# shellcheck source=../support/issuers.sh
. "$ATT_SOURCE_DIR/tests/support/issuers.sh"
# shellcheck source=../support/pgtls.sh
. "$ATT_SOURCE_DIR/tests/support/pgtls.sh"
HOSTS=${HOSTS:-${ATT_LONG:+200}} PARTITION=${PARTITION:-${ATT_LONG:+30}}
HOSTS=${HOSTS:-20} PARTITION=${PARTITION:-5}
export ATT_TEST_FSYNC=on

net_bridge
net_node db 2
net_node hosts 3
for n in 1 2 3; do
    net_node "issuer$n" 1$n
done
fault_clock_make
# Valid since an hour ago: one of the issuers has a slow clock.
fault_clock "$dir/clock-pki" -3600 0
# shellcheck disable=SC2154 # fault_clock_make sets it
openssl() { env LD_PRELOAD="$clock_preload" ATT_TEST_CLOCK="$dir/clock-pki" "$(type -P openssl)" "$@"; }
pgtls_ca ca
pgtls_leaf server ca db IP:10.77.0.2
pgtls_leaf client ca att
unset -f openssl
pgtls_server server ca
pgtls_start 10.77.0.2 5432 net_start db postgres
# shellcheck disable=SC2034 # issuers_conf writes it
job_store="postgres:host=10.77.0.2 port=5432 user=att dbname=postgres sslrootcert=$dir/pki/ca.pem sslcert=$dir/pki/client.pem sslkey=$dir/pki/client.key"

# ---- three issuers, their clocks 45 s slow, right, and 45 s fast ----
skew=(0 -45 0 45)
for n in 1 2 3; do
    issuers_conf "$n" "10.77.0.1$n:8443"
    fault_clock "$dir/clock-$n" "${skew[n]}" 0
done
net_start hosts fleet env FLEET_RATE="${FLEET_RATE:-8}" "$(dirname "$bin")/tests-bin/fleet" "$dir" 9443 "$HOSTS"
wait_for 120 test -e "$dir/roots"
issuers_init_in_net() { net_in issuer2 "$bin/attest-issuerd" --config "$dir/issuer-2.yaml" init; }
issuers_init_in_net > "$dir/log/init.log" 2>&1 || { cat "$dir/log/init.log"; job_fail "init"; }
for n in 1 3; do
    mkdir -m 700 "$dir/state-$n"
    cp -a "$dir/state-2/ca" "$dir/state-$n/"
done
start_issuer() {
    net_start "issuer$1" "issuer-$1" env LD_PRELOAD="$clock_preload" ATT_TEST_CLOCK="$dir/clock-$1" \
        "$bin/attest-issuerd" --config "$dir/issuer-$1.yaml"
    wait_for 60 ctl_of "$1" issuer status
}
for n in 1 2 3; do
    start_issuer "$n"
done
net_start hosts balancer "$ATT_SOURCE_DIR/tests/support/balancer.py" 9443 10.77.0.11:8443 10.77.0.12:8443 10.77.0.13:8443
cp "$dir/state-2/ca/tls-root.pem" "$dir/tls-root.pem"
ln -s "$dir/run-2/admin.sock" "$dir/admin"
wait_for 180 test -e "$dir/enrolled"
[ "$(db "SELECT COUNT(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
    WHERE a.application_name = 'attest-issuerd' AND NOT (s.ssl AND s.client_dn = '/CN=att')")" = 0 ] || job_fail "a connection without TLS or certificate"
progress "$HOSTS"

ready_is() { # N WORD
    [ "$(curl -s --unix-socket "$dir/run-$1/metrics.sock" http://issuer/ready)" = "$2" ]
}
said() { ok "$*: $(certs) certificates"; }
some=$((HOSTS / 2))

# ---- an issuer loses the database; the others go on, and the readiness probe says it; then it dies in that state ----
net_cut issuer1 db
wait_for 60 ready_is 1 store
for n in 2 3; do
    ready_is "$n" ready || job_fail "issuer $n is not ready"
done
progress "$some"
sleep "$PARTITION"
job_stop issuer-1 KILL
net_mend issuer1 db
start_issuer 1
wait_for 60 ready_is 1 ready
progress "$some"
said "issuer without database, killed in that state"

# ---- and comes back by itself ----
net_cut issuer3 db
wait_for 60 ready_is 3 store
sleep "$PARTITION"
progress "$some"
net_mend issuer3 db
wait_for 60 ready_is 3 ready
progress "$some"
said "issuer without database, and back"

# ---- hosts lose an issuer, which has the database ----
net_cut hosts issuer2
sleep "$PARTITION"
progress "$some"
ready_is 2 ready || job_fail "an issuer without clients is not ready"
net_mend hosts issuer2
progress "$some"
said "an issuer without clients"

# ---- nobody has the database: nothing is issued, and everything goes on afterwards ----
ip link set v-db down
for n in 1 2 3; do
    wait_for 60 ready_is "$n" store
done
before=$(certs)
sleep "$PARTITION"
[ "$(certs)" = "$before" ] || job_fail "$(($(certs) - before)) certificates without a database"
ip link set v-db up
for n in 1 2 3; do
    wait_for 90 ready_is "$n" ready
done
progress "$HOSTS"
said "nobody with a database"

issuers_end
issuers_whole "$HOSTS" 1 2 3
# By the true time, with a stock verifier.
for chain in "$dir"/chains/*.pem; do
    openssl verify -x509_strict -CAfile "$dir/state-2/ca/bundle.pem" -untrusted "$chain" "$chain" > "$dir/tmp/verify" 2>&1 ||
        { cat "$dir/tmp/verify"; job_fail "$chain is not valid now"; }
done
[ "$(find "$dir/chains" -name '*.pem' | wc -l)" = "$HOSTS" ] || job_fail "a host without a chain"
fault_sanitizers
said "all whole"
