#!/usr/bin/env bash
# The audit log as others see it: published, proved, checked by attestctl's own verifier; and every way of
# falsifying it, each refused with its reason by name.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/auditlog.sh
. "$ATT_SOURCE_DIR/tests/support/auditlog.sh"
log_setup

# ---- published and served ------------------------------------------------------------------------------------
grep -q "$key" "$dir/tmp/init" || job_fail "init does not name the log's key"
[ "$(stat -c %a "$dir/issuer/ca/log.key")" = 600 ] || job_fail "mode of log.key"
log_decide 5
ca=$dir/issuer/ca/tls-root.pem
log_verify "$log" --save "$dir/first" > "$dir/tmp/out"
grep -q 'decisions give the root' "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "verify"; }
log_verify "$url" --ca "$ca" --since "$dir/first" > "$dir/tmp/out"
grep -q 'it continues the checkpoint' "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "verify by https"; }
cached() { curl -sS --fail --cacert "$ca" -D - -o "$dir/tmp/body" "$url/$1" | tr -d '\r' | grep -qi "^cache-control: $2$"; }
cached checkpoint no-cache || job_fail "caching of the checkpoint"
size=$(log_size "$log")
cached "tile/0/000.p/$size" 'public, max-age=31536000, immutable' || job_fail "caching of a tile"
[ "$(stat -c %s "$dir/tmp/body")" = $((32 * size)) ] || job_fail "a tile of $size hashes"
for path in tile/0/001 tile/0/0 tile/0/000.p/0 tile/0/../../audit.checkpoint %2e%2e/audit.checkpoint tile/9/000; do
    [ "$(curl -sS --path-as-is --cacert "$ca" -o "$dir/tmp/body" -w '%{http_code}' "$url/$path")" = 404 ] || job_fail "$path is served"
done
[ "$(curl -sS --cacert "$ca" -o "$dir/tmp/body" -w '%{http_code}' -d x "$url/checkpoint")" = 405 ] || job_fail "POST to the log"
ok "signed, complete, served over HTTPS with lifetimes for caches"

# ---- more than a tile; a checkpoint continues the one before ---------------------------------------------------
log_decide 270
[ -f "$log/tile/0/000" ] && [ -f "$log/tile/entries/000" ] && [ ! -e "$log/tile/0/000.p" ] && [ ! -e "$log/tile/entries/000.p" ] ||
    job_fail "a full tile, and no partial ones of it"
[ -f "$log/tile/1/000.p/1" ] || job_fail "the tile above"
log_verify "$log" --since "$dir/first" > "$dir/tmp/out"
[ "$(curl -sS --fail --cacert "$ca" "$url/tile/0/000.p/7" | wc -c)" = 224 ] || job_fail "a partial tile that became full"
expect_usage() { local got=0; "$@" > "$dir/tmp/out" 2>&1 || got=$?; [ "$got" = 2 ] || job_fail "$*: exit $got"; }
expect_usage ctl audit verify "$log"
expect_usage ctl audit verify --key "$key"
ok "tiles of 256, partial ones removed once they are full"

# ---- nothing but words in a leaf -----------------------------------------------------------------------------
ek=$(printf 'ab%062d' 7)
printf 'ek,label,labels\n%s,secretname,zone=hidden\n' "$ek" > "$dir/hosts.csv"
ctl host import -f "$dir/hosts.csv" > /dev/null
ctl host ban secretname --reason stolenfromvault > /dev/null
log_decide 1
! grep -raE 'secretname|stolenfromvault|hidden|ab0000' "$log" || job_fail "names in the log"
ok "no host, EK or reason that somebody typed in any leaf"

# ---- a proof for an auditor who has nothing but the key ----------------------------------------------------------
banned=$(ctl --json audit why secretname | jq '[.records[] | select(.record.detail == "banned")][0].seq')
ctl audit prove "$banned" > "$dir/proof"
"$bin/attestctl" audit check "$dir/proof" --key "$(cat "$key")" > "$dir/tmp/out"
grep -q "decision $banned is in the log .* and is this record" "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "check"; }
bent() { # bent REASON JQ
    jq "$2" "$dir/proof" > "$dir/bent"
    refused "$1" ctl audit check "$dir/bent" --key "$key"
}
bent proofRecord '.record |= sub("stolen"; "bought")'
bent proofRecord '.salt |= sub("^.."; "00") | .salt |= sub("^00"; "01")'
bent proofPath '.hashes[0] = .root'
bent proofPath '.hashes |= .[1:]'
bent proofPath '.leaf |= sub("\nhost\n"; "\nhosts\n")'
bent proofIndex '.index += 1'
bent proofIndex '.seq += 1 | .index += 1'
bent logSignature '.checkpoint |= sub("\n2"; "\n3")'
bent proofForm 'del(.leaf)'
bent proofForm '.hashes[0] = "AA=="'
ok "audit prove, and audit check of every bent proof"

