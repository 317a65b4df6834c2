#!/usr/bin/env bash
# Three issuers on one PostgreSQL, two of them with a TPM each: each publishes the same tree under signatures of its own
# TPM, an auditor who has their keys takes either; one's folder is taken back while the database is whole.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/issuers.sh
. "$ATT_SOURCE_DIR/tests/support/issuers.sh"
# shellcheck source=../support/logtpm.sh
. "$ATT_SOURCE_DIR/tests/support/logtpm.sh"
ok() { echo "ok: $*"; }
job_setup
job_start_postgres
mkdir -p "$dir/ek" "$dir/policies"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/ek.key" \
    -out "$dir/ek/maker.pem" -subj /CN=maker -days 30 2> /dev/null
for n in 1 2 3; do
    job_port
    # shellcheck disable=SC2154
    issuers_conf $n "127.0.0.1:$port"
done
issuers_init 1 2 3
for n in 1 2; do
    logtpm_make "$dir/tpm$n"
    cat >> "$dir/issuer-$n.yaml" << END
log_tpm:
  tcti: "$(cat "$dir/tpm$n/tcti")"
  state_dir: $dir/tpm-state-$n
  counter_interval: 60s
END
    job_start "logtpm-$n" "$bin/attest-issuerd-tpm" --config "$dir/issuer-$n.yaml"
done
start() { job_start "issuer-$1" "$bin/attest-issuerd" --config "$dir/issuer-$1.yaml" && wait_for 60 ctl_of "$1" issuer status; }
for n in 1 2 3; do start $n; done
size_of() { sed -n 2p "$dir/state-$1/audit-log/checkpoint"; }
all_at() { for n in "$@"; do [ "$(size_of "$n")" -ge "$records" ] || return 1; done; }
decide() { # decide N...: at each of them a decision; then all of them have published all
    local n
    for n in "$@"; do ctl_of "$n" ticket create > /dev/null; done
    records=$(ctl_of "$1" --json audit list --limit 1 | jq .head.seq)
    wait_for 60 all_at "$@"
}
key=$dir/state-1/ca/log.vkey
verify() { "$bin/attestctl" audit verify "$dir/state-$1/audit-log" --key "$key" "${@:2}"; }
refused() {
    local got=0 reason=$1
    shift
    "$@" > "$dir/tmp/refused" 2>&1 || got=$?
    [ "$got" = 1 ] && grep -q "$reason" "$dir/tmp/refused" || { cat "$dir/tmp/refused"; job_fail "$*: exit $got, expected $reason"; }
}
decide 1 2 3
cat "$dir/state-1/audit.tpm.vkey" "$dir/state-2/audit.tpm.vkey" > "$dir/both"
for n in 1 2; do
    verify $n --tpm-key "$dir/both" --save "$dir/seen-$n" > /dev/null
    verify $n --tpm-key "$dir/state-$n/audit.tpm.vkey" > /dev/null
    refused logTpmMissing verify $n --tpm-key "$dir/state-$((3 - n))/audit.tpm.vkey"
done
verify 3 > /dev/null
refused logTpmMissing verify 3 --tpm-key "$dir/both"
[ "$(ctl_of 3 --json audit list --kind logTpm | jq '.records | length')" = 2 ] || job_fail "two keys, two records"
ok "each TPM signs what its issuer publishes; an auditor with both keys takes either, and not the one without"

# ---- each continues what the other published ------------------------------------------------------------------------
for _ in 1 2 3; do decide 1 2 3; done
verify 1 --tpm-key "$dir/both" --since "$dir/seen-2" > /dev/null
verify 2 --tpm-key "$dir/both" --since "$dir/seen-1" > /dev/null
job_stop issuer-1 KILL
decide 2 3
start 1
decide 1 2
verify 1 --tpm-key "$dir/both" --since "$dir/seen-1" > /dev/null
ok "one log; one that was killed goes on with what others decided"

# ---- one's folder is taken back, the database is whole ---------------------------------------------------------------
job_stop issuer-1
cp -a "$dir/state-1" "$dir/state-1-old"
start 1
decide 1 2
job_stop issuer-1
rm -rf "$dir/state-1"
cp -a "$dir/state-1-old" "$dir/state-1"
refused logRolledBack timeout 120 "$bin/attest-issuerd" --config "$dir/issuer-1.yaml"
rm -rf "$dir/state-1/audit-log" "$dir/state-1/audit.checkpoint" "$dir/state-1/audit.head"
start 1 # it joins anew; what its TPM signed is the measure
decide 1 2
verify 1 --tpm-key "$dir/both" --since "$dir/seen-1" > /dev/null
ok "an older folder beside a whole database: logRolledBack; it joins anew"

# ---- the database is taken back, too ------------------------------------------------------------------------------------
for n in 1 2 3; do job_stop issuer-$n; done
pg_sql "$job_pg" postgres "DELETE FROM audit_leaves WHERE seq > 3" > /dev/null
rm -rf "$dir/state-1/audit-log" "$dir/state-1/audit.checkpoint" "$dir/state-1/audit.head"
refused logRolledBack timeout 120 "$bin/attest-issuerd" --config "$dir/issuer-1.yaml"
grep -q 'the TPM has signed' "$dir/tmp/refused" || { cat "$dir/tmp/refused"; job_fail "not by the TPM"; }
ok "a database that was cut does not pass as one that is joined: what the TPM signed"
