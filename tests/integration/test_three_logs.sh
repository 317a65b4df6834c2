#!/usr/bin/env bash
# Firmware, systemd's user space and IMA with real processes: a swtpm into which a guest's boot, its IMA list
# (tests/vectors/ima) and records of systemd's are extended. What the issuer asks for, violations by the policy's verb,
# a list that grows, entries that are listed and not extended yet, changed bytes, attestctl's view of it all.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_vectors=$ATT_SOURCE_DIR/tests/vectors/ima
job_pcrs="sha256:0,1,2,3,4,5,6,7,8,9,10,11,14"
job_setup
ok() { echo "ok: $*"; }
command -v xxd > /dev/null || job_skip "no xxd"

extend() { TPM2TOOLS_TCTI="$(cat "$dir/tpm/tcti")" tpm2_pcrextend "$@"; }
explain() { "$bin/attestctl" --json eventlog show "$1"; }

# record STRING: systemd writes its record after it extended
record() {
    local digest
    digest=$(printf '%s' "$1" | sha256sum | cut -c1-64)
    printf '\036{"pcr":11,"digests":[{"hashAlg":"sha256","digest":"%s"}],"content_type":"systemd","content":{"string":"%s","bootId":"6c1e9ac9f3ab4d7fb3d9ba7b5a3e1c55","timestamp":5210123,"eventType":"phase"}}\n' \
        "$digest" "$1" >> "$dir/systemd.log"
    [ "${2:-}" = listed ] || extend "11:sha256=$digest"
}

