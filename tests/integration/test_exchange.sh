#!/usr/bin/env bash
# attestctl token --exchange with real processes: JWT-SVIDs of a real issuer for tokens of an OAuth server made of
# oauthlib, which verifies them with python3-jwt by what the issuer publishes. What is refused, by whom and why; then
# the three grants, and a file that is kept fresh.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin, port and the ports come from job.sh and port_into
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
/usr/bin/python3 -c 'import oauthlib, cryptography, jwt' 2> /dev/null || job_skip "no python3-oauthlib, python3-jwt"
job_setup
ok() { echo "ok: $*"; }
job_make_tpm
job_write_conf
id_port='' oauth_port=''
port_into id_port
port_into oauth_port
api=https://api.example
cat >> "$dir/issuer.yaml" << END
jwt:
  issuer: "https://127.0.0.1:$id_port"
  listen: "127.0.0.1:$id_port"
END
job_start_all
status=0
keeper=
trap 'status=$?; [ -z "$keeper" ] || kill -s KILL $keeper; job_stop oauth KILL; set +e; (exit $status); job_cleanup' EXIT
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: alpha, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: 62001}, key: tpm,
     profile: trading, audiences: [ "$api", sts.example ]}
END
ctl entry apply -f "$dir/agents.yaml" > /dev/null
wait_for 60 job_settled alpha

