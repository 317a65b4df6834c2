#!/usr/bin/env bash
# PostgreSQL over TLS as docs/OPERATIONS.md has it: verify-full without saying so, a client certificate instead of a password.
# Refused, each alone and by its name: a server of another CA, a server with another name, no certificate, one of another CA,
# one of another role; sslmode is never made less by what stands in for it. Then a server certificate that is replaced
# while the issuer runs, a pool without a place, and a server that answers a serialization failure: told to retry, counted.
set -euo pipefail
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
for tool in psql jq openssl python3 curl; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/att-job.XXXXXX")
trap job_cleanup EXIT
bin=$ATT_BIN_DIR
mkdir -p "$dir/log" "$dir/tmp" "$dir/ek"
# shellcheck source=../support/issuers.sh
. "$ATT_SOURCE_DIR/tests/support/issuers.sh"
# shellcheck source=../support/pgtls.sh
. "$ATT_SOURCE_DIR/tests/support/pgtls.sh"

job_port
pg_port=$port
pgtls_ca ca
pgtls_ca other
pgtls_leaf server ca localhost DNS:localhost
pgtls_leaf elsewhere ca elsewhere DNS:elsewhere.example
pgtls_leaf client ca attestd
pgtls_leaf stranger other attestd
pgtls_leaf somebody ca somebody
start_with() { # LEAF
    pgtls_server "$1" ca
    pgtls_start 127.0.0.1 "$pg_port" job_start postgres
}
start_with server
db "CREATE ROLE attestd LOGIN" && db "CREATE DATABASE attestd OWNER attestd TEMPLATE template0 ENCODING 'UTF8'"
# shellcheck disable=SC2034 # job.sh uses it
job_database=attestd

job_port
job_start fleet env FLEET_RATE=4 "$(dirname "$bin")/tests-bin/fleet" "$dir" "$port" 4
wait_for 120 test -e "$dir/roots"
# By address: a "localhost" that is ::1 first would begin each message with a refused connection.
place="host=localhost hostaddr=127.0.0.1 port=$pg_port user=attestd dbname=attestd"
mine="sslcert=$dir/pki/client.pem sslkey=$dir/pki/client.key"
conf() { # CONNECTION STRING
    # shellcheck disable=SC2034 # issuers_conf writes it
    job_store="postgres:$1"
    issuers_conf 1 "127.0.0.1:$port"
}
check() { "$bin/attest-issuerd" --config "$dir/issuer-1.yaml" --check; }
refused() { # WHAT PATTERN CONNECTION STRING
    conf "$3"
    fault_refused "$2" "$bin/attest-issuerd" --config "$dir/issuer-1.yaml" --check
    ok "refused: $1"
}
root="sslrootcert=$dir/pki/ca.pem"
conf "$place $root $mine"
"$bin/attest-issuerd" --config "$dir/issuer-1.yaml" init > "$dir/log/init.log" 2>&1 || { cat "$dir/log/init.log"; job_fail "init"; }

refused "a server of another CA" 'certificate verify failed' "$place sslrootcert=$dir/pki/other.pem $mine"
refused "no CA to compare with" 'root certificate file|verify' "$place sslrootcert=$dir/pki/none.pem $mine"
refused "no client certificate" 'requires a valid client certificate|no client certificate' "$place $root"
refused "a client certificate of another CA" 'unknown ca|connection to server' "$place $root sslcert=$dir/pki/stranger.pem sslkey=$dir/pki/stranger.key"
refused "another role's certificate" 'certificate authentication failed' "$place $root sslcert=$dir/pki/somebody.pem sslkey=$dir/pki/somebody.key"
refused "without TLS, asked for" 'no pg_hba.conf entry|no encryption' "$place $root $mine sslmode=disable"
job_stop postgres INT
start_with elsewhere
refused "a server with another name" 'does not match host name' "$place $root $mine"
job_stop postgres INT
start_with server

