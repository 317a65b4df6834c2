#!/usr/bin/env bash
# The audit log with a TPM (swtpm): a second signature on each checkpoint, checked by attestctl and by openssl alone; the
# counter as a guard against a disk that is taken back; what is away, gone, replaced or forged, each by its name; kills at
# each step.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/auditlog.sh
. "$ATT_SOURCE_DIR/tests/support/auditlog.sh"
# shellcheck source=../support/logtpm.sh
. "$ATT_SOURCE_DIR/tests/support/logtpm.sh"
for tool in swtpm swtpm_setup tpm2_nvundefine openssl; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
log_setup
log_decide 3
job_stop issuerd
logtpm_make "$dir/tpm"
plain=$(cat "$dir/issuer.yaml")
with_tpm() { { echo "$plain" && logtpm_conf "${1:-$dir/tpm}" "${2:-$dir/tpm-state}"; } > "$dir/issuer.yaml"; }
with_tpm
"$bin/attest-issuerd-tpm" --config "$dir/issuer.yaml" --check > /dev/null

# start_refused REASON: the issuer does not start, for that reason; the database is not written to
start_refused() {
    local got=0
    timeout 120 "$bin/attest-issuerd" --config "$dir/issuer.yaml" > "$dir/tmp/refused" 2>&1 || got=$?
    [ "$got" = 1 ] && grep -q "$1" "$dir/tmp/refused" || { cat "$dir/tmp/refused"; job_fail "start: exit $got, expected $1"; }
}
tpm_says() { grep -q "logtpm.tpm-not-ready.*$1" "$dir/log/logtpm.log"; }
tpm_restart() { job_stop logtpm && : > "$dir/log/logtpm.log" && logtpm_start; }
tpm_refuses() { tpm_restart && wait_for 20 tpm_says "$1" && start_refused "$1"; }

# ---- an older log gets a second signature -------------------------------------------------------------------
logtpm_start
job_start_issuer
log_decide 2
vkey=$dir/issuer/audit.tpm.vkey
log_tpm_verify "$log" --save "$dir/first" > "$dir/tmp/out"
grep -q 'signed by the TPM, too; its counter is [1-9]' "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "verify"; }
log_tpm_verify "$url" --ca "$dir/issuer/ca/tls-root.pem" --since "$dir/first" > /dev/null
log_verify "$log" > /dev/null # who does not know of it sees the first signature
[ "$(ctl --json issuer status | jq -r .log.tpmVkey)" = "$(cat "$vkey")" ] || job_fail "the key in the status"
[ "$(ctl --json audit list --kind logTpm | jq -c '[.records[] | .record.newKey]')" = '[true]' ] || job_fail "no record of the key"
ctl audit prove 5 > "$dir/proof"
ctl audit check "$dir/proof" --key "$key" --tpm-key "$vkey" > /dev/null
ok "two signatures, each checked where it is asked for; the key is in the log and in the status"

# ---- with nothing of ours: base64, openssl ------------------------------------------------------------------
lines() { sed -n '/^$/,$p' "$log/checkpoint" | sed -n 's/^— [^ ]* //p'; }
sed '/^$/,$d' "$log/checkpoint" > "$dir/tmp/text"
cut -d+ -f3- "$vkey" | base64 -d | tail -c +2 > "$dir/tmp/spki"
openssl pkey -pubin -inform DER -in "$dir/tmp/spki" -out "$dir/tmp/tpm.pem"
[ "$(openssl dgst -sha256 -r "$dir/tmp/spki" | cut -c 1-8)" = "$(cut -d+ -f2 "$vkey")" ] || job_fail "the key id"
lines | sed -n 2p | base64 -d | tail -c +5 > "$dir/tmp/sig"
[ "$(lines | sed -n 2p | base64 -d | head -c 4 | od -An -tx1 | tr -d ' ')" = "$(cut -d+ -f2 "$vkey")" ] || job_fail "the id in the line"
openssl dgst -sha256 -verify "$dir/tmp/tpm.pem" -signature "$dir/tmp/sig" "$dir/tmp/text" > /dev/null || job_fail "openssl refuses the TPM's signature"
{ printf '\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00' && cut -d+ -f3- "$key" | base64 -d | tail -c +2; } > "$dir/tmp/ed.der"
lines | sed -n 1p | base64 -d | tail -c +5 > "$dir/tmp/sig1"
openssl pkeyutl -verify -pubin -keyform DER -inkey "$dir/tmp/ed.der" -rawin -in "$dir/tmp/text" -sigfile "$dir/tmp/sig1" > /dev/null ||
    job_fail "openssl refuses the log key's signature"
