#!/usr/bin/env bash
# SPIRE itself as the other trust domain: its server and agent (other.test) beside our issuer and a host (bank.example, with
# swtpm, keyd, whod, attestd, tokend, spiffed), federated by both profiles in both directions: ours over https_web and, with
# nginx as an agent whose key is in the TPM, over https_spiffe. Each refuses a wrong SPIFFE ID and a wrong certificate of the
# other's endpoint; each has the other's roots and keys of tokens, also after they were rotated; agents and SPIRE's
# workloads do mutual TLS with what each has from its own Workload API (OpenSSL by Python, go-spiffe), and judge each
# other's tokens; who does not federate, and a third trust domain, is refused. Fetching and building SPIRE takes half an
# hour of a processor, so this runs with ATT_LONG=1, or with ATT_SPIRE=FOLDER of spire-server and spire-agent.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir and bin come from job.sh, ports from port_into, the rest from spiffe.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
version=v1.13.3 go_spiffe=$ATT_SOURCE_DIR/tests/support/spiffe/go
[ -n "${ATT_LONG:-}${ATT_SPIRE:-}" ] || job_skip "fetches and builds SPIRE: ATT_LONG=1"
[ -n "${ATT_SPIRE:-}" ] || command -v go > /dev/null || job_skip "no Go"
nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || job_skip "no nginx (package nginx-light)"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
engine=$(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
spiffe_setup client.py "cryptography, jwt" workload.proto signer.proto health.proto
cp "$support/federation.py" "$stubs/"
chmod a+r "$stubs/federation.py"
spire=${ATT_SPIRE:-$dir/spire-bin}
if [ -z "${ATT_SPIRE:-}" ]; then
    fetched() { # as a tool of a module: "go install …@VERSION" wants the list of its versions, which not every proxy has
        mkdir -p "$dir/spire-source" && cd "$dir/spire-source" && go mod init attestd/tests/spire &&
            timeout 1200 go get -tool "github.com/spiffe/spire/cmd/spire-server@$version" "github.com/spiffe/spire/cmd/spire-agent@$version" &&
            GOBIN=$spire timeout 7200 nice go install -ldflags='-s -w' github.com/spiffe/spire/cmd/spire-server github.com/spiffe/spire/cmd/spire-agent
    }
    (fetched) > "$dir/tmp/build" 2>&1 || { tail -n 5 "$dir/tmp/build"; job_skip "SPIRE cannot be had here"; }
fi
program= # our own client of go-spiffe, where it can be built
if [ -n "${ATT_GO_SPIFFE_BIN:-}" ]; then
    program=$dir/go-spiffe
    cp "$ATT_GO_SPIFFE_BIN" "$program"
elif command -v go > /dev/null; then
    cp -r "$go_spiffe" "$dir/source"
    (cd "$dir/source" && CGO_ENABLED=0 nice go build -o "$dir/go-spiffe" .) > "$dir/tmp/build" 2>&1 || { tail -n 5 "$dir/tmp/build"; job_fail "go build"; }
    program=$dir/go-spiffe
fi
alpha=62001 lone=62002 trader=62021 loner=62022
port_into id_port
port_into spiffe_port
port_into spire_port
port_into endpoint_port
server_socket=$dir/spire/server.sock agent_socket=$dir/spire/public/api.sock
mkdir -p "$dir/spire/public"
chmod 755 "$dir/spire" "$dir/spire/public"

# ---- SPIRE -----------------------------------------------------------------------------------------------
server() { timeout 60 "$spire/spire-server" "$@" -socketPath "$server_socket"; }
workload() { # workload USER COMMAND…: of SPIRE's Workload API
    local uid=$1
    shift
    timeout 60 setpriv --reuid "$uid" --regid "$uid" --clear-groups "$spire/spire-agent" api "$@" -socketPath "$agent_socket" -timeout 20s
}
# spire_conf ENDPOINT-PROFILE OUR-URL OUR-PROFILE
spire_conf() {
    cat > "$dir/spire/server.conf" << END
server {
    trust_domain = "other.test"
    bind_address = "127.0.0.1"
    bind_port = "$spire_port"
    socket_path = "$server_socket"
    data_dir = "$dir/spire/data"
    log_level = "DEBUG"
    federation {
        bundle_endpoint {
            address = "127.0.0.1"
            port = $endpoint_port
            refresh_hint = "1m"
            profile $1
        }
        federates_with "bank.example" {
            bundle_endpoint_url = "$2"
            bundle_endpoint_profile $3
        }
    }
}
plugins {
    DataStore "sql" {
        plugin_data {
            database_type = "sqlite3"
            connection_string = "$dir/spire/data/datastore.sqlite3"
        }
    }
    NodeAttestor "join_token" {
        plugin_data {}
    }
    KeyManager "disk" {
        plugin_data {
            keys_path = "$dir/spire/data/keys.json"
        }
    }
}
END
}
spire_start() {
    SSL_CERT_FILE=$dir/tmp/web-roots.pem job_start spire "$spire/spire-server" run -config "$dir/spire/server.conf"
    wait_for 60 server healthcheck
}
spire_agent_start() {
    server bundle show > "$dir/spire/bootstrap.pem"
    cat > "$dir/spire/agent.conf" << END
agent {
    trust_domain = "other.test"
    server_address = "127.0.0.1"
    server_port = "$spire_port"
    socket_path = "$agent_socket"
    data_dir = "$dir/spire/agent"
    trust_bundle_path = "$dir/spire/bootstrap.pem"
    log_level = "DEBUG"
}
plugins {
    NodeAttestor "join_token" {
        plugin_data {}
    }
    KeyManager "disk" {
        plugin_data {
            directory = "$dir/spire/agent"
        }
    }
    WorkloadAttestor "unix" {
        plugin_data {}
    }
}
END
    mkdir -p "$dir/spire/agent"
    job_start spire-agent "$spire/spire-agent" run -config "$dir/spire/agent.conf" \
        -joinToken "$(server token generate -spiffeID spiffe://other.test/host | sed -n 's/^Token: //p')"
    wait_for 60 test -S "$agent_socket"
}
spire_entry() { # spire_entry NAME USER [OPTION…]
    server entry create -parentID spiffe://other.test/host -spiffeID "spiffe://other.test/$1" -selector "unix:uid:$2" -x509SVIDTTL 600 \
        "${@:3}" > "$dir/tmp/entry" 2>&1 || { cat "$dir/tmp/entry"; job_fail "spire-server entry create $1"; }
}
spire_refresh() { server federation refresh -id bank.example > "$dir/tmp/refresh" 2>&1; }
spire_refused() { # spire_refused PATTERN: it looks at our endpoint, and says that
    ! spire_refresh || job_fail "SPIRE took it; expected $1"
    grep -q -- "$1" "$dir/tmp/refresh" || { cat "$dir/tmp/refresh"; job_fail "SPIRE: expected $1"; }
}
ours_at_spire() { server bundle list -id spiffe://bank.example -format spiffe; }

# ---- ours ------------------------------------------------------------------------------------------------
fed() { ctl --json federation list | jq -r ".trustDomains[0].$1"; }
fed_is() { [ "$(fed "$1")" = "$2" ]; }
section() {
    sed -i '/^federation:/,$d' "$dir/issuer.yaml"
    printf 'federation:\n  allow: [127.0.0.0/8]\n  refresh_min: 1s\n  refresh_max: 2s\n  trust_domains:\n    - name: other.test\n      url: "https://127.0.0.1:%s"\n%s\n' \
        "$endpoint_port" "$1" >> "$dir/issuer.yaml"
}
federates() { # federates LINES: the section with SPIRE's trust domain, and the issuer has read it
    local before
    section "$1"
    before=$(grep -cE 'event=reload\.(done|failed)' "$dir/log/issuerd.log" || true)
    kill -HUP "$(job_pid issuerd)"
    more() { [ "$(grep -cE 'event=reload\.(done|failed)' "$dir/log/issuerd.log")" -gt "$before" ]; }
    wait_for 30 more
    grep -E 'event=reload\.(done|failed)' "$dir/log/issuerd.log" | tail -n 1 | grep -q reload.done || { tail -n 5 "$dir/log/issuerd.log"; job_fail "reload"; }
}
by_spiffe() { printf '      profile: https_spiffe\n      spiffe_id: "%s"\n      bundle_file: %s' "$1" "$2"; }
refresh_is() { # refresh_is REASON ("": it is taken)
    if ctl --json federation refresh other.test > "$dir/tmp/refresh" 2>&1; then
        [ -z "$1" ] || { cat "$dir/tmp/refresh"; job_fail "taken, expected $1"; }
    else
        [ -n "$1" ] && grep -q "$1" "$dir/tmp/refresh" || { cat "$dir/tmp/refresh"; job_fail "expected \"$1\""; }
    fi
}
got() { jq -r "$1" "$dir/tmp/got"; }
must() { # must CODE PATTERN USER COMMAND…: at our Workload API
    local code=$1 pattern=$2
    shift 2
    as "$@" > "$dir/tmp/got" 2> "$dir/tmp/got.err" || { cat "$dir/tmp/got.err"; job_fail "$*"; }
    if [ "$(got .code)" != "$code" ] || [[ "$(got '.message // ""')" != *$pattern* ]]; then
        cat "$dir/tmp/got"
        job_fail "$*: expected $code $pattern"
    fi
}
job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service --exporter $service; }
status=0
ends() {
    local name
    for name in serve x509 jwt nginx spire-agent spire; do job_stop $name KILL; done
}
trap 'status=$?; set +e; ends; (exit $status); job_cleanup' EXIT
job_make_tpm
job_write_conf
printf 'jwt:\n  issuer: "https://127.0.0.1:%s"\n  listen: "127.0.0.1:%s"\n' "$id_port" "$id_port" >> "$dir/issuer.yaml"
section "$(by_spiffe spiffe://other.test/spire/server "$dir/tmp/other.json")" # its folder is the sandbox's from the start on
spiffe_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"

# ---- their endpoint by https_spiffe, ours by https_web ----
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/web.key" -out "$dir/tmp/web.pem" -days 2 \
    -subj /CN=web -addext "subjectAltName=IP:127.0.0.1" > "$dir/tmp/openssl" 2>&1
cp "$dir/tmp/web.pem" "$dir/tmp/web-roots.pem" # not ours
web_url=https://127.0.0.1:$id_port/bundle
mkdir -p "$dir/spire/data"
spire_conf '"https_spiffe" {}' "$web_url" '"https_web" {}'
spire_start
spire_refused "certificate signed by unknown authority"
job_stop spire
cp "$dir/issuer/ca/tls-root.pem" "$dir/tmp/web-roots.pem"
spire_start
spire_refresh || { cat "$dir/tmp/refresh"; job_fail "spire-server federation refresh"; }
ours_at_spire > "$dir/tmp/at-spire"
root_of() { openssl x509 -in "$1" -outform DER | base64 -w 0; }
kid_of() { ctl --json ca jwt | jq -r '.keys[0].kid'; }
kid=$(kid_of)
jq -e --arg root "$(root_of "$dir/issuer/ca/bundle.pem")" --arg kid "$kid" \
    '[.keys[] | select(.use == "x509-svid") | .x5c[0]] == [$root] and [.keys[] | select(.use == "jwt-svid") | .kid] == [$kid]' \
    "$dir/tmp/at-spire" > /dev/null || { cat "$dir/tmp/at-spire"; job_fail "SPIRE has something else"; }
ok "SPIRE $("$spire/spire-server" --version 2>&1 | head -n 1): our bundle endpoint by https_web, root and key of tokens as they are; refused with another root for its TLS"

fed_is reason bundleFile || job_fail "a bundle_file that is not there yet: $(fed reason)"
server bundle show -format spiffe > "$dir/tmp/other.json"
federates "$(by_spiffe spiffe://other.test/spire/agent "$dir/tmp/other.json")"
refresh_is endpointId
begins() { # begins REASON JQ-FILTER FILE: anew, from this
    jq "$2" "$3" > "$dir/tmp/begin.json"
    federates "$(by_spiffe spiffe://other.test/spire/server "$dir/tmp/begin.json")"
    ctl federation reset other.test > /dev/null
    refresh_is "$1"
}
begins bundleOwn . "$dir/tmp/at-spire" # our own trust domain's
begins bundleEmpty '.keys |= map(select(.use == "jwt-svid"))' "$dir/tmp/other.json"
/usr/bin/python3 "$stubs/federation.py" jwks "$dir/tmp/web.pem" > "$dir/tmp/web.json"
begins endpointTls . "$dir/tmp/web.json"
begins "" . "$dir/tmp/other.json"
wait_for 30 fed_is source endpoint
ctl --json federation show other.test > "$dir/tmp/show"
their_kid=$(jq -r '.keys[] | select(.use == "jwt-svid") | .kid' "$dir/tmp/other.json")
sha_of() { base64 -d | sha256sum | cut -d' ' -f1; }
[ "$(jq -r '.roots[0].sha256' "$dir/tmp/show")" = "$(jq -r '.keys[] | select(.use == "x509-svid") | .x5c[0]' "$dir/tmp/other.json" | sha_of)" ] &&
    [ "$(jq -r '.keys[0].kid' "$dir/tmp/show")" = "$their_kid" ] && [ "$(fed roots)" = 1 ] && [ "$(fed keys)" = 1 ] ||
    { cat "$dir/tmp/show"; job_fail "we have something else of SPIRE's"; }
ok "SPIRE's endpoint by https_spiffe, root and key as they are; refused as another SPIFFE ID, and when we begin with our own bundle, with none of its roots, or with another root"

# ---- agents and workloads ----
spire_agent_start
spire_entry trader $trader -federatesWith spiffe://bank.example
spire_entry loner $loner
nginx_sha=$(sha256sum "$(readlink -f "$nginx")" | cut -d' ' -f1)
{
    printf 'trust_domain: bank.example\nagents:\n'
    printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:'"$(job_host_id)"'"], workload: %s, key: %s, profile: trading%s}\n' \
        alpha "{uid: $alpha}" exportable ", audiences: [trades], federates_with: [other.test]" \
        lone "{uid: $lone}" exportable ", audiences: [trades]" \
        endpoint "[{uid: 0, exe_sha256: [$nginx_sha]}, {uid: $(id -u www-data), exe_sha256: [$nginx_sha]}]" tpm ""
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
for name in alpha lone endpoint; do wait_for 60 job_settled $name; done
follow x509 $alpha bundles
follow jwt $alpha jwt-bundles
both='["spiffe://bank.example","spiffe://other.test"]'
wait_for 60 last_is x509 '.bundles | keys | @json' "$both"
wait_for 60 last_is jwt '.kids["spiffe://other.test"] | join(" ")' "$their_kid"

ours() { # ours NAME USER: FetchX509SVID into tmp/NAME
    rm -rf "$dir/tmp/$1"
    install -d -o "$2" "$dir/tmp/$1"
    PYTHONDONTWRITEBYTECODE=1 timeout 60 setpriv --reuid "$2" --regid "$2" --clear-groups \
        /usr/bin/python3 "$stubs/federation.py" fetch "$stubs" "$socket" "$dir/tmp/$1"
}
theirs() { # theirs NAME USER: the same of SPIRE's
    rm -rf "$dir/tmp/$1"
    install -d -o "$2" "$dir/tmp/$1"
    workload "$2" fetch x509 -write "$dir/tmp/$1" > "$dir/tmp/fetch" 2>&1 || return 1
    (cd "$dir/tmp/$1" && mv svid.0.pem chain.pem && mv svid.0.key key.pem && mv bundle.0.pem own.pem &&
        { [ ! -e federated_bundle.0.0.pem ] || mv federated_bundle.0.0.pem fed-bank.example.pem; })
}
tls() { # tls SERVER ITS-ROOTS CLIENT ITS-ROOTS: files of tmp
    PYTHONDONTWRITEBYTECODE=1 timeout 60 /usr/bin/python3 "$stubs/federation.py" mtls "$dir/tmp/$1" "$dir/tmp/$2" "$dir/tmp/$3" "$dir/tmp/$4" > "$dir/tmp/tls"
}
tls_is() { # tls_is CLIENT-ID SERVER-ID SERVER …
    tls "${@:3}"
    [ "$(jq -r '.client + " " + .server' "$dir/tmp/tls")" = "$1 $2" ] || { cat "$dir/tmp/tls"; job_fail "mutual TLS: ${*:3}"; }
}
tls_refused() { # tls_refused SIDE SERVER …: that side verifies and refuses, or the other has its alert
    local other=server
    [ "$1" = client ] || other=client
    tls "${@:2}"
    jq -e --arg side "$1" --arg other "$other" '.refused // "" | test("^\($side): .*CERTIFICATE_VERIFY_FAILED|^\($other): .*ALERT_UNKNOWN_CA")' \
        "$dir/tmp/tls" > /dev/null || { cat "$dir/tmp/tls"; job_fail "expected a refusal by $1: ${*:2}"; }
}
both_ways() {
    tls_is spiffe://other.test/trader spiffe://bank.example/agent/alpha alpha alpha/fed-other.test.pem trader trader/fed-bank.example.pem
    tls_is spiffe://bank.example/agent/alpha spiffe://other.test/trader trader trader/fed-bank.example.pem alpha alpha/fed-other.test.pem
}
ours alpha $alpha
ours lone $lone
wait_for 60 theirs trader $trader
wait_for 60 theirs loner $loner
[ -e "$dir/tmp/alpha/fed-other.test.pem" ] && [ -e "$dir/tmp/trader/fed-bank.example.pem" ] || job_fail "no federated bundle"
[ ! -e "$dir/tmp/lone/fed-other.test.pem" ] && [ ! -e "$dir/tmp/loner/fed-bank.example.pem" ] || job_fail "a bundle for who does not federate"
both_ways
ok "mutual TLS, TLS 1.3, both ways between a workload of SPIRE and an agent of ours, by what each Workload API gave"
tls_refused server lone lone/own.pem trader trader/fed-bank.example.pem
tls_refused client trader trader/fed-bank.example.pem lone lone/own.pem
tls_refused server loner loner/own.pem alpha alpha/fed-other.test.pem
tls_refused client alpha alpha/fed-other.test.pem loner loner/own.pem
mkdir "$dir/tmp/third"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/third.key" -out "$dir/tmp/third/own.pem" -days 2 \
    -subj /CN=third -addext "subjectAltName=URI:spiffe://third.example" -addext keyUsage=critical,keyCertSign > "$dir/tmp/openssl" 2>&1
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/third/key.pem" -subj /CN=third -out "$dir/tmp/third.csr" > "$dir/tmp/openssl" 2>&1
printf 'subjectAltName=URI:spiffe://third.example/x\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n' > "$dir/tmp/third.ext"
openssl x509 -req -in "$dir/tmp/third.csr" -CA "$dir/tmp/third/own.pem" -CAkey "$dir/tmp/third.key" -CAcreateserial -days 2 \
    -extfile "$dir/tmp/third.ext" -out "$dir/tmp/third/chain.pem" 2> "$dir/tmp/openssl"
tls_refused server alpha alpha/fed-other.test.pem third alpha/own.pem
tls_refused server trader trader/fed-bank.example.pem third trader/own.pem
ok "who does not federate has no bundle and refuses the other; a third trust domain is refused by both"

# ---- tokens ----
token_of() { must OK "" "$1" token trades && got .token; }
their_token() { workload "$1" fetch jwt -audience trades -output json | jq -r '.[0].svids[0].svid'; }
at_spire() { workload "$1" validate jwt -audience "$2" -svid "$3" -output json > "$dir/tmp/validate" 2>&1; }
spire_refuses() { # spire_refuses PATTERN USER AUDIENCE TOKEN
    ! at_spire "${@:2}" || { cat "$dir/tmp/validate"; job_fail "SPIRE takes it; expected $1"; }
    grep -q -- "$1" "$dir/tmp/validate" || { cat "$dir/tmp/validate"; job_fail "SPIRE: expected $1"; }
}
token=$(token_of $alpha)
at_spire $trader trades "$token" || { cat "$dir/tmp/validate"; job_fail "SPIRE refuses our token"; }
[ "$(jq -r .spiffe_id "$dir/tmp/validate")" = spiffe://bank.example/agent/alpha ] || { cat "$dir/tmp/validate"; job_fail "another subject"; }
spire_refuses "SVID is not valid" $trader other "$token"
spire_refuses "no keys found for trust domain" $loner trades "$token"
spire_refuses "SVID is not valid" $trader trades "${token%.*}.$(printf 'x%.0s' $(seq 64) | openssl base64 -A | tr '+/' '-_' | tr -d =)"
theirs_is=$(their_token $trader)
must OK "" $alpha validate trades "$theirs_is"
[ "$(got .id)" = spiffe://other.test/trader ] || { cat "$dir/tmp/got"; job_fail "another subject"; }
must INVALID_ARGUMENT tokenAudience $alpha validate other "$theirs_is"
must INVALID_ARGUMENT tokenDomain $lone validate trades "$theirs_is"
must INVALID_ARGUMENT tokenSignature $alpha validate trades "${theirs_is%.*}.${token##*.}"
ok "tokens: each judges the other's by the federated keys; another audience, another signature, and at who does not federate: refused"

# ---- go-spiffe on both ends, each at its own Workload API ----
client_of() { # client_of SOCKET USER COMMAND…
    SPIFFE_ENDPOINT_SOCKET=unix://$1 timeout 90 setpriv --reuid "$2" --regid "$2" --clear-groups "$program" "${@:3}" > "$dir/tmp/got" 2> "$dir/tmp/got.err" ||
        { cat "$dir/tmp/got" "$dir/tmp/got.err"; job_fail "${*:2}"; }
}
serves() { # serves SOCKET USER PEER-ID: $at is its address
    job_stop serve KILL
    : > "$dir/log/serve.log"
    SPIFFE_ENDPOINT_SOCKET=unix://$1 job_start serve setpriv --reuid "$2" --regid "$2" --clear-groups "$program" serve "$3"
    wait_for 30 lines serve 1
    at=127.0.0.1:$(head -n 1 "$dir/log/serve.log" | jq -r .port)
}
calls() { # calls CODE PATTERN SOCKET USER PEER-ID
    client_of "$3" "$4" call "$at" "$5"
    # shellcheck disable=SC2053 # a pattern
    [ "$(got .code)" = "$1" ] && [[ "$(got '.message // ""')" == $2 ]] || { cat "$dir/tmp/got"; job_fail "call: expected $1 $2"; }
}
go_both_ways() {
    serves "$agent_socket" $trader spiffe://bank.example/agent/alpha
    calls OK "" "$socket" $alpha spiffe://other.test/trader
    serves "$socket" $alpha spiffe://other.test/trader
    calls OK "" "$agent_socket" $trader spiffe://bank.example/agent/alpha
}
if [ -n "$program" ]; then
    go_both_ways
    calls error "*no X.509 bundle for trust domain*" "$agent_socket" $loner spiffe://bank.example/agent/alpha
    serves "$agent_socket" $trader spiffe://bank.example/agent/alpha
    calls error '*no X.509 bundle for trust domain*' "$socket" $lone spiffe://other.test/trader
    calls error '*unexpected ID*' "$socket" $alpha spiffe://other.test/loner
    ok "go-spiffe at both Workload APIs: both ways; refused without a federated bundle, and with another SPIFFE ID"
else
    echo "not tried: go-spiffe (no Go)"
fi

# ---- they rotate ----
authority() { server localauthority "$@" -output json; }
id_in() { jq -r '(.prepared_authority // .activated_authority // .).authority_id' "$dir/tmp/authority"; }
old_of() { authority "$1" show | jq -r '.active.authority_id'; }
old_x509=$(old_of x509) old_jwt=$(old_of jwt)
for kind in x509 jwt; do
    authority $kind prepare > "$dir/tmp/authority"
    new=$(id_in)
    declare "new_$kind=$new"
done
began=$(date +%s%3N)
wait_for 30 last_is x509 '.roots["spiffe://other.test"]' 2
took=$(($(last x509 .ms) - began))
# shellcheck disable=SC2154 # declared above
wait_for 30 last_is jwt ".kids[\"spiffe://other.test\"] | index(\"$new_jwt\") != null" true
# shellcheck disable=SC2154
authority x509 activate -authorityID "$new_x509" > "$dir/tmp/authority"
authority jwt activate -authorityID "$new_jwt" > "$dir/tmp/authority"
authority x509 taint -authorityID "$old_x509" > "$dir/tmp/authority"
newly_signed() { # SPIRE renews what a tainted authority signed: the old root alone is not enough any more
    theirs trader $trader && ! openssl verify -CAfile "$dir/spire/bootstrap.pem" "$dir/tmp/trader/chain.pem"
}
wait_for 60 newly_signed
ours alpha $alpha
both_ways
authority x509 revoke -authorityID "$old_x509" > "$dir/tmp/authority"
authority jwt taint -authorityID "$old_jwt" > "$dir/tmp/authority"
authority jwt revoke -authorityID "$old_jwt" > "$dir/tmp/authority"
wait_for 30 last_is x509 '.roots["spiffe://other.test"]' 1
wait_for 30 last_is jwt '.kids["spiffe://other.test"] | join(" ")' "$new_jwt"
must INVALID_ARGUMENT tokenKid $alpha validate trades "$theirs_is"
new_token() { theirs_is=$(their_token $trader) && must OK "" $alpha validate trades "$theirs_is"; }
wait_for 60 new_token
ours alpha $alpha
both_ways
ok "SPIRE's new authorities reach an agent's stream ($took ms after prepare, looked for every 2 s), and what is revoked there leaves it; the token of before is refused, TLS holds at each step"

# ---- we rotate, and our endpoint becomes https_spiffe: nginx, an agent whose key is in the TPM ----
if [ -e "$engine" ]; then
    key="engine:pkcs11:pkcs11:token=attestd;object=agent;type=private" cnf=openssl-engine.cnf
else
    key=$ATT_SOURCE_DIR/scripts/pkcs11/agent-key.pem cnf=openssl-agent.cnf
fi
sed "s,@ATT_PKCS11_DIR@,$(dirname "$module")," "$ATT_SOURCE_DIR/scripts/pkcs11/$cnf" > "$dir/openssl.cnf"
cat > "$dir/nginx.conf" << END
daemon off;
user www-data;
worker_processes 1;
error_log $dir/log/nginx-error.log info;
pid $dir/nginx.ours;
env P11_KIT_SERVER_ADDRESS;
env OPENSSL_CONF;
events {}
http {
    access_log off;
    client_body_temp_path $dir/tmp/body; proxy_temp_path $dir/tmp/proxy; fastcgi_temp_path $dir/tmp/fastcgi;
    uwsgi_temp_path $dir/tmp/uwsgi; scgi_temp_path $dir/tmp/scgi;
    server {
        listen 127.0.0.1:$spiffe_port ssl;
        ssl_certificate $dir/state/host/agents/endpoint/chain.pem;
        ssl_certificate_key "$key";
        location = /bundle {
            proxy_pass https://127.0.0.1:$id_port/bundle;
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_verify off; # nginx compares names alone, and this certificate has an address
        }
    }
}
END
spiffe_url=https://127.0.0.1:$spiffe_port/bundle
P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock OPENSSL_CONF=$dir/openssl.cnf job_start nginx "$nginx" -p "$dir" -c "$dir/nginx.conf"
proxied() { curl -sf -m 20 --insecure "$spiffe_url"; }
wait_for 30 proxied
proxied | server bundle set -format spiffe -id spiffe://bank.example > "$dir/tmp/set" 2>&1 || { cat "$dir/tmp/set"; job_fail "spire-server bundle set"; }
at_spire_is() { # at_spire_is ROOTS KID
    ours_at_spire | jq -e --arg kid "$2" --argjson roots "$1" \
        '([.keys[] | select(.use == "x509-svid")] | length) == $roots and [.keys[] | select(.use == "jwt-svid") | .kid] == [$kid]'
}
at_spire_is 1 "$kid" > /dev/null || { ours_at_spire; job_fail "spire-server bundle set"; }
job_stop spire
spire_conf '"https_spiffe" {}' "$spiffe_url" '"https_web" {}'
spire_start
spire_refused "maybe use https_spiffe instead"
job_stop spire
spire_conf '"https_spiffe" {}' "$spiffe_url" '"https_spiffe" { endpoint_spiffe_id = "spiffe://bank.example/agent/alpha" }'
spire_start
spire_refused 'unexpected ID "spiffe://bank.example/agent/endpoint"'
job_stop spire
serving=$(printf '{\n serving_cert_file {\n  cert_file_path = "%s"\n  key_file_path = "%s"\n  file_sync_interval = "1h"\n }\n}' "$dir/tmp/web.pem" "$dir/tmp/web.key")
spire_conf "\"https_web\" $serving" "$spiffe_url" '"https_spiffe" { endpoint_spiffe_id = "spiffe://bank.example/agent/endpoint" }'
spire_start
spire_refresh || { cat "$dir/tmp/refresh"; job_fail "SPIRE at our endpoint by https_spiffe"; }
ok "SPIRE takes our bundle from an agent's endpoint by https_spiffe; by https_web, and as another SPIFFE ID's, it refuses it"

ctl ca jwt-replace --withdraw > /dev/null
kid_new=$(kid_of)
ctl --json ca prepare workload --new-root > "$dir/tmp/prepare"
generation=$(jq -r .id "$dir/tmp/prepare")
ctl ca publish "$generation" > /dev/null
began=$(date +%s)
wait_for 60 at_spire_is 2 "$kid_new"
took=$(($(date +%s) - began))
two_there() { theirs trader $trader && [ "$(grep -c BEGIN "$dir/tmp/trader/fed-bank.example.pem")" = 2 ]; }
wait_for 60 two_there
spire_refuses "SVID is not valid" $trader trades "$token"
token=$(token_of $alpha)
at_spire $trader trades "$token" || { cat "$dir/tmp/validate"; job_fail "SPIRE refuses a token of the new key"; }
ctl ca activate "$generation" --force > /dev/null
ctl agent rotate alpha > /dev/null
wait_for 60 job_settled alpha
ours alpha $alpha
both_ways
[ -z "$program" ] || go_both_ways
ok "our new root and key reach SPIRE by themselves within $took s (it looks every 15 s) and its workload; the withdrawn key's token is refused, a certificate under the new root is taken"

# ---- their endpoint by https_web ----
federates "      ca_file: $dir/issuer/ca/tls-root.pem"
refresh_is endpointTls
federates "      ca_file: $dir/tmp/web.pem"
refresh_is ""
fed_is profile https_web && fed_is roots 1 || job_fail "$(ctl --json federation list)"
must OK "" $alpha validate trades "$(their_token $trader)"
ok "SPIRE's endpoint by https_web; refused under other roots"
job_stop spire
wait_for 30 fed_is reason endpointAway
must OK "" $alpha validate trades "$(their_token $trader || echo "$theirs_is")"
ok "SPIRE's server away: what is known stays"
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
job_stop tokend
echo "SPIRE: all held"
