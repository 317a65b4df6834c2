#!/usr/bin/env bash
# go-spiffe, the SPIFFE project's own Go library, with real processes (swtpm, keyd, whod, attestd, issuer, spiffed): agents
# whose entries say "exportable" have their X509-SVIDs by X509Source, over three rotations, and do mutual TLS on both ends;
# JWT-SVIDs and bundles; who is given no key, and a peer with another SPIFFE ID, are refused; the issuer's bundle endpoint by
# its federation package, web PKI and SPIFFE authentication, over a rotation. Debian's package (13); without it, as on 12, the Go module, which takes minutes: with ATT_LONG=1, or ATT_GO_SPIFFE=VERSION for another than go.mod's.
# ATT_GO_SPIFFE_BIN: tests/support/spiffe/go, built.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir, bin and id_port come from job.sh and port_into
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
go=/usr/bin/go
[ -x $go ] || go=$(command -v go) || [ -n "${ATT_GO_SPIFFE_BIN:-}" ] || job_skip "no Go (package golang-go)"
packaged=/usr/share/gocode/src/github.com/spiffe/go-spiffe/v2
[ -d $packaged ] || [ -n "${ATT_GO_SPIFFE_BIN:-}${ATT_LONG:-}${ATT_GO_SPIFFE:-}" ] ||
    job_skip "no go-spiffe (package golang-github-spiffe-go-spiffe-dev, in Debian 13); the Go module with ATT_LONG=1"
job_setup
chmod 755 "$dir" "$dir/tmp" "$dir/run"
program=$dir/go-spiffe
cp -r "$ATT_SOURCE_DIR/tests/support/spiffe/go" "$dir/source"
export GOTOOLCHAIN=local GOFLAGS='' CGO_ENABLED=0
if [ -n "${ATT_GO_SPIFFE_BIN:-}" ]; then
    cp "$ATT_GO_SPIFFE_BIN" "$program"
    what="as built"
elif [ -d $packaged ] && [ -z "${ATT_GO_SPIFFE:-}" ]; then
    (cd "$dir/source" && GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$dir/cache nice "$go" build -o "$program" main.go federation.go) \
        > "$dir/tmp/build" 2>&1 || { cat "$dir/tmp/build"; job_fail "go build"; }
    what="Debian's $(dpkg-query -W -f '${Version}' golang-github-spiffe-go-spiffe-dev)"
else
    fetched() {
        cd "$dir/source" || return 1
        if [ -n "${ATT_GO_SPIFFE:-}" ]; then
            timeout 600 "$go" get "github.com/spiffe/go-spiffe/v2@$ATT_GO_SPIFFE" && timeout 600 "$go" mod tidy || return 1
        fi
        timeout 600 "$go" mod download
    }
    (fetched) > "$dir/tmp/build" 2>&1 || { cat "$dir/tmp/build"; job_skip "the module cannot be had here"; }
    (cd "$dir/source" && nice "$go" build -o "$program" .) > "$dir/tmp/build" 2>&1 || { cat "$dir/tmp/build"; job_fail "go build"; }
    what=$(awk '/go-spiffe\/v2 v/ {print $NF}' "$dir/source/go.mod")
fi
chmod 755 "$program"

# The protocol that the other tests' clients are generated from is the one that go-spiffe has.
published=$packaged/proto/spiffe/workload
[ -d "$published" ] || published=$("$go" env GOMODCACHE 2> /dev/null)/github.com/spiffe/go-spiffe/v2@$what/proto/spiffe/workload
if [ -r "$published/workload.proto" ] && command -v protoc > /dev/null && /usr/bin/python3 -c 'import google.protobuf' 2> /dev/null; then
    protoc -I "$published" --descriptor_set_out="$dir/tmp/published" "$published/workload.proto"
    protoc -I "$ATT_SOURCE_DIR/tests/support/spiffe" --descriptor_set_out="$dir/tmp/ours" "$ATT_SOURCE_DIR/tests/support/spiffe/workload.proto"
    /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/spiffe/published.py" "$dir/tmp/ours" "$dir/tmp/published" > "$dir/tmp/differs" ||
        { cat "$dir/tmp/differs"; job_fail "workload.proto is not the published one"; }
    ok "workload.proto of the tests: $(cat "$dir/tmp/differs")"