sed -i 's/^tpm-counter .*/tpm-counter 999/' "$dir/tmp/text"
! openssl dgst -sha256 -verify "$dir/tmp/tpm.pem" -signature "$dir/tmp/sig" "$dir/tmp/text" > /dev/null || job_fail "the counter is not signed"
ok "openssl alone checks both signatures over the note's text"

# ---- what an auditor who knows the key sees -------------------------------------------------------------------
copy() { rm -rf "$dir/copy" && cp -r "$log" "$dir/copy" && (cd "$dir/copy" && eval "$1"); }
copy 'sed -i "\$d" checkpoint'
log_verify "$dir/copy" > /dev/null
refused logTpmMissing log_tpm_verify "$dir/copy"
copy 'last=$(tail -n 1 checkpoint) && sed -i "\$d" checkpoint && echo "${last:0:-12}AAAAAAAAAAA=" >> checkpoint'
refused logTpmSignature log_tpm_verify "$dir/copy"
refused logTpmSignature ctl audit check <(jq --rawfile c "$dir/copy/checkpoint" '.checkpoint = $c' "$dir/proof") --key "$key" --tpm-key "$vkey"
refused logTpmMissing ctl audit check <(jq '.checkpoint |= sub("\n— [^\n]*\n$"; "\n")' "$dir/proof") --key "$key" --tpm-key "$vkey"
copy 'sed -i "s/^tpm-counter .*/tpm-counter 99/" checkpoint'
refused logSignature log_tpm_verify "$dir/copy"
tpmkey=$key refused logTpmKey log_tpm_verify "$log"
tpmkey=$(sed 's/+[0-9a-f]\{8\}+/+00000000+/' "$vkey") refused logTpmKey log_tpm_verify "$log"
openssl ecparam -name prime256v1 -genkey -noout 2> /dev/null | openssl pkey -pubout -outform DER -out "$dir/tmp/other"
other="$(cut -d+ -f1 "$vkey")+$(openssl dgst -sha256 -r "$dir/tmp/other" | cut -c 1-8)+$({ printf '\002' && cat "$dir/tmp/other"; } | base64 -w 0)"
tpmkey=$other refused logTpmMissing log_tpm_verify "$log"
printf '%s\n' "$other" "$(cat "$vkey")" > "$dir/tmp/both" # of two issuers, one has signed
tpmkey=$dir/tmp/both log_tpm_verify "$log" > /dev/null
ok "missing, forged, another TPM's: logTpmMissing, logTpmSignature, logTpmKey"

# ---- the counter: with the first checkpoint, at the end, and no more often than it may ------------------------------
counter=$(log_counter "$log")
log_decide 1
[ "$(log_counter "$log")" = "$counter" ] || job_fail "the counter rises with each checkpoint"
job_stop issuerd
[ "$(log_counter "$log")" = $((counter + 1)) ] || job_fail "the end does not seal: $(log_counter "$log")"
job_start_issuer
log_tpm_verify "$log" --since "$dir/first" --save "$dir/second" > /dev/null
job_stop issuerd
[ "$(log_counter "$log")" = $((counter + 1)) ] || job_fail "a start and an end without a decision count"

