#!/usr/bin/env bash
# Three issuers on one PostgreSQL behind a TCP balancer, twenty simulated hosts that renew without a pause: each
# issuer is killed (SIGKILL) or stopped at work, the database falls over and comes back. No certificate is
# lost, none is issued twice for one order, no intent is left open, every host ends with a valid certificate, and
# the audit chain holds for all three. HOSTS=200 and ROUNDS=5 make it longer.
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
HOSTS=${HOSTS:-20} ROUNDS=${ROUNDS:-1}

job_start_postgres
db() { pg_sql "$job_pg" postgres "$1"; }
ctl_of() { # N COMMAND...
    local n=$1
    shift
    "$bin/attestctl" --issuer "$dir/run-$n/admin.sock" "$@"
}

# The url is the balancer's name; hosts reach it at another port, which TLS and the signed url do not see.
for n in 1 2 3; do
    job_port
    ports[n]=$port
    cat > "$dir/issuer-$n.yaml" << END
trust_domain: bank.example
listen: "127.0.0.1:$port"
url: "https://127.0.0.1:8443/acme"
state_dir: $dir/state-$n
run_dir: $dir/run-$n
policies_dir: $dir/policies
store: "$job_store"
control_group: none
ek:
  roots_dir: $dir/ek
enrolment:
  boot: none
  pcrs: "sha256:0,1,2,3,4,5,6,7,14,16"
  logs: [firmware]
profiles:
  - name: trading
    lifetime: 1h
    keys: [tpm]
    boot: none
    pcrs: "sha256:0,1,2,3,4,5,6,7,14,16"
    logs: [firmware]
END
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
"$bin/attest-issuerd" --config "$dir/issuer-1.yaml" init > "$dir/log/init.log"
for n in 2 3; do
    mkdir -m 700 "$dir/state-$n"
    cp -a "$dir/state-1/ca" "$dir/state-$n/"
done
for n in 1 2 3; do
    job_start "issuer-$n" "$bin/attest-issuerd" --config "$dir/issuer-$n.yaml"
done
for n in 1 2 3; do
    wait_for 60 ctl_of "$n" issuer status
done
cp "$dir/state-1/ca/tls-root.pem" "$dir/tls-root.pem"
ln -s "$dir/run-3/admin.sock" "$dir/admin"
wait_for 180 test -e "$dir/enrolled"

certs() { [ ! -e "$dir/certs" ] || wc -l < "$dir/certs"; }
more_than() { [ "$(certs)" -gt "$1" ]; }
# N more certificates in hands, while the fleet lives
progress() {
    job_alive fleet || job_fail "the fleet ended"
    local from
    from=$(certs)
    wait_for 180 more_than $((${from:-0} + $1))
}

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
touch "$dir/stop"
ended() { ! job_alive fleet; }
wait_for 180 ended
grep 'hosts:.*certificates' "$dir/log/fleet.log" || job_fail "the fleet failed"

no_intents() { [ "$(db "SELECT COUNT(*) FROM certs WHERE status = 'intent'")" = 0 ]; }
wait_for 60 no_intents
twice=$(db "SELECT ord FROM certs WHERE status = 'issued' AND kind = 'agent' GROUP BY ord HAVING COUNT(*) > 1")
[ -z "$twice" ] || job_fail "two certificates for one order: $twice"
# Each certificate that a host has in its hand is in the store as issued, for its order.
sort "$dir/certs" | cut -d' ' -f1,2 > "$dir/tmp/hands"
db "SELECT serial || ' ' || ord FROM certs WHERE status = 'issued' AND kind = 'agent'" | sort > "$dir/tmp/store"
lost=$(comm -23 "$dir/tmp/hands" "$dir/tmp/store")
[ -z "$lost" ] || job_fail "not in the store: $lost"
[ "$(cut -d' ' -f1 "$dir/tmp/hands" | sort | uniq -d)" = "" ] || job_fail "a serial number twice"
# And each that the store says is issued is one that some order could fetch: with its bytes.
[ "$(db "SELECT COUNT(*) FROM certs WHERE status = 'issued' AND pem = ''")" = 0 ] || job_fail "issued without bytes"
[ "$(cut -d' ' -f3 "$dir/certs" | sort -u | wc -l)" = "$HOSTS" ] || job_fail "a host without a certificate"
# An intent record and one outcome for each.
wrong=$(db "SELECT COUNT(*) FROM certs c WHERE (SELECT COUNT(*) FROM audit WHERE
    strpos(record, '\"serial\":\"' || c.serial || '\"') > 0 AND (strpos(record, '\"kind\":\"issued\"') > 0
    OR strpos(record, '\"kind\":\"abandoned\"') > 0)) <> 1")
[ "$wrong" = 0 ] || job_fail "$wrong certificates without exactly one outcome in the log"
for n in 1 2 3; do
    ctl_of "$n" audit verify > "$dir/tmp/audit" || { cat "$dir/tmp/audit"; job_fail "audit of issuer $n"; }
done
# A change at one is noticed by the others.
version() { ctl_of "$1" --json issuer status | jq -r .viewVersion; }
same_version() { [ "$(version 1)" = "$(version "$1")" ]; }
before=$(version 1)
ctl_of 1 entry delete portfolio-rebalancer > /dev/null
[ "$(version 1)" -gt "$before" ] || job_fail "the view's version stays $before"
wait_for 30 same_version 2
wait_for 30 same_version 3
echo "ok: $(certs) certificates in hand, $(db "SELECT COUNT(*) FROM certs WHERE status = 'abandoned'") abandoned"