else
    echo "left out: $what has no workload.proto here, or there is no protoc"
fi

user=62001 peer=62002 other=62003 tpm_user=62004 stranger=62005
socket=$dir/run/public/api.sock
domain=spiffe://bank.example api=https://api.example
export SPIFFE_ENDPOINT_SOCKET=unix://$socket
spiffe() { timeout 90 setpriv --reuid "$1" --regid "$1" --clear-groups "$program" "${@:2}" > "$dir/tmp/got" 2> "$dir/tmp/got.err"; }
got() { tail -n 1 "$dir/tmp/got" | jq -r "$1"; }
answer() { # answer USER COMMAND…: what it says
    spiffe "$@" || { cat "$dir/tmp/got" "$dir/tmp/got.err"; job_fail "$*"; }
}
must() { # must CODE MESSAGE-PATTERN USER COMMAND…: it ends so
    local code=$1 message=$2
    shift 2
    answer "$@"
    # shellcheck disable=SC2053 # a pattern
    [[ "$(got '(.code // "none") + " " + (.message // "")')" == "$code "$message ]] ||
        { cat "$dir/tmp/got"; job_fail "$*: expected $code $message"; }
}
job_start_spiffe() { job_start "$1" setpriv --reuid "$2" --regid "$2" --clear-groups "$program" "${@:3}"; }