# ---- the log's key is rotated: the TPM's lines stay ---------------------------------------------------------------
(cd "$dir/issuer/ca" && mv log.key log.before.key && mv log.vkey log.before.vkey)
job_start_issuer
log_tpm_verify "$log" > /dev/null # the checkpoint that stood
log_decide 1
log_tpm_verify "$log" > /dev/null
ctl audit verify "$log" --key "$dir/issuer/ca/log.before.vkey" --tpm-key "$vkey" --since "$dir/second" --save "$dir/second" > /dev/null
[ "$(grep -c '^— ' "$log/checkpoint")" = 3 ] || job_fail "three signatures"
job_stop issuerd
rm "$dir/issuer/ca/log.before.key" "$dir/issuer/ca/log.before.vkey"
job_start_issuer
log_decide 1
log_tpm_verify "$log" --save "$dir/second" > /dev/null
job_stop issuerd
ok "the log's key rotated, with the TPM's signature beside both"

# ---- the disk is taken back -----------------------------------------------------------------------------------
# The issuer's alone; the other process's alone; both, which the counter alone sees.
cp -a "$dir/issuer" "$dir/issuer-old"
cp -a "$dir/tpm-state" "$dir/tpm-old"
job_start_issuer
log_decide 2
job_stop issuerd
job_stop logtpm
cp -a "$dir/issuer" "$dir/issuer-new"
cp -a "$dir/tpm-state" "$dir/tpm-new"
put() { rm -rf "${dir:?}/$1" && cp -a "$dir/$2" "$dir/$1"; }
put issuer issuer-old
tpm_restart
start_refused logRolledBack
grep -q 'the TPM has signed' "$dir/tmp/refused" || { cat "$dir/tmp/refused"; job_fail "not by what the TPM signed"; }
put issuer issuer-new
job_stop logtpm
put tpm-state tpm-old
tpm_refuses logRolledBack
job_stop logtpm
put issuer issuer-old
tpm_refuses logRolledBack
job_stop logtpm
# With a copy of the other process's folder whose record was made to fit, it is the newest checkpoint that does not.
put issuer issuer-new
put tpm-state tpm-new
logtpm_start
job_start_issuer
log_decide 1
job_stop issuerd
log_tpm_verify "$log" --since "$dir/second" > /dev/null
cp "$dir/issuer-old/audit.checkpoint" "$dir/issuer/audit.checkpoint"
start_refused logRolledBack
grep -q 'has the counter' "$dir/tmp/refused" || { cat "$dir/tmp/refused"; job_fail "not by the counter"; }
rm "$dir/issuer/audit.checkpoint"
start_refused logGuard
cp "$log/checkpoint" "$dir/issuer/audit.checkpoint"
ok "the issuer's disk, the TPM process's, both: logRolledBack"

# ---- killed at any time -----------------------------------------------------------------------------------------
job_start_issuer
for i in 1 2 3 4 5 6 7 8; do
    for _ in 1 2 3; do ctl ticket create > /dev/null; done
    sleep "0.$((i * 2))"
    case $((i % 3)) in
        0) job_stop issuerd KILL && job_start_issuer ;;
        1) job_stop logtpm KILL && logtpm_start ;;
        2) job_stop logtpm KILL && job_stop issuerd KILL && logtpm_start && job_start_issuer ;;
    esac
done
log_decide 1
log_tpm_verify "$log" --since "$dir/second" > /dev/null
ctl audit verify > /dev/null
ok "killed while it publishes, either and both: the log goes on"

