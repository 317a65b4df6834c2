#!/usr/bin/env bash
# Backup beside an issuer that serves and decides, restore, and what an older backup means for the published log.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/auditlog.sh
. "$ATT_SOURCE_DIR/tests/support/auditlog.sh"
log_setup
backup() { "$bin/attest-issuerd" --config "$dir/issuer.yaml" backup --to "$1" > "$dir/tmp/backup" 2>&1; }

# ---- while it decides ---------------------------------------------------------------------------------------------
log_decide 5
(for _ in $(seq 15); do ctl ticket create > /dev/null || exit 1; done) &
deciding=$!
backup "$dir/b1" || { cat "$dir/tmp/backup"; job_fail "backup"; }
wait "$deciding" || job_fail "a decision was refused meanwhile"
grep -q 'decisions, checked' "$dir/tmp/backup" || { cat "$dir/tmp/backup"; job_fail "what was copied"; }
for part in backup.json ca/workload-ca.key ca/log.key audit.checkpoint audit.head audit-log/checkpoint issuer.db; do
    [ -f "$dir/b1/$part" ] || job_fail "$part is not in the backup"
done
[ -z "$(find "$dir/b1" -perm /077)" ] || job_fail "others may read the backup"
got=0
backup "$dir/b1" || got=$?
[ "$got" = 1 ] && grep -q backupExists "$dir/tmp/backup" || { cat "$dir/tmp/backup"; job_fail "a backup is overwritten"; }
got=0
"$bin/attest-issuerd" --config "$dir/issuer.yaml" backup > "$dir/tmp/out" 2>&1 || got=$?
[ "$got" = 2 ] || job_fail "backup to nowhere: $got"
ok "a backup beside an issuer that decides: whole, for nobody else's eyes, never over another"

# ---- the newest backup, on a new machine ----------------------------------------------------------------------------
log_decide 1
log_verify "$log" --save "$dir/seen" > /dev/null
records=$(log_records)
backup "$dir/b2"
job_stop issuerd
mv "$dir/issuer" "$dir/lost"
cp -r "$dir/b2" "$dir/issuer"
job_start_issuer
[ "$(log_records)" = "$records" ] || job_fail "records: $(log_records), expected $records"
ctl audit verify > /dev/null
log_decide 3
log_verify "$log" --since "$dir/seen" --save "$dir/later" > /dev/null
ok "restored: the log goes on from what an auditor has seen"

# ---- an older one: the guard, what auditors see, and how to go on -----------------------------------------------------
job_stop issuerd
mkdir "$dir/mixed"
cp -r "$dir/issuer/." "$dir/mixed/"
rm -f "$dir"/mixed/issuer.db*
cp "$dir/b1/issuer.db" "$dir/mixed/"
log_conf "$dir/mixed" "$dir/mixed-run" 0 > "$dir/mixed.yaml"
got=0
timeout 60 "$bin/attest-issuerd" --config "$dir/mixed.yaml" > "$dir/tmp/start" 2>&1 || got=$?
[ "$got" = 1 ] && grep -q 'start.failed.*logRolledBack' "$dir/tmp/start" || { cat "$dir/tmp/start"; job_fail "the older database alone: $got"; }
# The whole of the older backup holds together; who has seen more is not deceived.
mv "$dir/issuer" "$dir/lost2"
cp -r "$dir/b1" "$dir/issuer"
job_start_issuer
refused logTruncated log_verify "$log" --since "$dir/later"
log_decide 25
refused logForked log_verify "$log" --since "$dir/later"
job_stop issuerd
mkdir "$dir/issuer/log.1"
mv "$log" "$dir/issuer/audit.checkpoint" "$dir"/issuer/ca/log.* "$dir/issuer/log.1/"
job_start_issuer
log_decide 1
log_verify "$log" > /dev/null
refused 'logSignature\|logOrigin' log_verify "$log" --since "$dir/later"
ctl audit verify > /dev/null
ok "an older backup: refused beside a newer log, seen by auditors by itself, and a new log goes on"
job_stop issuerd