job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service --exporter $service; }
job_make_tpm
job_write_conf
id_port=
port_into id_port
printf 'jwt:\n  issuer: "https://127.0.0.1:%s"\n  listen: "127.0.0.1:%s"\n' "$id_port" "$id_port" >> "$dir/issuer.yaml"
status=0
trap 'status=$?; for name in watch serve own web spiffe; do job_stop $name KILL; done; set +e; (exit $status); job_cleanup' EXIT
spiffe_start_all
{
    printf 'trust_domain: bank.example\nagents:\n'
    printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:'"$(job_host_id)"'"], workload: {uid: %s}, key: %s, profile: trading, audiences: ["'$api'"]}\n' \
        alpha $user exportable peer $peer exportable other $other exportable hard $tpm_user tpm
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
for name in alpha peer other hard; do wait_for 60 job_settled $name; done
serial_of() { openssl x509 -in "$dir/state/host/agents/$1/chain.pem" -noout -serial | sed 's/serial=0*//' | tr A-F a-f; }

# ---- who is given no key ----
must PermissionDenied "*never leaves its store*PKCS#11*attestd.v1.Signer*" $tpm_user svid
must PermissionDenied "no agent's entry fits this process (notAssigned)" $stranger svid
must PermissionDenied "*notAssigned*" $stranger validate $api none
ok "go-spiffe ($what): an agent whose key is in the TPM and nobody's agent get PermissionDenied, with the reason"

# ---- X509Source ----
answered() { answer $user svid && [ "$(got .serial)" = "$(serial_of alpha)" ]; }
wait_for 30 answered
[ "$(got '[.id, .chain >= 2, .minutes <= 11] | @json')" = '["spiffe://bank.example/agent/alpha",true,true]' ] || job_fail "$(cat "$dir/tmp/got")"
job_start_spiffe watch $user watch
wait_for 30 lines watch 1
for n in 1 2 3; do
    before=$(serial_of alpha)
    ctl agent rotate alpha > /dev/null
    other_one() { [ "$(serial_of alpha)" != "$before" ] && last_is watch .serial "$(serial_of alpha)"; }
    wait_for 60 other_one || { cat "$dir/log/watch.log"; job_fail "rotation $n"; }
    last_is watch .verified true || { cat "$dir/log/watch.log"; job_fail "rotation $n: does not verify"; }
done
[ "$(jq -r .serial "$dir/log/watch.log" | sort -u | wc -l)" -ge 4 ] || { cat "$dir/log/watch.log"; job_fail "three rotations"; }
job_stop spiffed
job_start_spiffed
before=$(serial_of alpha)
ctl agent rotate alpha > /dev/null
wait_for 90 other_one || { cat "$dir/log/watch.log"; job_fail "after a restart of spiffed"; }
job_stop watch KILL
ok "FetchX509SVID; X509Source had each of three rotations, and the next one after spiffed's restart, and verifies them"

# ---- mutual TLS ----
job_start_spiffe serve $peer serve $domain/agent/alpha
wait_for 30 lines serve 1
at=127.0.0.1:$(head -n 1 "$dir/log/serve.log" | jq -r .port)
last_has() { tail -n 1 "$dir/log/serve.log" | jq -r "$1 // \"\"" | grep -q -- "$2"; }
must OK "" $user call "$at" $domain/agent/peer
[ "$(got .answer)" = "to $domain/agent/alpha: a trade" ] && [ "$(got .server)" = "$(serial_of peer)" ] || job_fail "$(cat "$dir/tmp/got")"
wait_for 30 last_has .served agent/alpha
for n in 1 2 3; do # both are rotated; the server goes on
    before=$(serial_of peer)
    ctl agent rotate peer > /dev/null
    ctl agent rotate alpha > /dev/null
    served() { answer $user call "$at" $domain/agent/peer && [ "$(got .server)" != "$(printf %s "$before")" ] && [ "$(got .server)" = "$(serial_of peer)" ]; }
    wait_for 60 served || { cat "$dir/tmp/got"; job_fail "after rotation $n"; }
done
ok "mutual TLS with go-spiffe on both ends, before and after three rotations of both, without a restart"
must error "*unexpected ID*agent/peer*" $user call "$at" $domain/agent/other
wait_for 30 last_has .refused .
must error "*bad certificate*" $other call "$at" $domain/agent/peer
wait_for 30 last_has .refused 'unexpected ID.*agent/other'
must PermissionDenied "*never leaves its store*" $tpm_user svid
must OK "" $user call "$at" $domain/agent/peer
ok "a server, and a client, with another SPIFFE ID are refused by the other end"
job_stop serve KILL

# ---- tokens and bundles ----
token() { answer $user token $api && [ "$(got .code)" = OK ]; }
wait_for 30 token || { cat "$dir/tmp/got"; job_fail "token"; }
[ "$(got '[.id, .remote, .local] | unique | join(" ")')" = $domain/agent/alpha ] || job_fail "$(cat "$dir/tmp/got")"
jwt=$(got .token)
must OK "" $tpm_user validate $api "$jwt" # an agent that has no key of its own to show
must InvalidArgument "*tokenAudience*" $user validate https://other.example "$jwt"
must InvalidArgument "*tokenSignature*" $user validate $api "${jwt%.*}.$(printf 'x%.0s' $(seq 64) | openssl base64 -A | tr '+/' '-_' | tr -d =)"
must PermissionDenied "*audienceDenied*" $user token https://other.example
answer $user bundles
kid=$(ctl --json ca jwt | jq -r '.keys[0].kid')
root=$(openssl x509 -in "$dir/issuer/ca/bundle.pem" -noout -serial | sed 's/serial=0*//' | tr A-F a-f)
[ "$(got '[.domain, .serials[0], .kids[0], .same] | @json')" = "[\"bank.example\",\"$root\",\"$kid\",true]" ] || job_fail "$(cat "$dir/tmp/got")"
ok "JWTSource, ValidateJWTSVID and jwtsvid agree; bundles of certificates and tokens, and BundleSource"

# ---- federation: the issuer's bundle endpoint (https_web), and an agent's own (https_spiffe) ----
url=https://127.0.0.1:$id_port/bundle ca=$dir/tmp/tls-root.pem known=$dir/tmp/known.json
cp "$dir/issuer/ca/tls-root.pem" "$ca"
cp "$dir/issuer/ca/bundle.pem" "$dir/tmp/roots.pem"
curl -sf --cacert "$ca" "$url" > "$known"
chmod a+r "$known" "$ca" "$dir/tmp/roots.pem"
must OK "" $stranger fetch-bundle bank.example "$url" web "$ca" # needs no identity
sequence=$(got .sequence)
expected="[\"bank.example\",[\"$root\"],[\"$kid\"],30]"
[ "$(got '[.domain, .serials, .kids, .hint] | @json')" = "$expected" ] && [ "$sequence" -gt 0 ] || job_fail "$(cat "$dir/tmp/got")"
must error "*signed by unknown authority*" $stranger fetch-bundle bank.example "$url" web "$dir/tmp/roots.pem"
must error "*unable to parse JWKS*" $stranger fetch-bundle bank.example "$url/none" web "$ca" # go-spiffe reads the body of a 404, too
must error "*contains no URI SAN*" $stranger fetch-bundle bank.example "$url" spiffe $domain/agent/peer "$known" # no SVID
job_start_spiffe own $peer serve-bundle bank.example
wait_for 30 lines own 1
own=https://127.0.0.1:$(head -n 1 "$dir/log/own.log" | jq -r .port)/
must OK "" $stranger fetch-bundle bank.example "$own" spiffe $domain/agent/peer "$known"
[ "$(got '[.domain, .serials, .kids] | @json')" = "[\"bank.example\",[\"$root\"],[\"$kid\"]]" ] || job_fail "$(cat "$dir/tmp/got")"
must error "*unexpected ID*agent/peer*" $stranger fetch-bundle bank.example "$own" spiffe $domain/agent/alpha "$known"
jq '.keys |= map(select(.use == "jwt-svid"))' "$known" > "$dir/tmp/rootless.json"
chmod a+r "$dir/tmp/rootless.json"
must error "*signed by unknown authority*" $stranger fetch-bundle bank.example "$own" spiffe $domain/agent/peer "$dir/tmp/rootless.json"
must error "*doesn't contain any IP SANs*" $stranger fetch-bundle bank.example "$own" web "$ca"
job_start_spiffe web $stranger watch-bundle bank.example "$url" web "$ca"
job_start_spiffe spiffe $stranger watch-bundle bank.example "$own" spiffe $domain/agent/peer "$known"
wait_for 30 lines web 1
wait_for 30 lines spiffe 1
ctl ca jwt-replace --withdraw > /dev/null
kid=$(ctl --json ca jwt | jq -r '.keys[0].kid')
ctl ca publish "$(ctl --json ca prepare workload --new-root | jq -r .id)" > /dev/null
for name in web spiffe; do
    wait_for 30 last_is $name '[.code, (.serials | length), (.kids | join(" "))] | @json' "[\"OK\",2,\"$kid\"]" ||
        { cat "$dir/log/$name.log"; job_fail "$name: the rotation"; }
done
[ "$(last web .sequence)" -gt "$sequence" ] || { cat "$dir/log/web.log"; job_fail "the sequence did not grow"; }
job_stop issuerd
wait_for 30 last_is web .code error
last_is web '.message | contains("connection refused")' true || { cat "$dir/log/web.log"; job_fail "the endpoint is away"; }
job_start_issuer
ok "FetchBundle and WatchBundle, by web PKI and by SPIFFE authentication (federation.NewHandler with the agent's certificate): a new root and key; other roots, another SPIFFE ID, no SVID, another status: refused"
for name in web spiffe own; do job_stop $name KILL; done
job_stop spiffed
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "go-spiffe: all held"