# ---- the TPM goes while the issuer runs -----------------------------------------------------------------------------
size=$(log_size "$log")
job_stop logtpm
ctl ticket create > /dev/null
waits() { [ "$(ctl --json issuer status | jq .log.waiting)" = true ]; }
wait_for 30 waits
ctl ticket create > /dev/null # decisions go on
[ "$(log_size "$log")" = "$size" ] || job_fail "a checkpoint without the TPM"
[ "$(ctl --json issuer status | jq .log.broken)" = false ] || job_fail "broken"
logtpm_start
wait_for 60 log_is_current "$(log_records)"
log_tpm_verify "$log" --since "$dir/second" > /dev/null
job_stop swtpm-tpm KILL
ctl ticket create > /dev/null
wait_for 30 waits
logtpm_power "$dir/tpm"
wait_for 60 log_is_current "$(log_records)"
log_tpm_verify "$log" --save "$dir/third" > /dev/null
ok "without its process, without the TPM: nothing is published, all is decided; then it goes on"

# ---- the counter is removed, or made anew by somebody else ---------------------------------------------------------
tpm() { TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") "$@" > "$dir/tmp/tpm" 2>&1 || { cat "$dir/tmp/tpm"; job_fail "$*"; }; }
act() { "$bin/attest-issuerd-tpm" --config "$dir/issuer.yaml" "$@"; }
forge() { # one that looks like ours, above it
    tpm tpm2_nvdefine -C o -s 8 -a 'nt=counter|authwrite|ownerread|no_da' 0x01804c47
    TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_nvincrement -C 0x01804c47 0x01804c47 > /dev/null 2>&1
}
size=$(log_size "$log")
tpm tpm2_nvundefine -C o 0x01804c47
forge # while both run
ctl ticket create > /dev/null
wait_for 30 waits
wait_for 30 grep -q 'logtpm.*counterForeign' "$dir/log/logtpm.log" || job_fail "$(tail -n 2 "$dir/log/logtpm.log")"
[ "$(ctl --json issuer status | jq .log.broken)" = false ] || job_fail "broken: whoever may use the TPM ends the log"
[ "$(log_size "$log")" = "$size" ] || job_fail "a checkpoint beside another's counter"
job_stop issuerd
refused 'another attest-issuerd-tpm' act --new-counter --reason 'it runs'
job_stop logtpm
tpm tpm2_nvundefine -C o 0x01804c47
tpm_refuses counterGone
job_stop logtpm
forge
tpm_refuses counterForeign
job_stop logtpm
for wrong in "" "--reason" "--new-log --new-counter --reason x" "--reason x" "extra"; do
    got=0
    # shellcheck disable=SC2086 # words
    act --new-counter $wrong > "$dir/tmp/out" 2>&1 || got=$?
    case $wrong in "--reason x") [ "$got" = 0 ] || { cat "$dir/tmp/out"; job_fail "--new-counter"; } ;; *) [ "$got" = 2 ] || job_fail "--new-counter $wrong: $got" ;; esac
done
logtpm_start
job_start_issuer
[ "$(ctl --json audit list --kind logTpm | jq -r '.records[-1].record.detail | fromjson | [.act, .reason] | join(" ")')" = 'newCounter x' ] ||
    job_fail "the new counter is not in the log"
log_decide 1
log_tpm_verify "$log" --since "$dir/third" > /dev/null
job_stop issuerd
job_start_issuer
log_decide 1
job_stop issuerd
job_stop logtpm
# It rose last while the clock was in 2096: what may be given back counts from now on.
sed -i -E 's/"raises":[0-9]+/"raises":0/; s/"raisesAt":[0-9]+/"raisesAt":4000000000/' "$dir/tpm-state/record.json"
logtpm_start
job_start_issuer
log_decide 1
jq -e '.raises == 0 and .raisesAt < 3000000000' "$dir/tpm-state/record.json" || job_fail "no rise until 2096"
job_stop issuerd
job_stop logtpm
# As if hours had gone by: rises that the process may make.
sed -i 's/"raises":[0-9]*/"raises":16/' "$dir/tpm-state/record.json"
# The newest backup, after which nothing was published but the seal of the end: an operator says that it is.
logtpm_start
job_start_issuer
log_decide 1
log_decide 1 # a further checkpoint of this number, so that the end seals
"$bin/attest-issuerd" --config "$dir/issuer.yaml" backup --to "$dir/backup" > /dev/null
job_stop issuerd
rm -rf "$dir/issuer-end" && mv "$dir/issuer" "$dir/issuer-end" && cp -a "$dir/backup" "$dir/issuer"
start_refused 'logRolledBack.*has the counter'
job_stop logtpm
act --new-counter --reason 'restored the newest backup' > /dev/null
logtpm_start
job_start_issuer
log_decide 1
log_tpm_verify "$log" --since "$dir/third" > /dev/null
job_stop issuerd
ok "counterGone, counterForeign; a new counter by an operator's word, which is in the log"

