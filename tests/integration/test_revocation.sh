#!/usr/bin/env bash
# Revocation with real processes (swtpm, keyd, whod, attestd, tokend, issuer): a certificate that an operator revokes, a
# banned host. The list has it at once, over HTTP too; a stock verifier refuses the chain; the host's daemon destroys the
# key on a connection that stays, and gets another one where it may. Another host, a peer with the bundle and the list that
# its own attestd keeps, refuses a banned host's certificate within 5 s.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and port come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
for tool in setpriv curl sqlite3; do command -v $tool > /dev/null || job_skip "no $tool"; done
job_setup
chmod 755 "$dir" "$dir/tmp"
ok() { echo "ok: $*"; }
user=62011
rpc=$dir/tmp/rpc.py
cp "$ATT_SOURCE_DIR/tests/support/token/rpc.py" "$rpc"
chmod 644 "$rpc"

job_make_tpm
job_write_conf
acme_port=$port
job_port
crl_url=http://127.0.0.1:$port
echo "crl: {listen: \"127.0.0.1:$port\", url: \"$crl_url\"}" >> "$dir/issuer.yaml"
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
job_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 30 test -S "$dir/run/public/pkcs11.sock"
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
{
    echo "trust_domain: bank.example"
    echo "agents:"
    printf '  - {name: alpha, owner: "x@bank.example", hosts: ["ek:%s"], workload: {uid: %s}, key: tpm, profile: trading}\n' \
        "$(job_host_id)" $user
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > /dev/null
wait_for 60 job_serial alpha
watch() {
    job_stop alpha KILL
    rm -f "$dir/log/alpha.log"
    job_start alpha setpriv --reuid $user --regid $user --clear-groups \
        /usr/bin/python3 "$rpc" watch "$dir/run/public/pkcs11.sock" 3
    wait_for 60 says '0x0 found 1' || { cat "$dir/log/alpha.log"; job_fail "alpha does not sign"; }
}
says() { [[ "$(tail -n 1 "$dir/log/alpha.log")" == *" $1" ]]; }
cleanup() {
    local status=$?
    set +e
    job_stop alpha KILL
    job_stop peer-attestd KILL
    job_stop peer-keyd KILL
    [ ! -d "$dir/peer/tpm" ] || swtpm_stop "$dir/peer/tpm"
    (exit $status)
    job_cleanup
}
trap cleanup EXIT
watch

fetch() { # fetch FILE: the list as the distribution point has it, as PEM
    curl -fsS -o "$dir/tmp/crl.der" "$crl_url/workload.crl"
    openssl crl -inform DER -in "$dir/tmp/crl.der" -out "$1"
}
serials() { openssl crl -in "$1" -noout -text | sed -n 's/^ *Serial Number: *//p' | tr 'A-F' 'a-f'; }
verify() { # verify CHAIN CRL: as a stock peer with revocation checks does
    openssl verify -crl_check -CRLfile "$2" -CAfile "$dir/issuer/ca/bundle.pem" -untrusted "$1" "$1" > "$dir/tmp/verify" 2>&1
}
chain=$dir/state/host/agents/alpha/chain.pem
first=$(job_serial alpha)
cp "$chain" "$dir/tmp/first.pem"

# ---- before ----
openssl x509 -in "$chain" -noout -ext crlDistributionPoints | grep -q "URI:$crl_url/workload.crl" ||
    job_fail "the leaf does not say where its list is"
fetch "$dir/tmp/crl.pem"
[ -z "$(serials "$dir/tmp/crl.pem")" ] || job_fail "revoked before anything was"
verify "$chain" "$dir/tmp/crl.pem" || { cat "$dir/tmp/verify"; job_fail "a good chain with an empty list"; }
wait_for 60 test -s "$dir/state/host/crl.pem"
verify "$chain" "$dir/state/host/crl.pem" || { cat "$dir/tmp/verify"; job_fail "the host's own copy"; }
curl -fsS --cacert "$dir/issuer/ca/tls-root.pem" -o "$dir/tmp/tls.der" "https://127.0.0.1:$acme_port/acme/crl/workload.crl"
cmp -s "$dir/tmp/tls.der" "$dir/tmp/crl.der" || openssl crl -inform DER -in "$dir/tmp/tls.der" -noout || job_fail "beside ACME"
ok "an empty list: in the leaf, over HTTP, beside ACME, on the host"

# ---- wrong input ----
refused() { # refused CODE WORDS ARGS...
    local code=$1 words=$2 status=0
    shift 2
    ctl "$@" > "$dir/tmp/out" 2>&1 || status=$?
    [ $status = "$code" ] && grep -q "$words" "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "$*: $status"; }
}
refused 2 serial cert revoke
refused 1 'certUnknown' cert revoke 00ff
refused 1 'lowercase hex' cert revoke 0xZZ
refused 1 'expected unspecified, keyCompromise' cert revoke "$first" --reason certificateHold
[ "$(job_serial alpha)" = "$first" ] || job_fail "wrong input revoked something"

# ---- revoked by an operator ----
since=$(date +%s%3N)
ctl cert revoke "$first" --reason keyCompromise > /dev/null
fetch "$dir/tmp/crl.pem"
[ "$(serials "$dir/tmp/crl.pem")" = "$first" ] || job_fail "not in the list at once"
openssl crl -in "$dir/tmp/crl.pem" -noout -text | grep -q 'Key Compromise' || job_fail "the reason"
! verify "$dir/tmp/first.pem" "$dir/tmp/crl.pem" || job_fail "a stock verifier accepts it"
grep -q 'certificate revoked' "$dir/tmp/verify" || { cat "$dir/tmp/verify"; job_fail "refused for another reason"; }
replaced() { s=$(job_serial alpha) && [ "$s" != "$first" ]; }
wait_for 60 replaced
grep -q "event=agent.revoked agent=alpha serial=$first" "$dir/log/attestd.log" || job_fail "no line about it"
on_host() { serials "$dir/state/host/crl.pem" | grep -qx "$first"; }
wait_for 60 on_host
wait_for 60 says '0x60 found 1' || { cat "$dir/log/alpha.log"; job_fail "who holds the revoked key's handle signs on"; }
verify "$chain" "$dir/state/host/crl.pem" || { cat "$dir/tmp/verify"; job_fail "the new certificate"; }
refused 1 'alreadyRevoked' cert revoke "$first"
ok "revoked: in the list at once, refused by openssl verify, another key and certificate after $(($(date +%s%3N) - since)) ms"

# ---- one that was renewed already: its key is retired, and signs for who holds a handle ----
watch
previous=$(job_serial alpha)
retired=$(ctl --json agent show alpha | jq -er .keyId)
wait_for 60 ctl agent rotate alpha
[ "$(job_serial alpha)" != "$previous" ] || job_fail "not rotated"
current=$(job_serial alpha)
ctl --json agent show alpha | jq -e --arg key "$retired" '[.retired[].keyId] | index($key) != null' > /dev/null ||
    job_fail "the replaced key is not retired: $(ctl --json agent show alpha | jq -c .)"
says '0x0 found 1' || { cat "$dir/log/alpha.log"; job_fail "the retired key does not sign"; }
ctl cert revoke "$previous" --reason keyCompromise > /dev/null
wait_for 60 says '0x60 found 1' || { cat "$dir/log/alpha.log"; job_fail "the retired key of a revoked certificate signs on"; }
wait_for 60 test ! -e "$dir/state/keyd/agents/$retired.pem"
grep -q "event=key.destroyed agent=alpha key=$retired state=retired why=certificateRevoked" "$dir/log/attestd.log" ||
    job_fail "no line about the retired key"
[ "$(job_serial alpha)" = "$current" ] || job_fail "the certificate in force went, too"
watch
ok "a renewed certificate revoked: its retired key signs no more, the one in force goes on"

# ---- killed between the chain's withdrawal and the record: no chain says whose list it is ----
stale=$(ctl --json agent show alpha | jq -er .keyId)
job_stop attestd KILL
rm -r "$dir/state/host/agents/alpha" "$dir/state/host/agents/.gen/alpha."*
ctl cert revoke "$current" > /dev/null
job_start_attestd
wait_for 60 test ! -e "$dir/state/keyd/agents/$stale.pem" || job_fail "a revoked key without a chain stays"
grep -q "event=agent.revoked agent=alpha serial=$current" "$dir/log/attestd.log" || job_fail "no line about it"
anew() { s=$(job_serial alpha) && [ "$s" != "$current" ]; }
wait_for 120 anew
ok "revoked while the chain was gone already: the key goes at the next start"

# ---- a peer: another host of this issuer, which has nothing but what its attestd is told ----
first_host=$(job_host_id)
peer=$dir/peer
mkdir -p "$peer/run"
chmod 755 "$peer" "$peer/run"
swtpm_make "$peer/tpm"
swtpm_start "$peer/tpm" > /dev/null
cp "$peer/tpm/ek-roots.pem" "$dir/ek-roots/peer.pem"
kill -HUP "$(job_pid issuerd)"
real=$dir
(dir=$peer; mkdir -p "$peer/tmp"; cp "$real/firmware.log" "$peer/"; job_boot_tpm)
sed "s,$dir/run,$peer/run,; s,$dir/state,$peer/state,; s,$dir/ticket.json,$peer/ticket.json,; s,^  tcti: .*,  tcti: \"$(cat "$peer/tpm/tcti")\"," \
    "$dir/attestd.yaml" > "$peer/attestd.yaml"
ctl ticket create --host peer --out "$peer/ticket.json" > /dev/null
job_start peer-keyd "$bin/attestd-keyd" --config "$peer/attestd.yaml"
job_start peer-attestd "$bin/attestd" --config "$peer/attestd.yaml"
peer_known() { ctl --json host list | jq -e '[.hosts[] | select(.label == "peer" or .id != "'"$first_host"'")] | length == 1'; }
wait_for 60 peer_known
ctl host approve "$(ctl --json host list | jq -r --arg not "$first_host" '.hosts[] | select(.id != $not) | .id')" --label peer > /dev/null
job_host_id() { echo "$first_host"; }
peer_takes() { verify "$1" "$peer/state/host/crl.pem"; }
wait_for 60 test -s "$peer/state/host/crl.pem"
wait_for 60 cmp "$peer/state/host/crl.pem" "$dir/state/host/crl.pem"
wait_for 60 peer_takes "$chain" || { cat "$dir/tmp/verify"; job_fail "a peer refuses a good chain"; }

# ---- the host is banned ----
watch
cp "$chain" "$dir/tmp/second.pem"
second=$(job_serial alpha)
key=$dir/state/keyd/agents/$(ctl --json agent show alpha | jq -r '.keyId // .key').pem
[ -s "$key" ] || job_fail "where is alpha's key? $key"
peer_takes "$dir/tmp/second.pem" || job_fail "refused before the ban"
since=$(date +%s%3N)
ctl host ban "$(job_host_id)" --reason 'stolen' > /dev/null
while peer_takes "$dir/tmp/second.pem" && [ $(($(date +%s%3N) - since)) -le 30000 ]; do sleep 0.02; done
peer_at=$(date +%s%3N)
grep -q 'certificate revoked' "$dir/tmp/verify" || { cat "$dir/tmp/verify"; job_fail "the peer's list: not refused, or for another reason"; }
[ $((peer_at - since)) -le 5000 ] || job_fail "a peer that attestd feeds refuses after $((peer_at - since)) ms, 5000 expected"
fetch "$dir/tmp/crl.pem"
! verify "$dir/tmp/second.pem" "$dir/tmp/crl.pem" || job_fail "a banned host's certificate is accepted"
grep -q 'certificate revoked' "$dir/tmp/verify" || job_fail "refused for another reason"
stopped() { grep -qv ' 0x0 ' "$dir/log/alpha.log"; }
wait_for 60 stopped
wait_for 60 test ! -e "$chain"
wait_for 60 test ! -e "$key"
at=$(awk -v since="$since" '$1 >= since && $2 != "0x0" {print $1; exit}' "$dir/log/alpha.log")
grep -q "event=agent.revoked agent=alpha serial=$second" "$dir/log/attestd.log" || job_fail "no line about the ban"
ok "banned: a peer that attestd feeds refuses after $((peer_at - since)) ms, one that asks for the list then does, the agent's key signs nothing after $((at - since)) ms and is gone"

# ---- approved again: another key ----
ctl host approve "$(job_host_id)" > /dev/null
third() { s=$(job_serial alpha) && [ "$s" != "$second" ]; }
wait_for 120 third
watch
ok "approved again: a new key and certificate"

# ---- banned, and the certificate is in no list: the issuer's database is from before it was issued ----
unknown=$(job_serial alpha)
sqlite3 "$dir/issuer/issuer.db" ".timeout 20000" "DELETE FROM certs WHERE serial = '$unknown'"
ctl host ban "$(job_host_id)" --reason 'stolen, and the backup is old' > /dev/null
fetch "$dir/tmp/crl.pem"
! serials "$dir/tmp/crl.pem" | grep -qx "$unknown" || job_fail "the list knows it: this proves nothing"
wait_for 60 stopped || job_fail "a banned host's key signs on since its certificate is in no list"
wait_for 60 test ! -e "$chain"
grep -q "event=agent.revoked agent=alpha serial=$unknown" "$dir/log/attestd.log" || job_fail "no line about it"
ctl host approve "$(job_host_id)" > /dev/null
fourth() { s=$(job_serial alpha) && [ "$s" != "$unknown" ]; }
wait_for 120 fourth
watch
ok "banned with a certificate that no list names: key and chain go all the same"

# ---- a list older than the one in force: refused by name, what is in force stays ----
number() { ctl --json status | jq .enrolment.crl.number; }
issuer_sql() { sqlite3 "$dir/issuer/issuer.db" ".timeout 20000" "$1"; }
view_changes() { # NAME: so the list is asked for
    echo "  - {name: $1, owner: x@bank.example, hosts: ['label:zone=nowhere'], workload: {uid: 62999}, key: tpm, profile: trading}" >> "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > /dev/null 2>&1
}
had=$(number)
[ "$had" -gt 1 ] || job_fail "no list in force: $had"
# Numbers are no smaller than the time: one from later first, as of a clock that was wrong.
issuer_sql "UPDATE meta SET value = X'$(printf %016x $((had + 1000000)))' WHERE key = 'crl.workload.number'; DELETE FROM meta WHERE key = 'crl.workload'"
view_changes other
later() { [ "$(number)" -gt $((had + 1000000)) ]; }
wait_for 60 later || job_fail "the list from later did not come: $(number)"
have=$(number)
cp "$dir/state/host/crl.pem" "$dir/tmp/in-force.pem"
issuer_sql "DELETE FROM meta WHERE key IN ('crl.workload', 'crl.workload.number')"
view_changes another
older() { grep -q 'event=crl.failed .*reason=crlNumber' "$dir/log/attestd.log"; }
wait_for 60 older
[ "$(number)" = "$have" ] && cmp -s "$dir/state/host/crl.pem" "$dir/tmp/in-force.pem" || job_fail "an older list replaced the one in force"
ok "a list with a smaller number is refused: crlNumber"
ctl audit verify > /dev/null
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "revocation: all held"