serve() { # serve [VERSION]: of TLS
    OAUTH_TLS=${1:-} job_start oauth /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/oauth/server.py" "$oauth_port" \
        "$dir/oauth.pem" "$dir/oauth.key" "https://127.0.0.1:$id_port" "$dir/issuer/ca/tls-root.pem" "$api"
    wait_for 30 serving
}
serving() { (exec 3<> "/dev/tcp/127.0.0.1/$oauth_port") 2> /dev/null; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=oauth -keyout "$dir/oauth.key" \
    -out "$dir/oauth.pem" -addext subjectAltName=IP:127.0.0.1 2> /dev/null
serve
requests() { grep -c "^/$1 " "$dir/log/oauth.log" || true; }

# profile PATH [LINE…]: for that path of the server; a later line of the same key takes the place of ours
profile() {
    local at=$1 line
    shift
    {
        printf 'endpoint: "https://127.0.0.1:%s/%s"\ngrant: token-exchange\naudience: "%s"\n' "$oauth_port" "$at" "$api"
        printf 'ca_file: "%s"\ntimeout: 5s\n' "$dir/oauth.pem"
    } > "$dir/p.yaml"
    for line in "$@"; do
        sed -i "/^${line%%:*}:/d" "$dir/p.yaml"
        [ "${line#*:}" = "" ] || echo "$line" >> "$dir/p.yaml"
    done
}
out=$dir/tmp/token
echo untouched > "$out"
refused() { # refused PATTERN [CODE [kept]]: nothing on standard output, the file as it was, exit code 1; kept: as it is now
    local code=0
    [ -z "${3:-}" ] || echo untouched > "$out"
    ctl token alpha --exchange "$dir/p.yaml" --out "$out" > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
    # shellcheck disable=SC2053 # a pattern
    if [ $code != "${2:-1}" ] || [ -s "$dir/tmp/out" ] || [[ "$(cat "$dir/tmp/err")" != *$1* ]] ||
        [ "$(cat "$out")" != untouched ]; then
        cat "$dir/tmp/err" "$dir/p.yaml"
        job_fail "expected $1, exit ${2:-1}, found exit $code"
    fi
    ! grep -q 'eyJ' "$dir/tmp/err" || job_fail "a token in an error"
}

# ---- refused before anything is sent ----
profile token "endpoint: \"http://127.0.0.1:$oauth_port/token\""
refused "p.yaml:5: endpoint: expected https://"
profile token "audience: https://other.example"
refused audienceDenied
profile token "grant: client-assertion"
refused "client_id: required by the grant"
profile token "ca_file:"
refused issuerTls
profile token "endpoint: \"https://localhost:$oauth_port/token\""
refused issuerTls
[ "$(requests token)" = 0 ] || job_fail "something was sent"
ok "http, an audience that the entry does not allow, no client id, a server that is not known, another's name: nothing is sent"

# ---- refused by the server ----
profile token "audience: sts.example"
refused "invalid_grant: *status 400: *udience"
profile late/token
refused "invalid_grant: *Signature has expired"
profile other/token
refused "invalid_grant: *Invalid issuer"
profile token "grant: client-assertion" "client_id: somebody"
refused "invalid_client: *status 401: no such client"
profile token "subject_token_type: urn:ietf:params:oauth:token-type:saml2"
refused "invalid_request: *subject_token_type"
ok "another audience, an old one, another issuer, another client, another type of token: the server's own word"

# ---- answers that are none ----
profile redirect
refused redirect:
# Four: where the client was not known, a JWT-SVID from attestd's memory was tried once more with a new one.
[ "$(requests token)" = 4 ] || job_fail "a redirect was followed: $(requests token)"
while read -r at pattern; do
    profile "$at"
    refused "$pattern"
done << 'END'
huge the answer has more than 65536 bytes
none answerToken: *expected access_token
html answerForm:
dpop answerType:
lines answerToken:
over answerLifetime:
busy answerStatus: *status 503
echo invalid_grant: *status 400: \?\[31mbad \[...\]
END
profile slow "timeout: 1s"
refused "https://127.0.0.1:$oauth_port/slow"
profile token "endpoint: \"https://127.0.0.1:1/token\""
refused "https://127.0.0.1:1/token" 3
ok "a redirect, answers that are too long, without a token, no JSON, of another type, slow; what repeats the token is not shown"

# ---- granted ----
whoami() { curl -sS --cacert "$dir/oauth.pem" -H "Authorization: Bearer $1" "https://127.0.0.1:$oauth_port/whoami"; }
granted() { # granted GRANT SCOPE: and the server knows whose it is
    ctl token alpha --exchange "$dir/p.yaml" > "$dir/tmp/got" || job_fail "$1"
    whoami "$(cat "$dir/tmp/got")" > "$dir/tmp/who"
    [ "$(jq -r '.sub + " " + .grant + " " + .scope' "$dir/tmp/who")" = "spiffe://bank.example/agent/alpha $1 $2" ] ||
        job_fail "$(cat "$dir/tmp/who")"
}
profile token "fields: { scope: \"read & write=ü\" }"
granted urn:ietf:params:oauth:grant-type:token-exchange "read & write=ü"
profile token "body: json" "fields: { scope: a }"
granted urn:ietf:params:oauth:grant-type:token-exchange a
profile token "grant: jwt-bearer" "fields: { scope: a }"
granted urn:ietf:params:oauth:grant-type:jwt-bearer a
profile token "grant: client-assertion" "client_id: robot" "fields: { scope: a }"
granted client_credentials a
ctl --json token alpha --exchange "$dir/p.yaml" > "$dir/tmp/got"
left=$(($(date -d "$(jq -r .expiresAt "$dir/tmp/got")" +%s) - $(date +%s)))
[ $left -gt 500 ] && [ $left -le 600 ] || job_fail "expiresAt: $left"
ctl token alpha --exchange "$dir/p.yaml" --out "$out" > "$dir/tmp/out"
[ "$(stat -c %a "$out")" = 600 ] && whoami "$(cat "$out")" > "$dir/tmp/who" || job_fail "--out"
[ "$(jq -r .scope "$dir/tmp/who")" = a ] || job_fail "$(cat "$dir/tmp/who")"
ok "token-exchange (form and JSON), jwt-bearer, client-assertion: the server knows the agent by the token; a file of mode 600"

# ---- an assertion that was used already ----
profile once/token "fields: { scope: a }"
granted urn:ietf:params:oauth:grant-type:token-exchange a
before=$(requests once/token)
granted urn:ietf:params:oauth:grant-type:token-exchange a # attestd has the same JWT-SVID still: refused, then with a new one
[ "$(requests once/token)" = $((before + 2)) ] || job_fail "$(($(requests once/token) - before)) requests"
profile never/token
refused "invalid_grant: *used already" 1 kept
[ "$(requests never/token)" = 2 ] || job_fail "$(requests never/token) requests where none is taken"
ok "a server that takes each assertion once gets a new one; one that takes none is asked twice, and not more"

# ---- the cache, by attestd's control socket ----
profile token "fields: { scope: a }"
kept=$dir/tmp/kept
with_cache() { ctl token alpha --exchange "$dir/p.yaml" --cache "$kept" > "$dir/tmp/$1" 2> "$dir/tmp/err"; }
not_given() { # not_given PATTERN CODE
    local code=0
    with_cache out || code=$?
    [ $code = "$2" ] && [ ! -s "$dir/tmp/out" ] && grep -q "$1" "$dir/tmp/err" || { cat "$dir/tmp/err"; job_fail "the cache: expected $1, exit $2, found exit $code"; }
}
before=$(requests token)
with_cache one || { cat "$dir/tmp/err"; job_fail "no token"; }
with_cache two || job_fail "no token from the cache"
cmp -s "$dir/tmp/one" "$dir/tmp/two" && [ "$(requests token)" = $((before + 1)) ] || job_fail "not from the cache"
ctl agent freeze alpha > /dev/null
not_given "frozen: agent alpha is frozen" 1
[ ! -e "$kept" ] || job_fail "the cache of a frozen agent is still there"
not_given "frozen" 1
ctl agent thaw alpha > /dev/null
with_cache one || { cat "$dir/tmp/err"; job_fail "after the thaw"; }
code=0
"$bin/attestctl" --socket /nowhere token alpha --exchange "$dir/p.yaml" --cache "$kept" > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
[ $code = 3 ] && [ ! -s "$dir/tmp/out" ] && [ -s "$kept" ] || { cat "$dir/tmp/err"; job_fail "a kept token while nobody says whether the agent is in force: $code"; }
rm -f "$kept" "$kept.lock"
ok "--cache: one exchange for two calls; a frozen agent's is not given and is removed; nothing while attestd does not answer"

# Half of its life is over, and attestd refuses the agent a new token: that is no absence.
with_cache one || { cat "$dir/tmp/err"; job_fail "no token"; }
jq -c '.issuedAt -= 2000' "$kept" > "$dir/tmp/aged" && cat "$dir/tmp/aged" > "$kept"
apply_audiences() { # apply_audiences LIST
    sed "s|audiences: .*|audiences: [ $1 ]}|" "$dir/agents.yaml" > "$dir/other.yaml"
    ctl entry apply -f "$dir/other.yaml" > /dev/null
}
token_refused() { ! ctl token alpha --audience "$api" > /dev/null 2> "$dir/tmp/err" && grep -q "^attestctl: audienceDenied" "$dir/tmp/err"; }
token_given() { ctl token alpha --audience "$api" > /dev/null 2>&1; }
apply_audiences sts.example
wait_for 60 token_refused
not_given "audienceDenied" 1
apply_audiences "\"$api\", sts.example"
wait_for 60 token_given
rm -f "$kept" "$kept.lock"
ok "--cache: a kept token is not given in place of one that attestd refuses"

# ---- TLS 1.1 and 1.2 ----
openssl_speaks() { # openssl_speaks OPTION: whether the server does
    openssl s_client -connect "127.0.0.1:$oauth_port" "$1" -cipher DEFAULT@SECLEVEL=0 < /dev/null > "$dir/tmp/tls" 2>&1
}
job_stop oauth
serve 1.1
openssl_speaks -tls1_1 || { cat "$dir/tmp/tls"; job_fail "the server does not speak TLS 1.1"; }
# OpenSSL as lenient as it gets, so that it is attestctl that says no.
cat > "$dir/lenient.cnf" << 'END'
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
MinProtocol = TLSv1
CipherString = DEFAULT@SECLEVEL=0
END
OPENSSL_CONF=$dir/lenient.cnf curl -sS --tlsv1.0 --cacert "$dir/oauth.pem" "https://127.0.0.1:$oauth_port/whoami" > "$dir/tmp/tls" 2>&1 ||
    { cat "$dir/tmp/tls"; job_fail "curl does not speak TLS 1.1"; }
profile token "fields: { scope: a }"
before=$(requests token)
export OPENSSL_CONF=$dir/lenient.cnf
refused "protocol version" 3 kept
unset OPENSSL_CONF
[ "$(requests token)" = "$before" ] || job_fail "something was sent by TLS 1.1"
job_stop oauth
serve 1.2
openssl_speaks -tls1_2 && ! openssl_speaks -tls1_3 || job_fail "the server does not speak TLS 1.2 alone"
granted urn:ietf:params:oauth:grant-type:token-exchange a
job_stop oauth
serve
ok "TLS 1.2 is enough, TLS 1.1 is not"

# ---- usage ----
code=0
ctl token alpha > /dev/null 2>&1 || code=$?
[ $code = 2 ] || job_fail "neither audience nor profile: $code"
code=0
ctl token alpha --exchange "$dir/p.yaml" --refresh > /dev/null 2>&1 || code=$?
[ $code = 2 ] || job_fail "--refresh without --out: $code"
code=0
ctl token alpha --exchange ../x > /dev/null 2>&1 || code=$?
[ $code = 1 ] || job_fail "a profile that is not there: $code"

# ---- kept fresh ----
profile short/token
"$bin/attestctl" --socket "$dir/run/control.sock" token alpha --exchange "$dir/p.yaml" --out "$out" --refresh \
    < /dev/null > "$dir/log/keeper.log" 2>&1 {job_port_lock}>&- &
keeper=$!
fresh() { [ "$(requests short/token)" -ge "$1" ] && grep -q until "$dir/log/keeper.log"; }
wait_for 30 fresh 3
before=$(cat "$out")
changed() { [ "$(cat "$out")" != "$before" ]; }
wait_for 30 changed
[ "$(stat -c %a "$out")" = 600 ] || job_fail "mode $(stat -c %a "$out")"
job_stop oauth
failing() { grep -q "127.0.0.1:$oauth_port/short/token" "$dir/log/keeper.log"; }
wait_for 30 failing
before=$(cat "$out")
[ -n "$before" ] && kill -0 "$keeper" || job_fail "the old one is not there, or nobody is"
serve
wait_for 60 changed
kill -s TERM "$keeper"
code=0
wait "$keeper" || code=$?
keeper=
[ $code = 0 ] || job_fail "SIGTERM: exit $code"
ok "--refresh: replaced before it ends, kept while the server is away, taken up again; SIGTERM is exit 0"
# ---- kept fresh on a disk that is full ----
full() { # full FOLDER: in a mount namespace of its own
    local folder=$1 pid before n=0
    mount -t tmpfs -o size=16k,mode=700 tmpfs "$folder" || return 77
    "$bin/attestctl" --socket "$dir/run/control.sock" token alpha --exchange "$dir/p.yaml" --out "$folder/token" --refresh \
        < /dev/null > "$dir/log/full.log" 2>&1 &
    pid=$!
    until [ -s "$folder/token" ]; do sleep 0.1; done
    dd if=/dev/zero of="$folder/fill" bs=4k > /dev/null 2>&1 || true
    before=$(cat "$folder/token")
    # From the fill on it cannot be written any more; a token that came in between is the old one.
    until grep -q 'No space left on device' "$dir/log/full.log"; do
        n=$((n + 1))
        [ $n -lt 600 ] || { kill $pid; return 1; }
        before=$(cat "$folder/token")
        sleep 0.1
    done
    sleep 1
    [ -n "$before" ] && [ "$(cat "$folder/token")" = "$before" ] && [ "$(ls "$folder")" = "$(printf 'fill\ntoken')" ] ||
        { ls -la "$folder"; kill $pid; return 1; }
    rm "$folder/fill"
    while [ "$(cat "$folder/token")" = "$before" ]; do
        n=$((n + 1))
        [ $n -lt 1200 ] || { kill $pid; return 1; }
        sleep 0.1
    done
    kill -s TERM $pid
    wait $pid
}
if [ "$(id -u)" = 0 ] && unshare -m true 2> /dev/null; then
    mkdir "$dir/full"
    export dir bin
    export -f full
    code=0
    unshare -m bash -ec 'full "$1"' full "$dir/full" {job_port_lock}>&- || code=$?
    [ $code = 77 ] || [ $code = 0 ] || { cat "$dir/log/full.log"; job_fail "a full disk: $code"; }
    ok "a full disk: the old token stays whole, the error says so, and it goes on when there is room"
else
    echo "left out: a full disk (needs root and mount namespaces)"
fi
for where in "$dir"/log/{issuerd,attestd,keyd,keeper}.log; do
    ! grep -qaF "$before" "$where" || job_fail "a token in $where"
    ! grep -qa 'eyJ' "$where" || job_fail "a JWT in $where"
done
ok "no token in the logs"

# ---- an agent that is no more ----
profile token "fields: { scope: a }"
with_cache one && [ -s "$kept" ] || { cat "$dir/tmp/err"; job_fail "no token"; }
ctl entry delete alpha > /dev/null
no_more() { ! with_cache out && [ ! -s "$dir/tmp/out" ] && [ ! -e "$kept" ]; }
wait_for 60 no_more
ok "the cache of an agent whose entry was removed is not given and is removed"