# ---- a new log, after a backup ---------------------------------------------------------------------------------------
job_stop logtpm
cp "$log/checkpoint" "$dir/last"
put issuer issuer-old
logtpm_start
start_refused logRolledBack
job_stop logtpm
mkdir "$dir/issuer/log.1"
(cd "$dir/issuer" && mv audit-log audit.checkpoint ca/log.* log.1/)
logtpm_start
start_refused logOrigin
job_stop logtpm
refused 'expected 1 to 256' act --new-log --reason ''
act --new-log --reason 'restored from a backup' > "$dir/tmp/out"
grep -q "$(head -n 1 "$dir/last") is signed no more" "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "--new-log"; }
logtpm_start
job_start_issuer
log_decide 1
log_tpm_verify "$log" > /dev/null
[ "$(ctl --json audit list --kind logTpm | jq -r '.records[-1].record.detail | fromjson | .reason')" = 'restored from a backup' ] || job_fail "not in the log"
log_tpm_verify "$log" --save "$dir/fourth" > /dev/null
refused logSignature log_tpm_verify "$log" --since "$dir/last" # it continues nothing
job_stop issuerd
job_stop logtpm
cp "$dir/tpm-state/record.json" "$dir/tmp/record"
act --new-log --reason again > /dev/null
refused 'nothing has been signed' act --new-log --reason twice
logtpm_start
start_refused logRolledBack # the ended log goes on nowhere
job_stop logtpm
cp "$dir/tmp/record" "$dir/tpm-state/record.json"
ok "a new log: refused until an operator says so, then it is in the log"

# ---- another TPM -----------------------------------------------------------------------------------------------------
logtpm_make "$dir/tpm2"
with_tpm "$dir/tpm2"
tpm_refuses foreignTpm
job_stop logtpm
with_tpm "$dir/tpm2" "$dir/tpm2-state"
logtpm_start
start_refused logTpmKey
rm "$dir/issuer/audit.tpm.vkey"
job_start_issuer
log_decide 1
log_tpm_verify "$log" --since "$dir/fourth" > /dev/null
[ "$(ctl --json audit list --kind logTpm | jq '.records[-1].record.newKey')" = true ] || job_fail "the new key is not in the log"
job_stop issuerd
# A folder that forgets: the counter is not its own.
job_stop logtpm
mv "$dir/tpm2-state" "$dir/tpm2-gone"
tpm_refuses counterForeign
job_stop logtpm
cp -a "$dir/tpm2-gone/." "$dir/tpm2-state/"
rm "$dir/tpm2-state/record.json"
tpm_refuses logTpmRecord
job_stop logtpm
cp "$dir/tpm2-gone/record.json" "$dir/tpm2-state/"
sed -i 's/"version":1/"version":2/' "$dir/tpm2-state/record.json"
tpm_refuses logTpmRecord
ok "another TPM: foreignTpm, logTpmKey; a folder that something was taken from: counterForeign, logTpmRecord"

# ---- nobody there at the start ----------------------------------------------------------------------------------------
job_stop logtpm
start_refused logTpmAway
ok "a TPM that is not there at the start: logTpmAway, and no issuer"
