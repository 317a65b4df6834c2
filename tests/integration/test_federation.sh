#!/usr/bin/env bash
# SPIFFE federation with real processes: two issuers of two trust domains with a host each (swtpm, keyd, whod, attestd,
# spiffed) that fetch each other's bundle. Mutual TLS between their agents, a token of the one judged at the other, pushes
# when keys and roots are rotated and when an entry federates no more; an endpoint that is away, one that gives a bundle of
# before, our own, another's, one with a private key, or nothing; https_spiffe, and with it an endpoint of another identity.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir and bin come from job.sh, ports from port_into
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
for tool in setpriv protoc grpc_python_plugin curl; do
    command -v $tool > /dev/null || job_skip "no $tool"
done
/usr/bin/python3 -c 'import grpc, google.protobuf, cryptography, jwt' 2> /dev/null || job_skip "no python3-grpcio, python3-jwt"
job_setup
a=$dir b=$dir/b
mkdir -p "$b/run" "$b/issuer-run" "$b/ek-roots" "$b/log" "$b/tmp"
chmod 755 "$a" "$a/tmp" "$a/run" "$b" "$b/tmp" "$b/run"
ok() { echo "ok: $*"; }
at() { # at a|b COMMAND…: there
    local dir=$a
    [ "$1" = a ] || dir=$b
    shift
    "$@"
}
user=62001 other=62002 stranger=62003 service=62010
support=$ATT_SOURCE_DIR/tests/support/spiffe
stubs=$a/stubs
mkdir "$stubs"
protoc -I "$support" -I "$ATT_SOURCE_DIR/attestd/spiffe/proto" --python_out "$stubs" --grpc_out "$stubs" \
    --plugin=protoc-gen-grpc="$(command -v grpc_python_plugin)" "$support/workload.proto" \
    "$ATT_SOURCE_DIR/attestd/spiffe/proto/signer.proto" "$ATT_SOURCE_DIR/attestd/spiffe/proto/health.proto" \
    "$ATT_SOURCE_DIR/attestd/spiffe/proto/secret.proto"
cp "$support/client.py" "$support/sds.py" "$support/federation.py" "$stubs/"
chmod -R a+rX "$stubs"
py() { # py USER SCRIPT ARGUMENT…
    local uid=$1 script=$2
    shift 2
    PYTHONDONTWRITEBYTECODE=1 timeout 60 setpriv --reuid "$uid" --regid "$uid" --clear-groups \
        /usr/bin/python3 "$stubs/$script" "$@"
}
as() { # as USER COMMAND…: of $dir's api.sock
    local uid=$1
    shift
    py "$uid" client.py "$stubs" "$dir/run/public/api.sock" "$@"
}
got() { jq -r "$1" "$dir/tmp/got"; }
must() { # must CODE PATTERN USER COMMAND…
    local code=$1 pattern=$2
    shift 2
    as "$@" > "$dir/tmp/got" 2> "$dir/tmp/got.err" || { cat "$dir/tmp/got.err"; job_fail "$*"; }
    if [ "$(got .code)" != "$code" ] || [[ "$(got '.message // ""')" != *$pattern* ]]; then
        cat "$dir/tmp/got"
        job_fail "$*: expected $code $pattern"
    fi
}
follow() { # follow NAME METHOD: $user's stream at A; its lines are in log/NAME.log
    PYTHONDONTWRITEBYTECODE=1 job_start "$1" setpriv --reuid $user --regid $user --clear-groups \
        /usr/bin/python3 "$stubs/client.py" "$stubs" "$a/run/public/api.sock" "$2"
}
last_is() { [ "$(tail -n 1 "$a/log/$1.log" | jq -r "$2")" = "$3" ]; }
job_start_keyd() {
    job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service --exporter $service
}
job_start_attestd() {
    job_start attestd "$bin/attestd" --config "$dir/attestd.yaml" --spiffed-user $service
    wait_for 30 ctl status
}
reload() { # the issuer of $dir, and it did
    local before
    before=$(grep -cE 'event=reload\.(done|failed)' "$dir/log/issuerd.log" || true)
    kill -HUP "$(job_pid issuerd)"
    more() { [ "$(grep -cE 'event=reload\.(done|failed)' "$dir/log/issuerd.log")" -gt "$before" ]; }
    wait_for 30 more
    grep -E 'event=reload\.(done|failed)' "$dir/log/issuerd.log" | tail -n 1 | grep -q reload.done ||
        { tail -n 5 "$dir/log/issuerd.log"; job_fail "reload"; }
}

