#!/usr/bin/env bash
# An operator moves the window of a renewal into the past (RFC 9773): attestd asks and renews with new evidence,
# for one host, by a certificate's serial number, and for all; what was made since stays as it is.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
job_make_tpm
job_write_conf
job_start_all
wait_for 60 job_host_known
host=$(job_host_id)
ctl host approve "$host" --label job > /dev/null
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - { name: one, owner: o@bank.example, hosts: [ "ek:$host" ], workload: { uid: 0 }, key: tpm, profile: trading }
  - { name: two, owner: o@bank.example, hosts: [ "ek:$host" ], workload: { uid: 1 }, key: tpm, profile: trading }
END
ctl entry apply -f "$dir/agents.yaml" > /dev/null
wait_for 60 job_serial one
wait_for 60 job_serial two
changed() { [ "$(job_serial "$1")" != "$2" ]; }
asked() { grep -c 'event=agent.renewalAsked' "$dir/log/attestd.log" || true; }

one=$(job_serial one) two=$(job_serial two)
sleep 1.1 # certificates made up to a second, and the word about them
ctl cert renew --serial "$one" --reason test > "$dir/tmp/said"
wait_for 60 changed one "$one"
[ "$(job_serial two)" = "$two" ] || job_fail "two was renewed, too"
echo "ok: one certificate by its serial number"

one=$(job_serial one)
sleep 1.1
ctl cert renew --host job --reason test > /dev/null
wait_for 60 changed one "$one"
wait_for 60 changed two "$two"
echo "ok: those of a host"

one=$(job_serial one) two=$(job_serial two)
sleep 1.1
ctl cert renew --all --reason test > /dev/null
wait_for 60 changed one "$one"
wait_for 60 changed two "$two"
[ "$(asked)" -ge 5 ] || job_fail "asked for $(asked) renewals"
ctl --json audit list --kind renewal | jq -e '[.records[].record.subject] | length == 3' > /dev/null
echo "ok: all"

# Each order said which certificate it replaces (RFC 9773 section 5), so the issuer knows that it was.
replaced() { # SERIAL
    local n
    n=$(sqlite3 "$dir/issuer/issuer.db" "SELECT count(*) FROM certs JOIN orders ON certs.replaced = '!' || orders.id
        WHERE certs.serial = '$1' AND orders.replaces = '$1'")
    [ "$n" = 1 ]
}
replaced "$one" || job_fail "the order that renewed one does not say that it replaces $one"
replaced "$two" || job_fail "the order that renewed two does not say that it replaces $two"
echo "ok: orders say what they replace"

# That it cannot be said keeps no agent from its certificate.
one=$(job_serial one)
sqlite3 "$dir/issuer/issuer.db" ".timeout 20000" "UPDATE certs SET replaced = '!another' WHERE serial = '$one'" > /dev/null
sleep 1.1
ctl cert renew --serial "$one" --reason test > /dev/null
wait_for 60 changed one "$one"
grep -q 'event=agent.replaces .*alreadyReplaced' "$dir/log/attestd.log" || job_fail "attestd did not order with replaces first"
echo "ok: a certificate that another order replaced is renewed all the same"

# Each rests on evidence of its own.
ctl --json audit list --kind issue --limit 1000 | jq -e '[.records[].record | select(.outcome == "granted")] | length >= 7' > /dev/null ||
    job_fail "renewals without a verdict of their own"
echo "ok: with new evidence"
