#!/usr/bin/env bash
# Decisions exported with their proofs: page by page, gone on with, checked line by line by somebody who has the key only.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/auditlog.sh
. "$ATT_SOURCE_DIR/tests/support/auditlog.sh"
log_setup
log_decide 12
out=$dir/out
lines() { cat "$out"/*.jsonl | wc -l; }

ctl audit export --out "$out" --limit 5 > "$dir/tmp/out"
n=$(lines)
[ "$n" = "$(log_size "$log")" ] || job_fail "$n lines, $(log_size "$log") decisions"
[ "$(stat -c %a "$out")" = 700 ] && [ -z "$(find "$out" -type f -perm /077)" ] || job_fail "others may read it"
cat "$out"/*.jsonl | jq -r .seq > "$dir/tmp/seqs"
seq "$n" | cmp -s - "$dir/tmp/seqs" || job_fail "not each decision once, in order"
for file in "$out"/*.jsonl; do
    [ "$(wc -l < "$file")" -le 5 ] || job_fail "$file is longer than a page"
    "$bin/attestctl" audit check "$file" --key "$key" > "$dir/tmp/check"
    [ "$(grep -c 'and is this record' "$dir/tmp/check")" = "$(wc -l < "$file")" ] || { cat "$dir/tmp/check"; job_fail "$file"; }
done
ok "every decision once, each line a proof that stands alone"

# ---- gone on with ---------------------------------------------------------------------------------------------------
ctl audit export --out "$out" --limit 5 > "$dir/tmp/out"
grep -q '^0 decisions in 0 new files' "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "again"; }
log_decide 3
ctl audit export --out "$out" --limit 5 > "$dir/tmp/out"
grep -q '^3 decisions in 1 new files' "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "what is new"; }
# Killed between a file and the note of it: the same file once more.
cp "$out/export.json" "$dir/tmp/export.json"
jq -c '.after = 5' "$dir/tmp/export.json" > "$out/export.json"
ctl audit export --out "$out" --limit 5 > "$dir/tmp/out"
cat "$out"/*.jsonl | jq -r .seq | sort -nu > "$dir/tmp/seqs"
seq $((n + 3)) | cmp -s - "$dir/tmp/seqs" || job_fail "a hole after a kill"
refused exportOther ctl audit export --out "$out" --profile trading
jq -c '.log = "another"' "$dir/tmp/export.json" > "$out/export.json"
refused exportOther ctl audit export --out "$out"
refused usage ctl audit export --out "$dir/out2" --before yesterday
ctl audit export --out "$dir/out3" --before 2020-01-01T00:00:00Z > "$dir/tmp/out"
grep -q '^0 decisions' "$dir/tmp/out" || job_fail "decisions before there were any"
ctl audit export --out "$dir/out4" --profile trading > "$dir/tmp/out"
grep -q "^0 decisions in 0 new files; looked at up to decision $((n + 3))" "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "of a profile"; }
ok "a second call adds what is new; another selection or another log is refused"

# ---- bent ---------------------------------------------------------------------------------------------------------------
file=$(find "$out" -name '*.jsonl' | sort | head -n 1)
sed '3s/ticket/tacket/g' "$file" > "$dir/bent.jsonl"
refused 'proof.*\|log.*' "$bin/attestctl" audit check "$dir/bent.jsonl" --key "$key"
grep -q 'line 3' "$dir/tmp/refused" || { cat "$dir/tmp/refused"; job_fail "the line is not named"; }
ok "a bent line is named"
job_stop issuerd
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