# ---- erasing a record --------------------------------------------------------------------------------------------
refused 'not there' ctl audit erase --seq 99999 --reason x
ctl audit erase --seq "$banned" --reason 'right to be forgotten' > /dev/null
refused 'erased before' ctl audit erase --seq "$banned" --reason again
log_decide 1
refused eraseRecord ctl audit erase --seq "$(ctl --json audit list --kind erase | jq .records[0].seq)" --reason cover
ctl audit verify > /dev/null
log_verify "$log" --since "$dir/first" > /dev/null
[ "$(ctl audit prove "$banned" | jq -c '[.record, .salt]')" = '[null,null]' ] || job_fail "an erased record is shown"
ctl audit prove "$banned" > "$dir/erased"
ctl audit check "$dir/erased" --key "$key" | grep -q 'its record is not shown' || job_fail "the proof of an erased record"
# The host itself still says why it is banned.
sqlite3 "$dir/issuer/issuer.db" .dump | grep -v '^INSERT INTO hosts' > "$dir/tmp/dump"
! grep -q "stolenfromvault.*banned" "$dir/tmp/dump" || job_fail "the erased record is in the database"
ok "an erased record: chain, log and proofs hold, its text is gone"

# ---- falsified copies of the log, as an auditor sees them ----------------------------------------------------------
falsified() { # falsified REASON SHELL [ARGS...]: in a copy
    local reason=$1 how=$2
    shift 2
    rm -rf "$dir/copy"
    cp -r "$log" "$dir/copy"
    (cd "$dir/copy" && eval "$how")
    refused "$reason" log_verify "$dir/copy" "$@"
}
falsified logSignature 'sed -i "2s/.*/100/" checkpoint'
falsified logSignature 'sed -i "s/^\(— .* \)..../\1AAAA/" checkpoint'
falsified logNote 'head -n 3 checkpoint > c && mv c checkpoint'
falsified logTruncated 'rm tile/entries/000'
falsified logTruncated 'rm -r tile/0'
falsified logEntries 'truncate -s -10 tile/entries/000'
falsified logRoot 'sed -i "0,/ticket/s//tacket/" tile/entries/000'
falsified logEntry 'sed -i "0,/decision.1/s//decision\/2/" tile/entries/000'
falsified logTile 'printf X | dd of=tile/0/000 bs=1 seek=100 conv=notrunc status=none'
falsified logTile 'printf X | dd of=$(ls tile/1/000.p/1) bs=1 seek=3 conv=notrunc status=none'
log_conf "$dir/other" "$dir/other-run" 0 > "$dir/other.yaml"
"$bin/attest-issuerd" --config "$dir/other.yaml" init > /dev/null
refused logSignature ctl audit verify "$log" --key "$dir/other/ca/log.vkey"
# By the very key: an older log in the place of the newer, and another history.
log_verify "$log" --save "$dir/second" > /dev/null
mkdir "$dir/branch"
sqlite3 "$dir/issuer/issuer.db" ".backup '$dir/branch/issuer.db'"
cp -r "$dir/issuer/ca" "$dir/issuer/audit.checkpoint" "$dir/issuer/audit.head" "$log" "$dir/branch/"
log_decide 2
log_verify "$log" --since "$dir/second" --save "$dir/third" > /dev/null
refused logTruncated log_verify "$dir/branch/audit-log" --since "$dir/third"
log_conf "$dir/branch" "$dir/branch-run" 0 > "$dir/branch.yaml"
job_start branch "$bin/attest-issuerd" --config "$dir/branch.yaml"
branch() { "$bin/attestctl" --issuer "$dir/branch-run/admin.sock" "$@"; }
wait_for 30 branch issuer status
for _ in 1 2 3 4; do branch ticket create > /dev/null; done
branch_is_longer() { [ "$(log_size "$dir/branch/audit-log")" -gt "$(sed -n 2p "$dir/third")" ]; }
wait_for 30 branch_is_longer
job_stop branch
log_verify "$dir/branch/audit-log" --since "$dir/second" > /dev/null
refused logForked log_verify "$dir/branch/audit-log" --since "$dir/third"
ok "forged, truncated, edited, forked: the auditor's verifier names each"