# ---- two trust domains ----
port_into id_a
port_into id_b
port_into web_port
port_into spiffe_port
federates() { # federates NAME LINES: the section of $dir's issuer.yaml with this trust domain
    sed -i '/^federation:/,$d' "$dir/issuer.yaml"
    printf 'federation:\n  allow: [127.0.0.0/8]\n  refresh_min: 1s\n  refresh_max: 2s\n  timeout: 5s\n  trust_domains:\n' >> "$dir/issuer.yaml"
    printf '    - name: %s\n%s\n' "$1" "$2" >> "$dir/issuer.yaml"
}
web_b=$(printf '      url: "https://127.0.0.1:%s/bundle"\n      ca_file: %s/issuer/ca/tls-root.pem' "$id_b" "$b")
make() { # make TRUST_DOMAIN PORT-OF-ITS-DOCUMENTS
    job_make_tpm
    job_write_conf
    sed -i "s/^trust_domain: .*/trust_domain: $1/" "$dir/issuer.yaml"
    printf 'jwt:\n  issuer: "https://127.0.0.1:%s"\n  listen: "127.0.0.1:%s"\n' "$2" "$2" >> "$dir/issuer.yaml"
    install -d -o $service "$dir/run/public"
}
start() {
    job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml" --client 0 --client $service
    job_start_all
    chmod 644 "$dir/attestd.yaml"
    job_start spiffed setpriv --reuid $service --regid $service --groups 0 "$bin/attestd-spiffed" --config "$dir/attestd.yaml" \
        --slow 5 --attestd-user 0 --whod-user 0 --keyd-user 0
    wait_for 30 test -S "$dir/run/public/api.sock"
    wait_for 60 job_host_known
    ctl host approve "$(job_host_id)" --label job > /dev/null
}
ends() {
    local name
    for name in x509 jwt svid web spiffe; do
        at a job_stop $name KILL
    done
    for name in spiffed attestd keyd whod issuerd; do
        at b job_stop $name KILL
    done
    [ ! -d "$b/tpm" ] || swtpm_stop "$b/tpm"
    if [ "${status:-0}" -ne 0 ]; then
        tail -n 15 "$b"/log/*.log
    fi
}
trap 'status=$?; set +e; ends; (exit $status); job_cleanup' EXIT
at a make bank.example "$id_a"
at b make partner.example "$id_b"
at a federates partner.example "$web_b"
at b federates bank.example "$(printf '      url: "https://127.0.0.1:%s/bundle"\n      ca_file: %s/issuer/ca/tls-root.pem' "$id_a" "$a")"
# What the file must not say.
wrong() { # wrong SED-SCRIPT PATTERN
    sed "$1" "$a/issuer.yaml" > "$a/tmp/wrong.yaml"
    ! "$bin/attest-issuerd" --config "$a/tmp/wrong.yaml" --check > "$a/tmp/check" 2>&1 || job_fail "$1: taken"
    grep -qF "$2" "$a/tmp/check" || { cat "$a/tmp/check"; job_fail "$1: expected $2"; }
}
wrong 's/name: partner.example/name: bank.example/' "is this issuer's own trust domain"
wrong 's/name: partner.example/name: Partner/' 'federation.trust_domains[0].name'
wrong 's,url: "https://127.0.0.1:'"$id_b"',url: "http://127.0.0.1:'"$id_b"',' 'federation.trust_domains[0].url'
wrong 's,127.0.0.0/8,127.0.0.1/8,' 'federation.allow[0]'
wrong 's/refresh_max: 2s/refresh_max: 0s/' 'federation.refresh_max'
wrong 's/refresh_min: 1s/refresh_min: 3s/' 'expected at least refresh_min'
wrong 's/timeout: 5s/timeout: 61s/' 'federation.timeout'
wrong '$a\      profile: https_spiffe' 'expected with profile: https_web only'
wrong 's/ca_file: .*tls-root.pem/profile: https_spiffe/' 'https_spiffe needs spiffe_id'
wrong '$a\      spiffe_id: "spiffe://partner.example/x"' 'expected with profile: https_spiffe only'
wrong '$a\      profile: https' 'expected one of'
ok "configuration: what it must not say, each with its line and reason"
at a start
at b start
entry() { # entry TRUST_DOMAIN NAME UID FURTHER
    cat > "$dir/agents.yaml" << END
trust_domain: $1
agents:
  - {name: $2, owner: "x@$1", hosts: ["ek:$(job_host_id)"], workload: {uid: $3}, key: exportable,
     profile: trading$4}
END
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1
}
entry_a() { at a entry bank.example alpha $user ", audiences: [trades]$1" || { cat "$a/tmp/apply"; job_fail "entry"; }; }
! at a entry bank.example alpha $user ", federates_with: [third.example]" || job_fail "an unknown trust domain"
grep -q federationUnknown "$a/tmp/apply" || { cat "$a/tmp/apply"; job_fail "reason"; }
entry_a ""
at b entry partner.example omega $other ", audiences: [trades], federates_with: [bank.example]" || { cat "$b/tmp/apply"; job_fail "entry"; }
at a wait_for 90 job_settled alpha
at b wait_for 90 job_settled omega
fed() { ctl --json federation list | jq -r ".trustDomains[0].$1"; }
fed_is() { [ "$(fed "$1")" = "$2" ]; }
at a wait_for 30 fed_is source endpoint
at b wait_for 30 fed_is source endpoint
at a ctl --json federation show partner.example > "$a/tmp/show"
sha_of() { openssl x509 -in "$1" -outform DER | sha256sum | cut -d' ' -f1; }
[ "$(jq -r '.roots[0].sha256' "$a/tmp/show")" = "$(sha_of "$b/issuer/ca/bundle.pem")" ] || { cat "$a/tmp/show"; job_fail "another root"; }
kid_b=$(at b ctl --json ca jwt | jq -r '.keys[0].kid')
[ "$(jq -r '.keys[0].kid' "$a/tmp/show")" = "$kid_b" ] || job_fail "another key"
[ "$(at a ctl --json federation refresh partner.example | jq -r .outcome)" = unchanged ] || job_fail "refresh"
! at a ctl federation refresh third.example > "$a/tmp/out" 2>&1 || job_fail "an unknown trust domain"
grep -q federationUnknown "$a/tmp/out" || job_fail "$(cat "$a/tmp/out")"
! at a ctl federation show third.example > "$a/tmp/out" 2>&1 || job_fail "an unknown trust domain"
! at a ctl federation reset third.example > "$a/tmp/out" 2>&1 || job_fail "an unknown trust domain"
ok "each issuer has the other's root and key; list, show, refresh, and of an unknown trust domain nothing"

# ---- by default nothing, and then by the entry ----
follow x509 bundles
follow jwt jwt-bundles
follow svid svid
names() { printf '.%s | keys | join(" ")' "$1"; }
own="spiffe://bank.example"
both="spiffe://bank.example spiffe://partner.example"
wait_for 30 last_is x509 "$(names bundles)" "$own"
wait_for 30 last_is jwt "$(names kids)" "$own"
wait_for 60 last_is svid "$(names federated)" ""
must INVALID_ARGUMENT tokenDomain $user validate trades \
    "$(at b as $other token trades | jq -r .token)"
sds() { py $user sds.py "$stubs" "$a/run/public/api.sock" fetch "$@" > "$a/tmp/sds"; }
sds spiffe://partner.example
grep -q INVALID_ARGUMENT "$a/tmp/sds" || { cat "$a/tmp/sds"; job_fail "SDS gives what the entry does not"; }
ok "an entry that does not say so is given no other trust domain's bundle, and its agent's tokens are refused"
entry_a ", federates_with: [partner.example]"
wait_for 30 last_is x509 "$(names bundles)" "$both"
wait_for 30 last_is jwt "$(names kids)" "$both"
wait_for 60 last_is svid "$(names federated)" "spiffe://partner.example"
last_is x509 '.bundles["spiffe://partner.example"]' "$(sha_of "$b/issuer/ca/bundle.pem")" || job_fail "another root"
last_is svid '.federated["spiffe://partner.example"]' "$(sha_of "$b/issuer/ca/bundle.pem")" || job_fail "another root"
must PERMISSION_DENIED "notAssigned" $stranger bundles
sds spiffe://partner.example ROOTCA
[ "$(jq -r '.secrets["spiffe://partner.example"] | [.root, .roots, .crl] | join(" ")' "$a/tmp/sds" | head -n 1)" = \
    "$(sha_of "$b/issuer/ca/bundle.pem") 1 " ] || { cat "$a/tmp/sds"; job_fail "SDS"; }
[ "$(jq -r .secrets.ROOTCA.root "$a/tmp/sds" | head -n 1)" = "$(sha_of "$a/issuer/ca/bundle.pem")" ] || job_fail "SDS: ROOTCA"
ok "one that says so: FetchX509SVID, FetchX509Bundles, FetchJWTBundles and SDS have it, pushed to streams that were open"

# ---- between the agents ----
install -d -m 700 -o $user "$a/tmp/alpha"
install -d -m 700 -o $other "$b/tmp/omega"
py $user federation.py fetch "$stubs" "$a/run/public/api.sock" "$a/tmp/alpha"
py $other federation.py fetch "$stubs" "$b/run/public/api.sock" "$b/tmp/omega"
mtls() { /usr/bin/python3 "$stubs/federation.py" mtls "$@" > "$a/tmp/mtls"; }
mtls "$a/tmp/alpha" "$a/tmp/alpha/fed-partner.example.pem" "$b/tmp/omega" "$b/tmp/omega/fed-bank.example.pem"
[ "$(jq -r '.client + " " + .server' "$a/tmp/mtls")" = "spiffe://partner.example/agent/omega spiffe://bank.example/agent/alpha" ] ||
    { cat "$a/tmp/mtls"; job_fail "mutual TLS"; }
mtls "$a/tmp/alpha" "$a/tmp/alpha/own.pem" "$b/tmp/omega" "$b/tmp/omega/fed-bank.example.pem"
[[ "$(jq -r .refused "$a/tmp/mtls")" == *verify* ]] || { cat "$a/tmp/mtls"; job_fail "by the own roots"; }
ok "mutual TLS of an agent with one of the other trust domain, by the federated bundles alone"
token=$(at b as $other token trades | jq -r .token)
must OK "" $user validate trades "$token"
[ "$(got .id)" = spiffe://partner.example/agent/omega ] || { cat "$a/tmp/got"; job_fail "id"; }
must INVALID_ARGUMENT tokenAudience $user validate other "$token"
key_a=$(find "$a/issuer/ca/jwt" -name '*.key')
kid_a=$(at a ctl --json ca jwt | jq -r '.keys[0].kid')
/usr/bin/python3 - "$key_a" "$kid_a" "$kid_b" > "$a/tmp/forged" << 'END'
import sys
import time
import jwt
with open(sys.argv[1], encoding="ascii") as file:
    key = file.read()
now = int(time.time())
claims = {"sub": "spiffe://partner.example/agent/omega", "aud": "trades", "exp": now + 200, "iat": now}
for kid in sys.argv[2:]:
    print(jwt.encode(claims, key, algorithm="ES256", headers={"kid": kid}))
END
must INVALID_ARGUMENT tokenKid $user validate trades "$(sed -n 1p "$a/tmp/forged")"
must INVALID_ARGUMENT tokenSignature $user validate trades "$(sed -n 2p "$a/tmp/forged")"
ok "a token of the other trust domain holds by its keys; one of its names that our issuer's key signed does not"

# ---- what the other changes ----
curl -sf --cacert "$b/issuer/ca/tls-root.pem" "https://127.0.0.1:$id_b/bundle" > "$a/tmp/before.json"
at b ctl ca jwt-replace --withdraw > /dev/null
kid_new=$(at b ctl --json ca jwt | jq -r '.keys[0].kid')
wait_for 30 last_is jwt '.kids["spiffe://partner.example"] | join(" ")' "$kid_new"
must INVALID_ARGUMENT tokenKid $user validate trades "$token"
at b ctl --json ca prepare workload --new-root > "$b/tmp/prepare"
at b ctl ca publish "$(jq -r .id "$b/tmp/prepare")" > /dev/null
began=$(date +%s%3N)
wait_for 30 last_is x509 '.roots["spiffe://partner.example"]' 2
took=$(($(tail -n 1 "$a/log/x509.log" | jq .ms) - began))
ok "a key that was withdrawn and a root that was published there reach our agents' streams (the root after $took ms, looked for every 2 s)"
changed=$(at a fed changedAt)
at a ctl --json audit list --kind federation --limit 100 > "$a/tmp/audit"
# The first bundle and two changes, within a quarter of an hour: each has a record (eight may).
[ "$(jq '[.records[].record | select(.outcome == "updated" and .subject == "partner.example")] | length' "$a/tmp/audit")" = 3 ] ||
    { cat "$a/tmp/audit"; job_fail "records"; }
[ "$(at a fed unrecorded)" = null ] || job_fail "unrecorded: $(at a fed unrecorded)"
[ "$(jq '[.records[].record | select(.outcome == "configured")] | length' "$a/tmp/audit")" = 1 ] || { cat "$a/tmp/audit"; job_fail "records"; }

# ---- the other is away ----
at b job_stop issuerd
at a wait_for 30 fed_is outcome away
metric() { curl -sf --unix-socket "$a/issuer-run/metrics.sock" http://localhost/metrics | sed -n "s/^attest_issuer_federation_$1 //p"; }
failing() { [ "$(metric 'failures_in_row{trust_domain="partner.example"}')" -ge 1 ]; }
wait_for 30 failing
[ "$(metric 'looks_total{outcome="away"}')" -ge 1 ] && [ "$(metric 'looks_total{outcome="updated"}')" -ge 3 ] || job_fail "metrics"
[ -n "$(metric 'age_seconds{trust_domain="partner.example"}')" ] || job_fail "metrics: age"
[ "$(at a fed reason)" = endpointAway ] || job_fail "$(at a fed reason)"
! at a ctl federation refresh partner.example > "$a/tmp/out" 2>&1 || job_fail "it is away"
grep -q endpointAway "$a/tmp/out" || job_fail "$(cat "$a/tmp/out")"
at a job_stop issuerd
at a job_start_issuer
[ "$(at a fed roots)" = 2 ] && [ "$(at a fed changedAt)" = "$changed" ] || job_fail "the bundle did not outlive a restart"
last_is x509 '.roots["spiffe://partner.example"]' 2 || job_fail "the bundle went"
at b job_start_issuer
at a wait_for 30 fed_is outcome unchanged
ok "the other's issuer away, ours restarted: the bundle that was good last stays"

# ---- an endpoint that gives something else ----
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$a/tmp/web.key" -out "$a/tmp/web.pem" -days 2 \
    -subj /CN=web -addext "subjectAltName=IP:127.0.0.1" > "$a/tmp/openssl" 2>&1
served=$a/tmp/served.json
curl -sf --cacert "$b/issuer/ca/tls-root.pem" "https://127.0.0.1:$id_b/bundle" > "$served"
cp "$served" "$a/tmp/now.json"
job_start web /usr/bin/python3 "$stubs/federation.py" serve "$web_port" "$a/tmp/web.pem" "$a/tmp/web.key" "$served"
wait_for 30 grep -q ready "$a/log/web.log"
web() { # web CA_FILE [HOST]
    at a federates partner.example "$(printf '      url: "https://%s:%s/bundle"\n      ca_file: %s' "${2:-127.0.0.1}" "$web_port" "$1")"
    at a reload
}
web "$a/tmp/web.pem"
refresh_is() { # refresh_is REASON ("": it is taken)
    if ctl --json federation refresh partner.example > "$a/tmp/refresh" 2>&1; then
        [ -z "$1" ] || { cat "$a/tmp/refresh"; job_fail "taken, expected $1"; }
    else
        [ -n "$1" ] && grep -q "$1" "$a/tmp/refresh" || { cat "$a/tmp/refresh"; job_fail "expected $1"; }
        [ "$(fed reason)" = "$1" ] || job_fail "kept: $(fed reason)"
    fi
    # Whatever it was, what was good stays.
    [ "$(fed changedAt)" = "$changed" ] || job_fail "$1: the bundle changed"
}
refresh_is ""
cp "$a/tmp/before.json" "$served"
refresh_is bundleSequence
jq 'del(.spiffe_sequence)' "$a/tmp/now.json" > "$served"
refresh_is bundleSequence
curl -sf --cacert "$a/issuer/ca/tls-root.pem" "https://127.0.0.1:$id_a/bundle" | jq '.spiffe_sequence = 1000000' > "$served"
refresh_is bundleOwn
jq -n --slurpfile n "$a/tmp/now.json" '$n[0] | .spiffe_sequence = 1000000 | .keys[0].d = "AA"' > "$served"
refresh_is bundlePrivateKey
echo '{"keys": 1}' > "$served"
refresh_is bundleForm
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$a/tmp/third.key" -out "$a/tmp/third.pem" -days 2 \
    -subj /CN=third -addext "subjectAltName=URI:spiffe://third.example" -addext keyUsage=critical,keyCertSign > "$a/tmp/openssl" 2>&1
/usr/bin/python3 "$stubs/federation.py" jwks "$a/tmp/third.pem" > "$served"
refresh_is bundleDomain
head -c 300000 /dev/zero | tr '\0' ' ' > "$served"
refresh_is bundleSize
cp "$a/tmp/now.json" "$served"
echo 500 > "$served.status"
refresh_is endpointStatus
echo 302 > "$served.status"
refresh_is endpointStatus
rm "$served.status"
web "$b/issuer/ca/tls-root.pem"
refresh_is endpointTls
sed -i 's,allow: \[127.0.0.0/8\],allow: [10.0.0.0/8],' "$a/issuer.yaml"
at a reload
refresh_is endpointAddress
last_is x509 '.roots["spiffe://partner.example"]' 2 || job_fail "the bundle went"
web "$a/tmp/web.pem"
refresh_is ""
ok "a bundle of before, without a sequence, our own, another trust domain's, with a private key, no bundle, too long, two statuses, another server, another address: each refused by its name, and the good one stays"

# ---- the sequence that an operator lets go back ----
jq '.keys |= map(select(.use == "jwt-svid")) | .spiffe_sequence = 1' "$a/tmp/now.json" > "$served"
refresh_is bundleSequence
at a ctl federation reset partner.example > /dev/null
wait_for 30 last_is x509 "$(names bundles)" "$own" # it has no root any more
at a wait_for 30 fed_is sequence 1
wait_for 30 last_is jwt "$(names kids)" "$both"
cp "$a/tmp/now.json" "$served"
wait_for 30 last_is x509 '.roots["spiffe://partner.example"]' 2
at a ctl --json audit list --kind federation --limit 100 | jq -e '[.records[].record | select(.outcome == "reset")] | length == 1' > /dev/null ||
    job_fail "no record of the reset"
ok "federation reset lets a sequence go back, with a record; a bundle without roots is pushed as none"

# ---- https_spiffe ----
at b job_settled omega > /dev/null || at b wait_for 60 job_settled omega
py $other federation.py fetch "$stubs" "$b/run/public/api.sock" "$b/tmp/omega"
cat "$b/tmp/omega/chain.pem" > "$a/tmp/spiffe.pem"
cp "$b/tmp/omega/key.pem" "$a/tmp/spiffe.key"
job_start spiffe /usr/bin/python3 "$stubs/federation.py" serve "$spiffe_port" "$a/tmp/spiffe.pem" "$a/tmp/spiffe.key" "$served"
wait_for 30 grep -q ready "$a/log/spiffe.log"
spiffe() { # spiffe PATH-OF-ID PORT
    at a federates partner.example "$(printf '      url: "https://127.0.0.1:%s/bundle"\n      profile: https_spiffe\n      spiffe_id: "spiffe://partner.example%s"\n      bundle_file: %s/tmp/first.json' "$2" "$1" "$a")"
    at a reload
}
cp "$a/tmp/now.json" "$a/tmp/first.json"
changed=$(at a fed changedAt)
spiffe /agent/omega "$spiffe_port"
refresh_is ""
[ "$(at a fed profile)" = https_spiffe ] || job_fail "profile"
spiffe /agent/somebody "$spiffe_port"
refresh_is endpointId
spiffe /agent/omega "$web_port" # no SVID
refresh_is endpointTls
# Another root is known now than the endpoint's: the file begins anew.
echo '{"keys": [], "spiffe_sequence": 1000000}' > "$served"
spiffe /agent/omega "$spiffe_port"
at a ctl federation refresh partner.example > /dev/null 2>&1 || true # bundleEmpty: the issuer has looked already
wait_for 30 last_is x509 "$(names bundles)" "$own"
changed=$(at a fed changedAt)
cp "$a/tmp/now.json" "$served"
refresh_is bundleEmpty
echo nothing > "$a/tmp/first.json"
at a ctl federation reset partner.example > /dev/null
at a wait_for 30 fed_is reason bundleFile
cp "$a/tmp/now.json" "$a/tmp/first.json"
wait_for 30 last_is x509 '.roots["spiffe://partner.example"]' 2
at a wait_for 30 fed_is source endpoint
ok "https_spiffe: by the last known bundle and its SPIFFE ID alone; without a root it begins anew from the file, when an operator says so"

# ---- the end ----
entry_a ""
wait_for 30 last_is x509 "$(names bundles)" "$own"
wait_for 30 last_is jwt "$(names kids)" "$own"
wait_for 60 last_is svid "$(names federated)" ""
entry_a ", federates_with: [partner.example]"
wait_for 30 last_is x509 "$(names bundles)" "$both"
sed -i '/^federation:/,$d' "$a/issuer.yaml"
at a reload
wait_for 30 last_is x509 "$(names bundles)" "$own"
[ "$(at a ctl --json federation list | jq '.trustDomains | length')" = 0 ] || job_fail "list"
at a ctl --json audit list --kind federation --limit 200 | jq -e '[.records[].record | select(.outcome == "removed")] | length == 1' > /dev/null ||
    job_fail "no record of the removal"
at a ctl audit verify > /dev/null || job_fail "the audit log"
ok "an entry that federates no more, a trust domain that is configured no more: pushed, recorded"
