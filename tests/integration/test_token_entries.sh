#!/usr/bin/env bash
# What a granted connection is worth when something changes, with real processes (swtpm, keyd, whod, attestd, tokend,
# issuer): user, unit, executable, script of its entry, the agent gone, frozen. The refusal comes by itself after
# entry apply, on a connection that stays; what is put right signs again; another agent notices nothing.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
command -v setpriv > /dev/null || job_skip "no setpriv"
job_setup
chmod 755 "$dir" "$dir/tmp"
ok() { echo "ok: $*"; }
user=62001 other=62002
python=$(readlink -f /usr/bin/python3)
rpc=$dir/tmp/rpc.py
cp "$ATT_SOURCE_DIR/tests/support/token/rpc.py" "$rpc"
chmod 644 "$rpc"
sha() { sha256sum "$1" | cut -d' ' -f1; }
nothing=$(printf 0%.0s $(seq 64))

job_make_tpm
job_write_conf
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
job_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
# Heard of, not asked for: tokend asks again every 10 s (PROC_CHANGES_WAIT_MS). How fast it is on a free machine is no
# matter of a test that runs beside others.
limit=8000
[ -z "${ATT_LONG:-}" ] || limit=1000 # with --all, on a machine that does nothing else: the promise itself
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
beside="beta={uid: $other}"
entries() { # entries NAME=WORKLOAD...: and beta
    local one
    {
        echo "trust_domain: bank.example"
        echo "agents:"
        for one in "$@" "$beside"; do
            printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: %s, key: tpm, profile: trading}\n' \
                "${one%%=*}" "$(job_host_id)" "${one#*=}"
        done
    } > "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
    since=$(date +%s%3N)
}
watch() { # watch NAME USER
    job_start "$1" setpriv --reuid "$2" --regid "$2" --clear-groups "$python" "$rpc" watch "$dir/run/public/pkcs11.sock" 3
    wait_for 60 says "$1" '0x0 found 1' || { cat "$dir/log/$1.log"; job_fail "$1"; }
}
says() { [[ "$(tail -n 1 "$dir/log/$1.log")" == *" $2" ]]; }
within() { # within NAME WORDS: in time since the change
    wait_for 30 says "$@" || { cat "$dir/log/$1.log"; job_fail "wanted of $1: $2"; }
    took=$(($(tail -n 1 "$dir/log/$1.log" | cut -d' ' -f1) - since))
    [ "$took" -le "$limit" ] || { cat "$dir/log/$1.log"; job_fail "$1: $2 after $took ms, allowed are $limit"; }
}
trap 'status=$?; for one in alpha beta; do job_stop $one KILL; done; set +e; (exit $status); job_cleanup' EXIT
right="{uid: $user, exe_sha256: [$(sha "$python")], script_sha256: [$(sha "$rpc")]}"
entries "alpha=$right"
wait_for 60 job_serial alpha
wait_for 60 job_serial beta
watch alpha $user
watch beta $other

# ---- each selector alone ----
refused_by() { # refused_by WHAT WORKLOAD [WORDS of attestd's line]
    : > "$dir/log/attestd.log"
    entries "alpha=$2"
    within alpha '0x200 found 0'
    local refused=$took
    wait_for 10 grep -q "event=workload.refused reason=notAssigned .*service=pkcs11-again .*uid=$user " "$dir/log/attestd.log" ||
        { cat "$dir/log/attestd.log"; job_fail "$1: no line with the selectors seen"; }
    grep -q "event=workload.refused reason=notAssigned .*$3" "$dir/log/attestd.log" || job_fail "$1: the line does not say $3"
    entries "alpha=$right"
    within alpha '0x0 found 1'
    ok "$1: refused after $refused ms; put right: signs after $took ms, on the same connection"
}
refused_by "another user" "{uid: 62009}" "wants user 62009"
refused_by "a unit" "{uid: $user, unit: rebalancer.service}" "rebalancer.service"
refused_by "another executable" "{uid: $user, exe_sha256: [$nothing]}" "is not listed"
refused_by "another script" "{uid: $user, exe_sha256: [$(sha "$python")], script_sha256: [$nothing]}" "its script"
: > "$dir/log/attestd.log"
entries "alpha=[{uid: 62009}, {uid: $user}]"
decided() { grep -q 'event=workload.granted agent=alpha service=pkcs11-again' "$dir/log/attestd.log"; }
wait_for 30 decided || job_fail "not decided anew"
says alpha '0x0 found 1' || job_fail "another alternative of the same entry"
ok "an alternative more: decided anew, and it signs on"

# ---- the agent frozen, and gone ----
ctl agent freeze alpha > /dev/null
since=$(date +%s%3N)
within alpha '0x200 found 1'
ok "frozen: refused after $took ms"
ctl agent thaw alpha > /dev/null
wait_for 30 says alpha '0x0 found 1'
ctl entry delete alpha > /dev/null
since=$(date +%s%3N)
gone() { grep -qE '^[0-9]+ 0x(200|60) found 0$' <(tail -n 1 "$dir/log/alpha.log"); }
wait_for 30 gone || { cat "$dir/log/alpha.log"; job_fail "removed"; }
first=$(awk -v since="$since" '$1 >= since - 2000 && $2 != "0x0" {print $1; exit}' "$dir/log/alpha.log")
[ $((first - since)) -le $limit ] || job_fail "removed: refused after $((first - since)) ms"
ok "removed: refused after $((first - since)) ms"

# ---- another agent, through all of that ----
[ "$(wc -l < "$dir/log/beta.log")" = 1 ] || { cat "$dir/log/beta.log"; job_fail "another agent noticed"; }
says beta '0x0 found 1' || job_fail "beta"
ok "another agent signed on through all changes"
for one in alpha beta; do job_stop $one KILL; done
job_stop tokend
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "token entries: all held"