# ---- killed at any time ----------------------------------------------------------------------------------------------
for i in 1 2 3 4 5 6; do
    for _ in 1 2 3; do ctl ticket create > /dev/null; done
    sleep "0.$((i * 3))"
    job_stop issuerd KILL
    job_start_issuer
done
log_decide 1
log_verify "$log" --since "$dir/third" > /dev/null
ctl audit verify > /dev/null
ok "killed while it publishes: the log goes on"

# ---- the database against what was published ---------------------------------------------------------------------------
sqlite3 "$dir/issuer/issuer.db" ".backup '$dir/old.db'"
log_decide 3
job_stop issuerd
start_refused() { # start_refused REASON SHELL: in a copy of the state
    local reason=$1 how=$2 got=0
    rm -rf "$dir/state-copy"
    cp -r "$dir/issuer" "$dir/state-copy"
    (cd "$dir/state-copy" && eval "$how")
    log_conf "$dir/state-copy" "$dir/copy-run" 0 > "$dir/copy.yaml"
    timeout 60 "$bin/attest-issuerd" --config "$dir/copy.yaml" > "$dir/tmp/start" 2>&1 || got=$?
    [ "$got" = 1 ] && grep -q "start.failed.*$reason" "$dir/tmp/start" || { cat "$dir/tmp/start"; job_fail "start: $got, expected $reason"; }
}
start_refused logRolledBack "rm -f issuer.db*; cp '$dir/old.db' issuer.db"
start_refused logRolledBack "rm -rf issuer.db* audit-log; cp '$dir/old.db' issuer.db"
start_refused logRolledBack "sqlite3 issuer.db 'DELETE FROM audit WHERE seq > (SELECT max(seq) - 2 FROM audit)'"
start_refused logForked "sqlite3 issuer.db \"UPDATE audit_leaves SET leaf = x'00' WHERE seq = 9\""
start_refused logTruncated "sqlite3 issuer.db 'DELETE FROM audit_leaves WHERE seq = 9'"
start_refused logGuard 'rm audit.checkpoint'
start_refused logGuard 'sed -i "2s/.*/1/" audit.checkpoint'
start_refused logKey 'rm ca/log.key'
# Records rewritten to the same number behind the leaves.
start_refused logForked "sqlite3 issuer.db \"UPDATE audit SET record = '{}' WHERE seq = (SELECT max(seq) FROM audit)\""
job_start_issuer
sqlite3 "$dir/issuer/issuer.db" "UPDATE audit_leaves SET salt = zeroblob(32) WHERE seq = 9"
refused logLeaf ctl audit verify
ok "a database that is older, cut or another than what was published does not start"

# ---- rotation: both keys sign, the name stays; a new log after a backup was restored ---------------------------------------
job_stop issuerd
for end in key vkey; do mv "$dir/issuer/ca/log.$end" "$dir/issuer/ca/log.before.$end"; done
cp "$dir/issuer/ca/log.before.vkey" "$dir/key.before"
job_start_issuer
log_decide 1
log_verify "$log" --since "$dir/tmp/none" > /dev/null 2>&1 && job_fail "a checkpoint that is not there"
log_verify "$log" > /dev/null
ctl audit verify "$log" --key "$dir/key.before" --since "$dir/third" > /dev/null
! cmp -s "$key" "$dir/key.before" || job_fail "the key was not changed"
job_stop issuerd
rm -f "$dir"/issuer/issuer.db*
cp "$dir/old.db" "$dir/issuer/issuer.db"
mkdir "$dir/issuer/log.1"
mv "$log" "$dir/issuer/audit.checkpoint" "$dir"/issuer/ca/log.* "$dir/issuer/log.1/"
job_start_issuer
log_decide 1
log_verify "$log" > /dev/null
[ "$(head -n 1 "$log/checkpoint")" != "$(head -n 1 "$dir/third")" ] || job_fail "a new log has a name of its own"
ok "rotation of the key; a new log where an older database had to be restored"
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
