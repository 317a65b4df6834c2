#!/usr/bin/env bash
# The ceremonies of docs/OPERATIONS.md as they stand there: an offline root (`init --root offline`, in several runs, with
# scripts/offline-root at the other end), its refusals; then, with a real host, a new intermediate by the offline root and
# a new root, until the old ones are gone. Stock openssl verifies at each step, with revocation lists.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
job_make_tpm
job_write_conf
printf 'ca:\n  publish_wait: 1s\n' >> "$dir/issuer.yaml"
offline=$ATT_SOURCE_DIR/scripts/offline-root
ok() { echo "ok: $*"; }
init() { "$bin/attest-issuerd" --config "$dir/issuer.yaml" init --root offline > "$dir/tmp/init" 2>&1; }
refused_init() { # REASON
    ! init || job_fail "init took what it must refuse: $1"
    grep "$1" "$dir/tmp/init" > /dev/null || { cat "$dir/tmp/init"; job_fail "init does not say $1"; }
    [ ! -e "$dir/issuer/ca" ] || job_fail "$1: a CA is there"
}

# ---- offline root ----
init || { cat "$dir/tmp/init"; job_fail "the first run"; }
state=$dir/issuer/offline
cp "$state/workload-ca.csr" "$dir/tmp/first.csr"
init || job_fail "a second run without chains"
cmp "$dir/tmp/first.csr" "$state/workload-ca.csr" || job_fail "a second run made another request"
! "$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > /dev/null 2>&1 || job_fail "--check without a CA"
[ -z "$(find "$dir/issuer" -name '*root.key' ! -name tls-root.key)" ] || job_fail "a root's key is at the issuer"
"$offline" make "$dir/roots/workload" "bank.example Workload Root" --no-pass > /dev/null
"$offline" make "$dir/roots/attest" "bank.example Attestation Root" --no-pass > /dev/null
! "$offline" make "$dir/roots/attest" "again" --no-pass > /dev/null 2>&1 || job_fail "a root was overwritten"
echo no | "$offline" sign "$dir/roots/workload" "$state/workload-ca.csr" "$dir/tmp/not" --trust-domain bank.example > "$dir/tmp/sign" 2>&1 &&
    job_fail "signed without a yes"
[ ! -e "$dir/tmp/not" ] || job_fail "signed without a yes"
"$offline" sign "$dir/roots/workload" "$state/workload-ca.csr" "$state/workload-ca.chain.pem" --trust-domain bank.example --yes > /dev/null
[ "$(stat -c %a "$state/workload-ca.chain.pem" "$dir/roots/workload/root.crt" "$dir/roots/workload/root.key" | tr '\n' ' ')" = "644 644 600 " ] ||
    job_fail "the issuer's user cannot read the chain, or others can read the key"
"$offline" sign "$dir/roots/attest" "$state/attest-ca.csr" "$dir/tmp/attest.chain.pem" --yes > /dev/null
! "$offline" sign "$dir/roots/workload" "$state/workload-ca.csr" "$dir/tmp/not" --yes > "$dir/tmp/sign" 2>&1 ||
    job_fail "name constraints were left out without a word"
# A request whose text says what is wanted in a comment, and asks for more.
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/evil.key" -out "$dir/tmp/evil.csr" \
    -subj '/CN=CA:TRUE, pathlen:0 Certificate Sign, CRL Sign' -addext basicConstraints=CA:TRUE \
    -addext 'nsComment=CA:TRUE, pathlen:0 Certificate Sign, CRL Sign' -addext subjectAltName=DNS:a.example 2> /dev/null
"$offline" sign "$dir/roots/attest" "$dir/tmp/evil.csr" "$dir/tmp/evil.pem" --yes > /dev/null
openssl x509 -in "$dir/tmp/evil.pem" -noout -ext basicConstraints,keyUsage,subjectAltName,nsComment > "$dir/tmp/evil.txt" 2>&1
[ "$(grep -cE 'CA:TRUE, pathlen:0$|Basic Constraints: critical|Key Usage: critical' "$dir/tmp/evil.txt")" = 3 ] ||
    job_fail "a request's own extensions: $(cat "$dir/tmp/evil.txt")"
if grep -E 'Comment|Alternative' "$dir/tmp/evil.txt"; then job_fail "an extension was copied"; fi
init || job_fail "one chain of two"
[ ! -e "$dir/issuer/ca" ] || job_fail "a CA of one chain"
cp "$state/workload-ca.chain.pem" "$state/attest-ca.chain.pem"
refused_init caKey
OFFLINE_ROOT_DAYS=3 "$offline" sign "$dir/roots/attest" "$state/attest-ca.csr" "$state/attest-ca.chain.pem" --yes > /dev/null
refused_init caValidity
# The issuer's own TLS root is made by the first run, and no authority may have its key.
mkdir "$dir/roots/tls"
cp "$state/ca/tls-root.key" "$dir/roots/tls/root.key"
cp "$state/ca/tls-root.crt" "$dir/roots/tls/root.crt"
"$offline" sign "$dir/roots/tls" "$state/attest-ca.csr" "$state/attest-ca.chain.pem" --yes > /dev/null
refused_init caChain
grep 'attest-ca.chain.pem.*tls-root' "$dir/tmp/init" > /dev/null || { cat "$dir/tmp/init"; job_fail "not said whose key"; }
cp "$dir/tmp/attest.chain.pem" "$state/attest-ca.chain.pem"
init || { cat "$dir/tmp/init"; job_fail "the last run"; }
"$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > /dev/null || job_fail "--check"
! init || job_fail "init over a CA"
ok "an offline root: requests, chains, refusals by name, in place by one rename"