# entry NAME: one more binary entry of template ima-ng
le32() { printf '%08x' "$1" | sed 's/\(..\)\(..\)\(..\)\(..\)/\4\3\2\1/'; }
entry() {
    local digest name data
    digest=$(printf 'sha256:\0' | xxd -p -c 256)$(printf '%s' "$1" | sha256sum | cut -c1-64)
    name=$(printf '%s\0' "$1" | xxd -p -c 4096)
    data=$(le32 $((${#digest} / 2)))$digest$(le32 $((${#name} / 2)))$name
    xxd -r -p >> "$dir/ima.log" << END
$(le32 10)$(printf '%s' "$data" | xxd -r -p | sha1sum | cut -c1-40)$(le32 6)$(printf ima-ng | xxd -p)$(le32 $((${#data} / 2)))$data
END
    last=$(printf '%s' "$data" | xxd -r -p | sha256sum | cut -c1-64)
    [ "${2:-}" = listed ] || extend "10:sha256=$last"
}

# ---- the machine --------------------------------------------------------------------------------------
job_make_tpm
cp "$job_vectors/ima.bin" "$dir/ima.log"
explain "$dir/ima.log" | jq -r '.events[] | "\(.pcr):sha256=\(.digests.sha256)"' > "$dir/tmp/extends"
while read -r one; do extend "$one"; done < "$dir/tmp/extends"
record enter-initrd
record leave-initrd
pcr() { TPM2TOOLS_TCTI="$(cat "$dir/tpm/tcti")" tpm2_pcrread "sha256:$1" | sed -n 's/.*: 0x//p' | tr 'A-F' 'a-f'; }
[ "$(pcr 10)" = "$(jq -r '.sha256["10"]' "$job_vectors/pcrs.json")" ] || job_fail "PCR 10 is not the guest's"
[ "$(explain "$dir/ima.log" | jq -r '.pcrs.sha256["10"]')" = "$(pcr 10)" ] || job_fail "eventlog show: PCR 10"
[ "$(explain "$dir/systemd.log" | jq -r '.pcrs.sha256["11"]')" = "$(pcr 11)" ] || job_fail "eventlog show: PCR 11"
[ "$(explain "$job_vectors/ima.ascii" | jq -cS .events)" = "$(explain "$dir/ima.log" | jq -cS .events)" ] || job_fail "ASCII and binary differ"
"$bin/attestctl" eventlog show "$dir/ima.log" > "$dir/tmp/out"
grep -q 'pcr 10  ima-ngv2  (violation)' "$dir/tmp/out" || job_fail "no violation: $(cat "$dir/tmp/out")"
code=0
"$bin/attestctl" eventlog show "$ATT_SOURCE_DIR/LICENSE" 2> "$dir/tmp/out" || code=$?
[ "$code" = 1 ] && grep -q 'neither a firmware log' "$dir/tmp/out" || job_fail "LICENSE is a log? $code $(cat "$dir/tmp/out")"
ok "a guest's PCR 10 from its own list; eventlog show of all three logs"

# ---- issuer and host ---------------------------------------------------------------------------------
job_write_conf
sed -i 's/logs: \[firmware\]/logs: [firmware, systemd, ima]/' "$dir/issuer.yaml"
printf '  systemd: %s\n  ima: %s\n' "$dir/systemd.log" "$dir/ima.log" >> "$dir/attestd.yaml"
policy() { # policy VERSION VERB
    jq --argjson v "$1" --arg verb "$2" '.version = $v | .logs = ["firmware", "systemd", "ima"] | .imaViolations = $verb' \
        "$job_vectors/policy.json" > "$dir/policy.json"
    ctl policy apply -f "$dir/policy.json" > /dev/null
}
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || job_fail "init"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > /dev/null || job_fail "--check refuses systemd and ima"
job_start_issuer
policy 1 refuse
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
job_start_keyd
job_start_attestd
last() { ctl --json status | jq -er --arg r "$1" --arg m "$2" '.lastError | select(.reason == $r and (.message | contains($m)))'; }
wait_for 60 last logReplay 'is a violation'
ok "a violation is refused where the policy does not allow it"
policy 2 allow
job_enrolled_with rebalancer
job_check_chain rebalancer
e=$dir/state/host/evidence/rebalancer
cmp "$e/ima" "$dir/ima.log" && cmp "$e/systemd" "$dir/systemd.log" || job_fail "the evidence has other logs"
roots=(--ak-roots "$dir/issuer/ca/ak-roots.pem" --ek-roots "$dir/tpm/ek-roots.pem")
verify() { ctl verify "$1" --nonce "$(cat "$1/nonce")" "${roots[@]}" --policy "$dir/policy.json"; }
verify "$e" > "$dir/tmp/out" || job_fail "verify: $(cat "$dir/tmp/out")"
grep -q '2 records of systemd.s and .* entries of IMA.s (1 of them violations, allowed) account for' "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
ok "certificate over all three logs; attestctl verify says the same"

# ---- logs that grow ----------------------------------------------------------------------------------
entry /usr/bin/later
record sysinit
ctl agent rotate rebalancer > /dev/null
cmp "$e/ima" "$dir/ima.log" || job_fail "the list that grew did not travel"
verify "$e" > /dev/null || job_fail "verify after growth"
ok "entries of a running system: the renewal carries them"

# ---- listed, not extended yet: quoted again, refused, and good once the TPM has it ---------------------------
refused() { # refused TEXT
    local before
    before=$(job_serial rebalancer)
    if ctl agent rotate rebalancer > "$dir/tmp/out" 2>&1; then job_fail "rotated: expected $1"; fi
    grep -q "logReplay.*$1" "$dir/tmp/out" || job_fail "expected $1: $(cat "$dir/tmp/out")"
    [ "$(job_serial rebalancer)" = "$before" ] || job_fail "another certificate in spite of $1"
}
cp "$dir/ima.log" "$dir/tmp/ima.good"
entry /usr/bin/too-early listed
refused 'of the ima log: after this, the last'
extend "10:sha256=$last"
ctl agent rotate rebalancer > /dev/null || job_fail "not good after the TPM had it"
ok "an entry that the TPM does not have is refused; with it the same list is good"

# ---- what was changed -----------------------------------------------------------------------------------
cp "$dir/ima.log" "$dir/tmp/ima.good"
cp "$dir/systemd.log" "$dir/tmp/systemd.good"
restore() { cp "$dir/tmp/ima.good" "$dir/ima.log"; cp "$dir/tmp/systemd.good" "$dir/systemd.log"; }
size=$(stat -c %s "$dir/ima.log")
printf 'X' | dd of="$dir/ima.log" bs=1 seek=$((size - 3)) conv=notrunc status=none
refused 'pcr10 entry [0-9]*: template hash does not match its data'
restore
truncate -s $((size - 1)) "$dir/ima.log"
refused 'it is longer than what is left of the list'
restore
sed -i 's/enter-initrd/enter-initrx/' "$dir/systemd.log"
refused 'pcr11 record 0: payload does not match its digest'
restore
mv "$dir/systemd.log" "$dir/tmp/away"
if ctl agent rotate rebalancer > "$dir/tmp/out" 2>&1; then job_fail "rotated without systemd's log"; fi
grep -q 'logMissing.*systemd log was asked for' "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
mv "$dir/tmp/away" "$dir/systemd.log"
ctl agent rotate rebalancer > /dev/null || job_fail "not good again"
ok "a changed byte, a cut, a missing log are refused by name"

# ---- a tail in stored evidence ------------------------------------------------------------------------------
# What a second reading brought is bound by replay: an honest tail is accepted, another is not.
q=$dir/quote
nonce=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
ctl quote --nonce $nonce --pcrs "$job_pcrs" --out "$q" > /dev/null
vq() { ctl verify "$q" --nonce $nonce "${roots[@]}" --policy "$dir/policy.json" > "$dir/tmp/out" 2>&1; }
vq || job_fail "$(cat "$dir/tmp/out")"
entry /usr/bin/after-the-quote listed
tail -c +$(($(stat -c %s "$q/ima") + 1)) "$dir/ima.log" > "$q/ima.tail"
[ -s "$q/ima.tail" ] || job_fail "no tail"
vq || job_fail "what came after the quote: $(cat "$dir/tmp/out")"
cp "$q/ima" "$dir/tmp/whole"
truncate -s -30 "$q/ima"
tail -c 30 "$dir/tmp/whole" > "$q/ima.tail"
if vq; then job_fail "a signed part of another length was accepted"; fi
grep -q quoteNonce "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
ctl quote --nonce $nonce --pcrs sha256:0,7 --out "$q" > /dev/null
[ ! -e "$q/ima.tail" ] || job_fail "a tail of an earlier quote was left"
ctl verify "$q" --nonce $nonce "${roots[@]}" > "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
grep -q 'the ima log is not judged' "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
ok "attestctl verify: tails, and logs whose PCRs were not quoted"
