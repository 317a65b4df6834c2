#!/usr/bin/env bash
# An allow list for IMA in a boot policy, with real processes: drafted from the host's own quote, applied in parts, an
# unlisted file observed, then refused by name and digest, the list extended, the renewal granted again.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_vectors=$ATT_SOURCE_DIR/tests/vectors/ima
job_pcrs="sha256:0,1,2,3,4,5,6,7,8,9,10,14"
job_setup
ok() { echo "ok: $*"; }
command -v xxd > /dev/null || job_skip "no xxd"
extend() { TPM2TOOLS_TCTI="$(cat "$dir/tpm/tcti")" tpm2_pcrextend "$@"; }

# entry PATH CONTENT: the kernel measured a file (template ima-ng)
le32() { printf '%08x' "$1" | sed 's/\(..\)\(..\)\(..\)\(..\)/\4\3\2\1/'; }
entry() {
    local digest name data
    digest=$(printf 'sha256:\0' | xxd -p -c 256)$(printf '%s' "$2" | sha256sum | cut -c1-64)
    name=$(printf '%s\0' "$1" | xxd -p -c 4096)
    data=$(le32 $((${#digest} / 2)))$digest$(le32 $((${#name} / 2)))$name
    xxd -r -p >> "$dir/ima.log" << END
$(le32 10)$(printf '%s' "$data" | xxd -r -p | sha1sum | cut -c1-40)$(le32 6)$(printf ima-ng | xxd -p)$(le32 $((${#data} / 2)))$data
END
    extend "10:sha256=$(printf '%s' "$data" | xxd -r -p | sha256sum | cut -c1-64)"
}
# expect CODE TEXT COMMAND...
expect() {
    local want=$1 text=$2 code=0
    shift 2
    "$@" > "$dir/tmp/out" 2>&1 || code=$?
    [ "$code" = "$want" ] && grep -q -- "$text" "$dir/tmp/out" || job_fail "expected $want and \"$text\", found $code: $(cat "$dir/tmp/out")"
}

# ---- the machine: a guest's boot and its list, without the violation at its end ----------------------
job_make_tpm
head -c -111 "$job_vectors/ima.bin" > "$dir/ima.log"
"$bin/attestctl" --json eventlog show "$dir/ima.log" | jq -r '.events[] | "\(.pcr):sha256=\(.digests.sha256)"' > "$dir/tmp/extends"
while read -r one; do extend "$one"; done < "$dir/tmp/extends"
job_write_conf
sed -i 's/logs: \[firmware\]/logs: [firmware, ima]/' "$dir/issuer.yaml"
printf '  ima: %s\n' "$dir/ima.log" >> "$dir/attestd.yaml"
jq '.logs = ["firmware", "ima"] | del(.pcrs["10"])' "$job_vectors/policy.json" > "$dir/policy.json"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || job_fail "init"
job_start_issuer
ctl policy apply -f "$dir/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
job_start_keyd
job_start_attestd
job_enrolled_with rebalancer
id=$(job_host_id)

# ---- policy and list from the good host ----------------------------------------------------------------
nonce=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
p=$dir/policies
mkdir "$p"
quote() { ctl quote --nonce $nonce --pcrs "$job_pcrs" --out "$dir/quote" > /dev/null; }
quote
ctl measure --from "$dir/quote" --name ovmf-guest --version 2 --out "$p/v2.json" --allowlist "$p/guest.imalist" > "$dir/tmp/out" ||
    job_fail "measure: $(cat "$dir/tmp/out")"
sum=$(sha256sum "$p/guest.imalist" | cut -c1-64)
[ "$(jq -r '.ima.allowlists[0].sha256' "$p/v2.json")" = "$sum" ] || job_fail "the policy does not name the list"
grep -q '^verity:sha256:41538d55.* /mnt/verity.bin$' "$p/guest.imalist" || job_fail "$(cat "$p/guest.imalist")"
expect 0 "allowlist $sum, 9 entries" ctl policy show "$p/v2.json"
expect 0 'ima rule added' ctl policy diff "$dir/policy.json" "$p/v2.json"
expect 0 'IMA: 10 entries, 9 on allow lists, 0 excluded' ctl policy test "$p/v2.json" "$dir/quote"
expect 1 allowlistMissing ctl policy apply -f "$p/v2.json"
expect 1 allowlistMissing ctl policy dryrun -f "$p/v2.json"
expect 0 'entries *9' ctl allowlist apply "$p/guest.imalist" --label guest
expect 0 '1 pass, 0 would be refused' ctl policy dryrun -f "$p/v2.json"
ctl policy apply -f "$p/v2.json" > /dev/null
expect 1 'allowlistUsed.*ovmf-guest' ctl allowlist delete "$sum"
ctl agent rotate rebalancer > /dev/null || job_fail "not renewed under the list"
ok "a list from the good host; a policy without its list is refused, with it the host renews"

# ---- an unlisted file: observed, then refused, in the policy's dry run, too -----------------------------------
ctl policy mode trading observe > /dev/null
entry /usr/bin/later one
bad=$(printf one | sha256sum | cut -c1-64)
ctl agent rotate rebalancer > /dev/null || job_fail "observe refuses"
[ "$(ctl --json host show "$id" | jq -r '.lastVerdict | "\(.outcome) \(.policy.refusing)"')" = "granted 1" ] || job_fail "no finding: $(ctl --json host show "$id")"
wait_for 10 grep -q "policy.finding.*imaUnlisted.*pcr10 entry 10: /usr/bin/later: sha256:$bad" "$dir/log/issuerd.log"
expect 1 "imaUnlisted.*/usr/bin/later: sha256:$bad" ctl policy dryrun -f "$p/v2.json"
ctl policy mode trading enforce > /dev/null
expect 1 "bootPolicy.*pcr10 entry 10: /usr/bin/later: sha256:$bad: no allow list has this name" ctl agent rotate rebalancer
ok "an unlisted file: observed with its name and digest, refused under enforce"

# ---- the list extended: a second one, from a folder with the files as they are installed ------------------------
mkdir -p "$dir/tree/bin" "$dir/tree/tmp"
printf one > "$dir/tree/bin/later"
printf scratch > "$dir/tree/tmp/scratch file"
ctl allowlist draft "$dir/tree" --merged-usr --exclude /tmp/ --out "$p/later.imalist" > /dev/null
[ "$(tail -n +2 "$p/later.imalist")" = "sha256:$bad /usr/bin/later" ] || job_fail "$(cat "$p/later.imalist")"
expect 1 '0 removed, 1 added\|9 removed, 1 added' ctl allowlist diff "$p/guest.imalist" "$p/later.imalist"
jq --arg s "$(sha256sum "$p/later.imalist" | cut -c1-64)" '.version = 3 | .ima.allowlists += [{sha256: $s, label: "the update"}]' "$p/v2.json" > "$p/v3.json"
expect 0 'ima: allowlists added' ctl policy diff "$p/v2.json" "$p/v3.json"
ctl allowlist apply "$p/later.imalist" > /dev/null
ctl policy apply -f "$p/v3.json" > /dev/null
ctl agent rotate rebalancer > /dev/null || job_fail "refused with the second list"
ok "a second list, drafted from a folder, admits the file again"

# ---- a list that takes more than one call; one that no policy names goes ----------------------------------------
awk 'BEGIN { print "# attestd IMA allow list 1"; for (i = 0; i < 30000; i++) printf "sha256:%064d /opt/file-%d\n", i, i }' > "$p/big.imalist"
big=$(sha256sum "$p/big.imalist" | cut -c1-64)
expect 0 'entries *30000' ctl allowlist apply "$p/big.imalist"
expect 0 "$big" ctl allowlist list
ctl allowlist delete "$big" > /dev/null || job_fail "not deleted"
expect 1 "" ctl allowlist delete "$big"
ok "a list of 30,000 entries, applied in parts and deleted"

# ---- the file changes: both digests are named ---------------------------------------------------------------------
entry /usr/bin/later two
expect 1 "/usr/bin/later: sha256:$(printf two | sha256sum | cut -c1-64), allowed is sha256:$bad" ctl agent rotate rebalancer
e=$(ctl --json allowlist list | jq -r '.allowlists | length')
[ "$e" = 2 ] || job_fail "$e allow lists"
job_stop issuerd TERM
job_start_issuer
expect 1 'pcr10 entry 11: /usr/bin/later' ctl agent rotate rebalancer
ok "another digest under a listed name is refused with both; after a restart of the issuer, too"
