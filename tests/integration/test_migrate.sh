#!/usr/bin/env bash
# attest-issuerd migrate: an issuer's SQLite becomes a PostgreSQL's content, and it serves from there with the same
# entries, tickets and audit chain; refused beside a running issuer, into a database in use, with a password on argv.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
for tool in psql jq openssl; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/att-job.XXXXXX")
trap job_cleanup EXIT
bin=$ATT_BIN_DIR
mkdir -p "$dir/log" "$dir/tmp" "$dir/ek" "$dir/policies"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=maker -keyout "$dir/tmp/key" \
    -out "$dir/ek/maker.pem" 2> /dev/null
job_start_postgres
job_port
write_conf() { # STORE
    cat > "$dir/issuer.yaml" << END
trust_domain: bank.example
listen: "127.0.0.1:$port"
url: "https://127.0.0.1:$port/acme"
state_dir: $dir/issuer
run_dir: $dir/issuer-run
policies_dir: $dir/policies
control_group: none
store: "$1"
ek: { roots_dir: $dir/ek }
enrolment: { boot: none, pcrs: "sha256:0,7", logs: [firmware] }
profiles:
  - { name: trading, boot: none, pcrs: "sha256:0,7", logs: [firmware] }
END
}
write_conf "$dir/issuer/issuer.db"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > /dev/null
job_start_issuer
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - { name: a, owner: x@bank.example, hosts: [ "label:zone=z" ], workload: { uid: 1001 }, key: tpm, profile: trading }
END
ctl entry apply -f "$dir/agents.yaml" > /dev/null
for n in 1 2 3; do
    ctl ticket create --host "h$n" --out "$dir/t$n.json" > /dev/null
done
entries() { ctl --json entry list | jq -S -c .; }
records() { ctl --json audit verify | jq .records; }
before=$(entries)
n_before=$(records)

migrate() { "$bin/attest-issuerd" migrate --from "sqlite:$dir/issuer/issuer.db" --to "$@" > "$dir/tmp/migrate" 2>&1; }
refused() { # WORDS STORE...
    local words=$1
    shift
    ! migrate "$@" || job_fail "migrated: $words"
    grep -q "$words" "$dir/tmp/migrate" || { cat "$dir/tmp/migrate"; job_fail "expected: $words"; }
}
refused stateDirInUse "$job_store"
job_stop issuerd
refused store_password_file "$job_store password=hush"
! grep -q hush "$dir/tmp/migrate" || job_fail "the password is told"
refused "expected --from" "sqlite:$dir/other.db"

migrate "$job_store" || { cat "$dir/tmp/migrate"; job_fail migrate; }
grep -Eq '^tickets +3 rows$' "$dir/tmp/migrate" || { cat "$dir/tmp/migrate"; job_fail "tickets"; }
grep -q "audit chain verified: $n_before records" "$dir/tmp/migrate" || { cat "$dir/tmp/migrate"; job_fail "chain"; }
refused storeNotEmpty "$job_store"

mv "$dir/issuer/issuer.db" "$dir/tmp/"
write_conf "$job_store"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > /dev/null
job_start_issuer
[ "$(entries)" = "$before" ] || job_fail "the entries differ: $(entries)"
# The head that was signed before is continued.
[ "$(records)" -ge "$n_before" ] || job_fail "fewer records"
! grep -q auditHead "$dir/log/issuerd.log" || job_fail "a new head was begun"
[ ! -e "$dir/issuer/issuer.db" ] || job_fail "an SQLite database was made"
ctl ticket create --host h4 --out "$dir/t4.json" > /dev/null
[ "$(pg_sql "$job_pg" postgres 'SELECT COUNT(*) FROM tickets')" = 4 ] || job_fail "not in PostgreSQL"
echo ok