# ---- a host lives on it ----
job_start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
job_start_keyd
job_start_attestd
job_enrolled_with market-data
job_check_chain market-data
host=$dir/state/host
first=$(openssl x509 -in "$host/agents/market-data/chain.pem" -noout -issuer)

# By the host's own files, as a stock peer that checks lists.
peer_accepts() { # CHAIN
    openssl verify -x509_strict -crl_check -CAfile "$host/bundle.pem" -CRLfile "$host/crl.pem" -untrusted "$1" "$1"
}
verified() { peer_accepts "$1" > "$dir/tmp/peer" 2>&1 || { cat "$dir/tmp/peer"; job_fail "$2"; }; }
verified "$host/agents/market-data/chain.pem" "before"
step_is() { [ "$(ctl --json ca rotate workload "${@:2}" | jq -r .step)" = "$1" ]; }
rotated() { # agent, until its chain is another authority's
    cp "$host/agents/market-data/chain.pem" "$dir/tmp/old-chain.pem"
    ctl agent rotate market-data > /dev/null
    new_ca() { [ "$(openssl x509 -in "$host/agents/market-data/chain.pem" -noout -issuer)" != "$1" ]; }
    wait_for 60 new_ca "$1"
    wait_for 60 job_settled market-data
}

# ---- a new intermediate, by the offline root ----
! ctl ca prepare workload > "$dir/tmp/prepare" 2>&1 || job_fail "prepared without the root's key"
grep caRootAway "$dir/tmp/prepare" > /dev/null || { cat "$dir/tmp/prepare"; job_fail "caRootAway is not said"; }
ctl ca prepare workload --csr --out "$dir/tmp/next.csr" > "$dir/tmp/prepare"
! grep 'BEGIN' "$dir/tmp/prepare" || job_fail "what is in the file is shown, too"
id=$(sed -n 's/^id *//p' "$dir/tmp/prepare")
step_is waiting || job_fail "it waits for no chain"
"$offline" sign "$dir/roots/workload" "$dir/tmp/next.csr" "$dir/tmp/next.pem" --trust-domain bank.example --yes > /dev/null
ctl ca chain "$id" -f "$dir/tmp/next.pem" > /dev/null
step_is published || job_fail "not published: $(ctl --json ca status | jq -c .generations)"
wait_for 60 step_is activated || job_fail "not activated: $(ctl ca rotate workload)"
rotated "$first"
verified "$host/agents/market-data/chain.pem" "the new intermediate"
verified "$dir/tmp/old-chain.pem" "the old intermediate, beside the new one"
job_check_chain market-data
step_is waiting || job_fail "retired while certificates are in force"
ctl ca rotate workload > "$dir/tmp/wait"
grep caInUse "$dir/tmp/wait" > /dev/null || { cat "$dir/tmp/wait"; job_fail "caInUse is not said"; }
outgoing() { ctl --json ca status | jq -r '.generations[] | select(.state == "outgoing" and .kind == "workload") | .id'; }
ctl ca retire "$(outgoing)" --force > /dev/null
ok "a new intermediate: the host had its list before it signed"

# ---- a new root, whose key is here; and a restart in the middle ----
second=$(openssl x509 -in "$host/agents/market-data/chain.pem" -noout -issuer)
step_is prepared --start --new-root || job_fail "no new root"
step_is published || job_fail "the new root is not published"
job_stop issuerd KILL
job_start_issuer
wait_for 60 step_is activated || job_fail "not activated: $(ctl ca rotate workload)"
[ "$(grep -c BEGIN "$host/bundle.pem")" = 2 ] || job_fail "the host had one root when the new one began to sign"
rotated "$second"
verified "$host/agents/market-data/chain.pem" "the new root"
verified "$dir/tmp/old-chain.pem" "the old root, beside the new one"
ctl ca bundle workload --out "$dir/tmp/bundle.pem" > /dev/null
cmp "$dir/tmp/bundle.pem" "$dir/issuer/ca/bundle.pem" || job_fail "bundle.pem is not the bundle"
ctl ca retire "$(outgoing)" --force > /dev/null
one_root() { [ "$(grep -c BEGIN "$host/bundle.pem")" = 1 ]; }
wait_for 60 one_root
verified "$host/agents/market-data/chain.pem" "the old root is gone"
! openssl verify -CAfile "$host/bundle.pem" -untrusted "$dir/tmp/old-chain.pem" "$dir/tmp/old-chain.pem" > /dev/null 2>&1 ||
    job_fail "the old root is trusted still"
for word in requested prepared published activated retired; do
    ctl --json audit list --kind ca > "$dir/tmp/records"
    jq -e --arg w "$word" '[.records[] | select(.record.outcome == $w)] | length > 0' "$dir/tmp/records" > /dev/null ||
        job_fail "no record of $word"
done
ctl audit verify > /dev/null || job_fail "the audit chain"
ok "a new root: in every bundle before it signed, gone after; records of each step"