conf "$place $root $mine"
check > "$dir/tmp/check" || { cat "$dir/tmp/check"; job_fail "--check"; }
job_start issuer-1 "$bin/attest-issuerd" --config "$dir/issuer-1.yaml"
wait_for 60 ctl_of 1 issuer status
cp "$dir/state-1/ca/tls-root.pem" "$dir/tls-root.pem"
ln -s "$dir/run-1/admin.sock" "$dir/admin"
wait_for 180 test -e "$dir/enrolled"
progress 4
issuer_connections="a.application_name = 'attest-issuerd'"
[ "$(db "SELECT COUNT(*) > 0 AND bool_and(s.ssl AND s.client_dn = '/CN=attestd' AND s.version >= 'TLSv1.2')
    FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE $issuer_connections")" = t ] || job_fail "a connection without TLS or certificate"
ok "certificates over verify-full and a client certificate"

# ---- the server's certificate is replaced by one of the same CA, and its connections end ----
pgtls_leaf second ca localhost DNS:localhost
pgtls_server second ca
db "SELECT pg_reload_conf()" > /dev/null
db "SELECT pg_terminate_backend(pid) FROM pg_stat_activity a WHERE $issuer_connections" > /dev/null
progress 4
ok "reconnected to a server with a new certificate"

# ---- by one of the wrong name: no connection any more, none in clear instead; and back ----
metric() { curl -s --unix-socket "$dir/run-1/metrics.sock" http://issuer/metrics | sed -n "s/^$1 //p"; }
counted() { [ "$(metric "$1")" -gt "$2" ]; }
unreachable='attest_issuer_store_errors_total{kind="unreachable"}'
before=$(metric "$unreachable")
pgtls_server elsewhere ca
db "SELECT pg_reload_conf()" > /dev/null
db "SELECT pg_terminate_backend(pid) FROM pg_stat_activity a WHERE $issuer_connections" > /dev/null
wait_for 60 counted "$unreachable" "$((before + 3))"
[ "$(db "SELECT COUNT(*) FROM pg_stat_activity a WHERE $issuer_connections")" = 0 ] || job_fail "a connection to a server of another name"
pgtls_server server ca
db "SELECT pg_reload_conf()" > /dev/null
progress 4
ok "a server that takes another name is not spoken to"

# ---- the server has no connection left for us ----
before=$(metric "$unreachable")
db "ALTER ROLE attestd CONNECTION LIMIT 0" > /dev/null
db "SELECT pg_terminate_backend(pid) FROM pg_stat_activity a WHERE $issuer_connections" > /dev/null
wait_for 60 counted "$unreachable" "$((before + 3))"
db "ALTER ROLE attestd CONNECTION LIMIT -1" > /dev/null
progress 4
ok "no connection to be had: told to retry"

# ---- serialization failures and deadlocks: three of each, at the intent ----
busy='attest_issuer_store_errors_total{kind="busy"}'
before=$(metric "$busy")
db "CREATE SEQUENCE failures" > /dev/null
db "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \$\$
DECLARE n bigint := nextval('failures');
BEGIN
    IF n <= 3 THEN RAISE 'could not serialize access' USING ERRCODE = '40001'; END IF;
    IF n <= 6 THEN RAISE 'deadlock detected' USING ERRCODE = '40P01'; END IF;
    RETURN NEW;
END\$\$" > /dev/null
db "CREATE TRIGGER fails BEFORE INSERT ON certs FOR EACH ROW EXECUTE FUNCTION fails()" > /dev/null
wait_for 60 counted "$busy" "$((before + 5))"
progress 4
[ "$(metric "$busy")" = "$((before + 6))" ] || job_fail "busy is $(metric "$busy"), it was $before"
ok "serialization failures are told to be tried again, and are counted"

issuers_end
grep -q ' 0 orders that came to nothing' "$dir/log/fleet.log" || job_fail "an order came to nothing: $(cat "$dir/log/fleet.log")"
issuers_whole 4 1
fault_sanitizers
ok "all whole"