# ---- a key for tokens that was stolen, and an older backup -----------------------------------------------------------------
kids() { ctl --json ca jwt | jq -r '[.keys[].kid] | join(" ")'; }
printf 'jwt:\n  issuer: "https://id.bank.example"\n' >> "$dir/issuer.yaml"
job_start_issuer
stolen=$(kids)
stolen_file=$(find "$dir/issuer/ca/jwt" -name '*.key' -printf '%f\n')
backup "$dir/b4" || { cat "$dir/tmp/backup"; job_fail "backup"; }
ctl ca jwt-replace --withdraw > /dev/null
after=$(kids)
[ "$after" != "$stolen" ] && [ ! -e "$dir/issuer/ca/jwt/$stolen_file" ] || job_fail "it was not withdrawn"
job_stop issuerd
mv "$dir/issuer" "$dir/lost4"
cp -r "$dir/b4" "$dir/issuer"
[ -e "$dir/issuer/ca/jwt/$stolen_file" ] || job_fail "the backup has not got the key: nothing is tested here"
job_start_issuer
now=$(kids)
[ -n "$now" ] && [ "$now" != "$stolen" ] && [ "$now" != "$after" ] || job_fail "published after the restore: $now"
[ ! -e "$dir/issuer/ca/jwt/$stolen_file" ] && [ ! -e "$dir/issuer/backup.json" ] || { ls "$dir/issuer" "$dir/issuer/ca/jwt"; job_fail "left"; }
ctl --json audit list --kind jwtKey --limit 100 | jq -e --arg kid "$stolen" \
    '[.records[].record | select(.outcome == "removed" and .reason == "restored" and .subject == $kid)] | length == 1' > "$dir/tmp/rec" ||
    job_fail "no record"
job_stop issuerd
job_start_issuer
[ "$(kids)" = "$now" ] || job_fail "withdrawn at each start"
job_stop issuerd
echo '{"version": 1, "madeAt": "yesterday"}' > "$dir/issuer/backup.json"
got=0
timeout 60 "$bin/attest-issuerd" --config "$dir/issuer.yaml" > "$dir/tmp/start" 2>&1 || got=$?
[ "$got" = 1 ] && grep -q 'start.failed.*backupMark' "$dir/tmp/start" || { cat "$dir/tmp/start"; job_fail "a mark that cannot be read: $got"; }
rm "$dir/issuer/backup.json"
sed -i '/^jwt:/,$d' "$dir/issuer.yaml"
ok "a backup with a key for tokens that was withdrawn since: after the restore it is neither published nor there, once"

# ---- PostgreSQL: the files by the command, then pg_dump -----------------------------------------------------------------
. "$ATT_SOURCE_DIR/tests/support/postgres.sh"
if pg_bin > /dev/null; then
    job_start_postgres
    rm -rf "$dir/issuer"
    { grep -v '^store' "$dir/issuer.yaml"; echo "store: \"$job_store\""; } > "$dir/pg.yaml"
    mv "$dir/pg.yaml" "$dir/issuer.yaml"
    "$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/tmp/init"
    job_start_issuer
    log_decide 5
    log_verify "$log" --save "$dir/seen.pg" > /dev/null
    backup "$dir/b3"
    grep -q 'Run pg_dump NOW' "$dir/tmp/backup" && [ ! -e "$dir/b3/issuer.db" ] || { cat "$dir/tmp/backup"; job_fail "pg"; }
    ctl ticket create > /dev/null
    "$(pg_bin)/pg_dump" -h "$job_pg" -U att -Fc postgres > "$dir/dump"
    records=$(log_records)

    # ---- /ready follows the store -----------------------------------------------------------------------------------
    ready() { [ "$(curl -sS --unix-socket "$dir/issuer-run/metrics.sock" http://issuer/ready)" = "$1" ]; }
    wait_for 20 ready ready
    job_stop postgres INT
    wait_for 30 ready store
    curl -sS --unix-socket "$dir/issuer-run/metrics.sock" http://issuer/metrics > "$dir/tmp/metrics"
    grep -q '^attest_issuer_ready 0' "$dir/tmp/metrics" || job_fail "the metrics say ready"
    job_start_postgres
    wait_for 60 ready ready
    curl -sS --unix-socket "$dir/issuer-run/metrics.sock" http://issuer/metrics > "$dir/tmp/metrics"
    ! grep -q '^attest_issuer_store_errors_total{kind="unreachable"} 0$' "$dir/tmp/metrics" || job_fail "no error was counted"
    ok "/ready is false while the database is away, and true again"

    job_stop issuerd
    pg_sql "$job_pg" postgres 'CREATE DATABASE restored'
    "$(pg_bin)/pg_restore" -h "$job_pg" -U att -d restored "$dir/dump"
    sed -i 's/dbname=postgres/dbname=restored/' "$dir/issuer.yaml"
    mv "$dir/issuer" "$dir/lost3"
    cp -r "$dir/b3" "$dir/issuer"
    job_start_issuer
    [ "$(log_records)" -ge "$records" ] || job_fail "records: $(log_records), expected $records"
    ctl audit verify > /dev/null
    log_decide 1
    log_verify "$log" --since "$dir/seen.pg" > /dev/null
    job_stop issuerd
    ok "PostgreSQL: the folder and a dump after it"
fi
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
