#!/usr/bin/env bash
# Host-local rules (agents.d beside attestd.yaml) with real processes: they refuse who the issuer's entry grants,
# also on a connection that is there already, within a second of SIGHUP; they let nobody in; a file with errors is
# told of with file and line, and what was in force stays; `who` and `status` say what refused.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
command -v setpriv > /dev/null || job_skip "no setpriv"
job_setup
chmod 755 "$dir" "$dir/tmp"
ok() { echo "ok: $*"; }
user=62101 other=62102
python=$(readlink -f /usr/bin/python3)
rpc=$dir/tmp/rpc.py
cp "$ATT_SOURCE_DIR/tests/support/token/rpc.py" "$rpc"
chmod 644 "$rpc"
nothing=$(printf 0%.0s $(seq 64))

job_make_tpm
job_write_conf
mkdir "$dir/agents.d"

# ---- --check, and a start with errors ----
check() { "$bin/attestd" --config "$dir/attestd.yaml" --check > "$dir/tmp/check" 2>&1; }
rule() { printf 'agents:\n  - name: alpha\n    workload: %s\n' "$1" > "$dir/agents.d/alpha.yaml"; }
rule "{ uid: root }"
! check || job_fail "--check took a user's name"
grep -q "agents.d/alpha.yaml:3: agents\[0\].workload\[0\].uid: expected a user id" "$dir/tmp/check" || { cat "$dir/tmp/check"; job_fail "no line"; }
! "$bin/attestd" --config "$dir/attestd.yaml" > "$dir/tmp/check" 2>&1 || job_fail "started without what narrows"
rule "{ uid: $user }"
check || { cat "$dir/tmp/check"; job_fail "--check"; }
rm "$dir/agents.d/alpha.yaml"
ok "--check and the start refuse a file with errors, by file and line"

job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
job_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
limit=1000
! grep -q 'sanitizer build' "$dir/log/tokend.log" || limit=4000
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
{
    echo "trust_domain: bank.example"
    echo "agents:"
    for one in "alpha=$user" "beta=$other"; do
        printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: {uid: %s}, key: tpm, profile: trading}\n' \
            "${one%%=*}" "$(job_host_id)" "${one#*=}"
    done
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > /dev/null
wait_for 60 job_serial alpha
wait_for 60 job_serial beta
trap 'status=$?; for one in alpha beta; do job_stop $one KILL; done; set +e; (exit $status); job_cleanup' EXIT

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
hup() { kill -HUP "$(job_pid attestd)" && since=$(date +%s%3N); }
watch alpha $user
watch beta $other

# ---- refused on a connection that is there ----
narrowed() { # WHAT RULE WORDS of the line
    : > "$dir/log/attestd.log"
    rule "$2"
    hup
    within alpha '0x200 found 0'
    local refused=$took
    wait_for 10 grep -q "event=workload.refused reason=localRule .*agents.d/alpha.yaml.*$3" "$dir/log/attestd.log" ||
        { cat "$dir/log/attestd.log"; job_fail "$1: no line that names rule and file"; }
    ctl --json who "$(job_pid alpha)" > "$dir/tmp/who" || true
    jq -e '.agent == null and .reason == "localRule" and (.message | contains("agents.d/alpha.yaml"))' "$dir/tmp/who" > /dev/null ||
        { cat "$dir/tmp/who"; job_fail "$1: who"; }
    ctl --json status | jq -e '.callers.byLocalRule > 0 and .localRules == [{"agent": "alpha", "file": "alpha.yaml"}]' > /dev/null ||
        job_fail "$1: status"
    rule "[{ uid: 62109 }, { uid: $user }]"
    hup
    within alpha '0x0 found 1'
    ok "$1: refused after $refused ms; with an alternative that fits it signs after $took ms, on the same connection"
}
narrowed "a user that the entry does not name" "{ uid: 62109 }" "user 62109"
narrowed "a unit" "{ uid: $user, unit: rebalancer.service }" "rebalancer.service"
narrowed "an executable" "{ uid: $user, exe_sha256: [$nothing] }" "is not listed"

# ---- it adds nobody ----
rm "$dir/agents.d/alpha.yaml"
printf 'agents:\n  - { name: gamma, workload: { uid: 62103 } }\n  - { name: beta, workload: [ { uid: %s }, { uid: 62103 } ] }\n' $other \
    > "$dir/agents.d/more.yaml"
hup
reloaded() { [ "$(ctl --json status | jq -c '[.localRules[].agent]')" = '["gamma","beta"]' ]; }
wait_for 10 reloaded
job_start stranger setpriv --reuid 62103 --regid 62103 --clear-groups sleep 600
wait_for 10 test -e "/proc/$(job_pid stranger)/exe"
ctl --json who "$(job_pid stranger)" > "$dir/tmp/who" || true
jq -e '.agent == null and .reason == "notAssigned"' "$dir/tmp/who" > /dev/null || { cat "$dir/tmp/who"; job_fail "a local rule let somebody in"; }
job_stop stranger KILL
ok "a local rule gives nobody an agent, neither a new one nor one of the entries'"

# ---- errors at a reload: what was in force stays ----
: > "$dir/log/attestd.log"
printf 'agents:\n  - { name: beta, workload: { uid: 62109 }, key: tpm }\n' > "$dir/agents.d/worse.yaml"
hup
wait_for 10 grep -q 'conf.notReloaded' "$dir/log/attestd.log"
grep -q "agents.d/worse.yaml:2: agents\[0\].key: unknown key" "$dir/log/attestd.log" || { cat "$dir/log/attestd.log"; job_fail "no file and line"; }
reloaded || job_fail "a file with errors changed what is in force"
rm "$dir/agents.d/worse.yaml"
ok "errors at SIGHUP are told with file and line, and change nothing"

# ---- another agent, through all of that ----
[ "$(wc -l < "$dir/log/beta.log")" = 1 ] || { cat "$dir/log/beta.log"; job_fail "another agent noticed"; }
says beta '0x0 found 1' || job_fail "beta"
ok "another agent signed on through all changes"
for one in alpha beta; do job_stop $one KILL; done
job_stop tokend
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "local rules: all held"
