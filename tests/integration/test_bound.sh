#!/usr/bin/env bash
# Tokens bound to the agent's certificate (RFC 8705) with real processes: the token request goes over mutual TLS that the
# agent's key in the TPM signs, to a server made of oauthlib that demands a certificate and binds what it gives; curl uses
# the token by PKCS#11 where the certificate is demanded again. What is refused, by whom and why; rotation. The same with
# an RSA key in the HSM, by each scheme that nginx can be told to demand.
set -euo pipefail
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir, bin, port and the ports come from job.sh and port_into
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
/usr/bin/python3 -c 'import oauthlib, cryptography, jwt' 2> /dev/null || job_skip "no python3-oauthlib, python3-jwt"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
job_setup
chmod 755 "$dir" "$dir/tmp" "$dir/run"
ok() { echo "ok: $*"; }
user=62001 beta_user=62002 stranger=62003 rsa_user=62004 service=62010
job_make_tpm
job_write_conf
echo "    key_types: [ec-p256, rsa-2048, rsa-3072]" >> "$dir/issuer.yaml"
id_port='' oauth_port=''
port_into id_port
port_into oauth_port
api=https://api.example
cat >> "$dir/issuer.yaml" << END
jwt:
  issuer: "https://127.0.0.1:$id_port"
  listen: "127.0.0.1:$id_port"
END
job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service; }
job_start_attestd() {
    job_start attestd "$bin/attestd" --config "$dir/attestd.yaml" --spiffed-user $service
    wait_for 30 ctl status
}
install -d -m 755 "$dir/run/public"
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml" --client 0 --client $service
job_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 30 test -S "$dir/run/public/pkcs11.sock"
chmod a+rx "$dir/run/public"
chown $service "$dir/run/public"
chmod 644 "$dir/attestd.yaml"
chmod a+x "$dir/state" "$dir/state/host" "$dir/state/host/agents"
job_start spiffed setpriv --reuid $service --regid $service --groups 0 "$bin/attestd-spiffed" --config "$dir/attestd.yaml" \
    --attestd-user 0 --whod-user 0 --keyd-user 0
status=0
trap 'status=$?; job_stop keeper KILL; job_stop oauth KILL; job_stop nginx KILL; set +e; (exit $status); job_cleanup' EXIT
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
{
    printf 'trust_domain: bank.example\nagents:\n'
    printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: {uid: %s}, key: %s, key_type: %s, profile: trading, audiences: [ "%s" ]}\n' \
        alpha "$(job_host_id)" $user tpm ec-p256 "$api" beta "$(job_host_id)" $beta_user tpm ec-p256 "$api" \
        rsa "$(job_host_id)" $rsa_user hsm rsa-2048 "$api"
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
for name in alpha beta rsa; do wait_for 60 job_settled $name; done
wait_for 30 test -S "$dir/run/public/api.sock"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=oauth -keyout "$dir/oauth.key" \
    -out "$dir/tmp/oauth.pem" -addext subjectAltName=IP:127.0.0.1 2> /dev/null
chmod 644 "$dir/tmp/oauth.pem"
serve() { # serve [VERSION]: of TLS
    OAUTH_TLS=${1:-} job_start oauth /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/oauth/server.py" "$oauth_port" \
        "$dir/tmp/oauth.pem" "$dir/oauth.key" "https://127.0.0.1:$id_port" "$dir/issuer/ca/tls-root.pem" "$api" \
        "$dir/issuer/ca/bundle.pem" spiffe://bank.example/agent/alpha spiffe://bank.example/agent/rsa
    wait_for 30 serving "$(grep -c '^ready' "$dir/log/oauth.log" || true)"
}
serving() { [ "$(grep -c '^ready' "$dir/log/oauth.log" || true)" -gt 0 ] && (exec 3<> "/dev/tcp/127.0.0.1/$oauth_port") 2> /dev/null; }
serve
requests() { grep -c "^/$1 " "$dir/log/oauth.log" || true; }

profile() { # profile PATH [LINE…]: for that path of the server; a later line of the same key takes the place of ours
    local at=$1 line
    shift
    cat > "$dir/tmp/p.yaml" << END
endpoint: "https://127.0.0.1:$oauth_port/$at"
grant: client-credentials
client_id: robot
client_auth: tls
ca_file: "$dir/tmp/oauth.pem"
timeout: 5s
END
    for line in "$@"; do
        sed -i "/^${line%%:*}:/d" "$dir/tmp/p.yaml"
        [ "${line#*:}" = "" ] || echo "$line" >> "$dir/tmp/p.yaml"
    done
    chmod 644 "$dir/tmp/p.yaml"
}
export SPIFFE_ENDPOINT_SOCKET=unix://$dir/run/public/api.sock
as() { # as USER NAME [OPTION…]: attestctl token as that user, who may not open attestd's control socket
    local uid=$1
    shift
    exec setpriv --reuid "$uid" --regid "$uid" --clear-groups "$bin/attestctl" --socket /nowhere token "$@" --exchange "$dir/tmp/p.yaml"
}
refused() { # refused PATTERN [USER [NAME]]: exit code 1, nothing on standard output
    local code=0
    (as "${2:-$user}" "${3:-alpha}") > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
    # shellcheck disable=SC2053 # a pattern
    if [ $code != 1 ] || [ -s "$dir/tmp/out" ] || [[ "$(cat "$dir/tmp/err")" != *$1* ]]; then
        cat "$dir/tmp/err" "$dir/tmp/p.yaml"
        job_fail "expected $1, found exit $code"
    fi
    ! grep -q 'eyJ' "$dir/tmp/err" || job_fail "a token in an error"
}

# ---- refused before anything is sent ----
profile token
refused "notAssigned: *" $stranger
refused "callerAgent: this process is spiffe://bank.example/agent/beta" $beta_user
profile token "client_id:"
refused "p.yaml:1: client_id: required by client_auth: tls"
profile token "client_auth:"
refused "client_auth: the grant client-credentials requires tls"
ctl agent freeze alpha > /dev/null
profile token
refused "frozen:"
ctl agent thaw alpha > /dev/null
[ "$(requests token)" = 0 ] || job_fail "something was sent"
ok "a stranger, another agent, a profile with a hole, a frozen agent's handshake: nothing is sent"

# ---- refused by the server ----
refused "invalid_client: *status 401: client robot is not spiffe://bank.example/agent/beta" $beta_user beta
profile token "client_id: somebody"
refused "invalid_client: *status 401: client somebody is not"
# Nothing is sent: who writes while the server closes may lose its alert.
sleep 2 | timeout 20 openssl s_client -connect "127.0.0.1:$oauth_port" -CAfile "$dir/tmp/oauth.pem" -quiet > "$dir/tmp/out" 2> "$dir/tmp/err" || true
grep -q 'alert certificate required' "$dir/tmp/err" || { cat "$dir/tmp/err"; job_fail "no certificate: another reason"; }
ok "another agent's certificate, another client, no certificate: the server's own word"

# ---- tokens that are not bound as was asked ----
while read -r at pattern; do
    profile "$at"
    refused "$pattern"
done << 'END'
unbound/token notBound: the token is not bound
foreign/token boundOther: the token is bound to another certificate
opaque/token boundUnknown: the token is no JWT
dpop answerType:
END
while read -r at pattern; do
    profile opaque/token "introspection: \"https://127.0.0.1:$oauth_port/$at\""
    refused "$pattern"
done << 'END'
inactive/introspect tokenInactive:
unbound/introspect notBound:
html introspection: *status 200
busy introspection: *status 503
END
ok "not bound, bound to another certificate, nobody says, introspection says no or nothing: refused by name"

# ---- granted ----
der() { openssl x509 -in "$dir/state/host/agents/$1/chain.pem" -outform DER; }
thumbprint() { der "$1" | openssl dgst -sha256 -binary | base64 | tr '+/' '-_' | tr -d '='; }
curl_as() { # curl_as USER TOKEN: the resource, with the key by PKCS#11
    (exec env P11_KIT_SERVER_ADDRESS="unix:path=$dir/run/public/pkcs11.sock" P11_KIT_STRICT=1 PKCS11_MODULE_PATH="$module" \
        setpriv --reuid "$1" --regid "$1" --clear-groups curl -sS --cacert "$dir/tmp/oauth.pem" \
        --key 'pkcs11:token=attestd;object=agent;type=private' --cert "$dir/state/host/agents/$([ "$1" = $user ] && echo alpha || echo beta)/chain.pem" \
        -H "Authorization: Bearer $2" "https://127.0.0.1:$oauth_port/resource") > "$dir/tmp/resource" 2>&1 ||
        { cat "$dir/tmp/resource"; job_fail "curl"; }
}
granted() { # granted WHAT: the token says whose and of which certificate, and is taken with it
    (as $user alpha) > "$dir/tmp/got" || job_fail "$1"
    [ "$(cut -d. -f2 "$dir/tmp/got" | tr '_-' '/+' | base64 -d 2> /dev/null | jq -r '.cnf["x5t#S256"]')" = "$(thumbprint alpha)" ] ||
        job_fail "$1: another thumbprint"
    curl_as $user "$(cat "$dir/tmp/got")"
    [ "$(jq -r '.sub + " " + .peer' "$dir/tmp/resource")" = "spiffe://bank.example/agent/alpha spiffe://bank.example/agent/alpha" ] ||
        { cat "$dir/tmp/resource"; job_fail "$1: the resource"; }
}
profile token
granted "client-credentials"
curl_as $beta_user "$(cat "$dir/tmp/got")"
[ "$(jq -r .why "$dir/tmp/resource")" = "another certificate" ] || { cat "$dir/tmp/resource"; job_fail "beta used alpha's token"; }
profile token "grant: token-exchange" "audience: \"$api\""
granted "token-exchange over mutual TLS"
profile token "grant: client-assertion" "audience: \"$api\"" "body: json"
granted "client-assertion over mutual TLS"
profile token "grant: token-exchange" "audience: https://other.example"
refused "audienceDenied: "
profile opaque/token "introspection: \"https://127.0.0.1:$oauth_port/opaque/introspect\""
(as $user alpha) > "$dir/tmp/got" || job_fail "introspection"
[ "$(wc -c < "$dir/tmp/got")" = 41 ] || job_fail "opaque: $(cat "$dir/tmp/got")"
profile unbound/token "bound: unchecked"
(as $user alpha) > "$dir/tmp/got" || job_fail "bound: unchecked"
profile token
out=$dir/out
install -d -o $user -m 700 "$out"
(as $user alpha --out "$out/token") > "$dir/tmp/got"
grep -q ", bound to certificate $(thumbprint alpha)\$" "$dir/tmp/got" || { cat "$dir/tmp/got"; job_fail "it does not say so"; }
profile long/token
(exec setpriv --reuid $user --regid $user --clear-groups "$bin/attestctl" --json --socket /nowhere token alpha \
    --exchange "$dir/tmp/p.yaml") > "$dir/tmp/got"
[ "$(jq -r .boundTo "$dir/tmp/got")" = "$(thumbprint alpha)" ] || job_fail "boundTo"
end=$(date -d "$(openssl x509 -in "$dir/state/host/agents/alpha/chain.pem" -noout -enddate | cut -d= -f2)" +%s)
[ $(($(date -d "$(jq -r .expiresAt "$dir/tmp/got")" +%s) - end)) -le 1 ] || job_fail "it outlives its certificate"
ok "client-credentials, token-exchange, client-assertion, introspection: bound; curl uses it by PKCS#11, another agent cannot; it ends with its certificate"

# ---- a JWT-SVID that was used already ----
profile once/token "grant: token-exchange" "audience: \"$api\""
granted "a server that takes each assertion once"
before=$(requests once/token)
granted "the same, with a JWT-SVID that attestd has still"
[ "$(requests once/token)" = $((before + 2)) ] || job_fail "$(($(requests once/token) - before)) requests"
profile never/token "grant: token-exchange" "audience: \"$api\""
refused "invalid_grant: *used already"
[ "$(requests never/token)" = 2 ] || job_fail "$(requests never/token) requests where none is taken"
ok "a JWT-SVID that the server had before is replaced by a new one, once"

# ---- RSA ----
rsa_granted() { # rsa_granted WHAT
    (as $rsa_user rsa) > "$dir/tmp/got" 2> "$dir/tmp/err" || { cat "$dir/tmp/err"; job_fail "$1: RSA"; }
    [ "$(cut -d. -f2 "$dir/tmp/got" | tr '_-' '/+' | base64 -d 2> /dev/null | jq -r '.cnf["x5t#S256"]')" = "$(thumbprint rsa)" ] ||
        job_fail "$1: another thumbprint"
}
profile token
refused "invalid_client: *status 401: client robot is not spiffe://bank.example/agent/rsa" $rsa_user rsa
profile token "client_id: robot2"
refused "invalid_client: *status 401: client robot2 is not spiffe://bank.example/agent/alpha"
rsa_granted "TLS 1.3"
profile token "client_id: robot2" "grant: token-exchange" "audience: \"$api\""
rsa_granted "TLS 1.3, token-exchange"
ctl agent freeze rsa > /dev/null
refused "frozen:" $rsa_user rsa
ctl agent thaw rsa > /dev/null
ok "an RSA key in the HSM: bound by TLS 1.3, as client-credentials and token-exchange; another's client, frozen: refused"
schemes() { # schemes PROTOCOL LIST [CLIENT_LIST]: an nginx that demands these signatures of its clients
    rm -rf "$dir/nginx"
    mkdir -p "$dir/nginx"
    cat > "$dir/nginx/conf" << END
daemon off;
pid $dir/nginx/pid;
error_log stderr info;
events {}
http {
    client_body_temp_path $dir/nginx/b; proxy_temp_path $dir/nginx/p; fastcgi_temp_path $dir/nginx/f;
    uwsgi_temp_path $dir/nginx/u; scgi_temp_path $dir/nginx/s; access_log off;
    server {
        listen 127.0.0.1:$nginx_port ssl;
        ssl_certificate $dir/tmp/oauth.pem;
        ssl_certificate_key $dir/oauth.key;
        ssl_protocols $1;
        ssl_client_certificate $dir/issuer/ca/bundle.pem;
        ssl_verify_client on;
        ssl_verify_depth 4;
        ssl_conf_command ClientSignatureAlgorithms $2;
        location / {
            default_type application/json;
            return 200 '{"access_token": "\$ssl_protocol-\$ssl_client_verify", "token_type": "Bearer", "expires_in": 600}';
        }
    }
}
END
    job_start nginx nginx -c "$dir/nginx/conf" -e stderr
    wait_for 30 nginx_up
}
nginx_up() { (exec 3<> "/dev/tcp/127.0.0.1/$nginx_port") 2> /dev/null; }
if command -v nginx > /dev/null; then
    nginx_port=''
    port_into nginx_port
    while read -r protocol list; do
        schemes "$protocol" "$list"
        profile token "endpoint: \"https://127.0.0.1:$nginx_port/token\"" "client_id: robot2" "bound: unchecked"
        (as $rsa_user rsa) > "$dir/tmp/got" 2> "$dir/tmp/err" || { cat "$dir/tmp/err"; job_fail "nginx, $protocol, $list"; }
        [ "$(cat "$dir/tmp/got")" = "$protocol-SUCCESS" ] || job_fail "nginx, $protocol, $list: $(cat "$dir/tmp/got")"
        job_stop nginx
    done << 'END'
TLSv1.3 rsa_pss_rsae_sha256
TLSv1.3 rsa_pss_rsae_sha384
TLSv1.3 rsa_pss_rsae_sha512
TLSv1.2 rsa_pss_rsae_sha256
TLSv1.2 RSA+SHA256
TLSv1.2 RSA+SHA384
TLSv1.2 RSA+SHA512
END
    schemes TLSv1.3 ECDSA+SHA256
    profile token "endpoint: \"https://127.0.0.1:$nginx_port/token\"" "client_id: robot2" "bound: unchecked"
    code=0
    (as $rsa_user rsa) > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
    [ $code != 0 ] && [ ! -s "$dir/tmp/out" ] || { cat "$dir/tmp/out"; job_fail "nginx took an RSA key where it wants ECDSA"; }
    job_stop nginx
    ok "the same at nginx by RSA-PSS (TLS 1.3, 1.2) and PKCS #1 (1.2), SHA-256, SHA-384 and SHA-512; not where it wants ECDSA"
else
    echo "skipped: no nginx"
fi

# ---- TLS 1.2 ----
job_stop oauth
serve 1.2
profile token
granted "TLS 1.2"
profile token "client_id: robot2"
rsa_granted "TLS 1.2"
profile token
openssl s_client -connect "127.0.0.1:$oauth_port" -tls1_3 < /dev/null > "$dir/tmp/out" 2>&1 || true
grep -q 'alert protocol version' "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "the server speaks TLS 1.3"; }
job_stop oauth
serve
ok "the same by TLS 1.2"

# ---- rotation ----
job_start keeper setpriv --reuid $user --regid $user --clear-groups "$bin/attestctl" --socket /nowhere token alpha \
    --exchange "$dir/tmp/p.yaml" --out "$out/kept" --refresh
wait_for 30 test -s "$out/kept"
first=$(cat "$out/kept") old=$(thumbprint alpha)
curl_as $user "$first"
[ "$(jq -r .sub "$dir/tmp/resource")" = spiffe://bank.example/agent/alpha ] || job_fail "before the rotation"
ctl agent rotate alpha > /dev/null
[ "$(thumbprint alpha)" != "$old" ] || job_fail "no rotation"
renewed() { [ "$(cat "$out/kept")" != "$first" ]; }
wait_for 20 renewed # it looks each 5 s; half of the token's life would be 5 minutes
curl_as $user "$(cat "$out/kept")"
[ "$(jq -r .sub "$dir/tmp/resource")" = spiffe://bank.example/agent/alpha ] || { cat "$dir/tmp/resource"; job_fail "after it"; }
curl_as $user "$first"
[ "$(jq -r .why "$dir/tmp/resource")" = "another certificate" ] || { cat "$dir/tmp/resource"; job_fail "the old token"; }
grep -q "bound to certificate $(thumbprint alpha)" "$dir/log/keeper.log" || job_fail "keeper does not say so"
job_stop keeper
cache=$out/cache
(as $user alpha --cache "$cache") > "$dir/tmp/one"
(as $user alpha --cache "$cache") > "$dir/tmp/two"
cmp -s "$dir/tmp/one" "$dir/tmp/two" || job_fail "not from the cache"
ctl agent rotate alpha > /dev/null
(as $user alpha --cache "$cache") > "$dir/tmp/two"
! cmp -s "$dir/tmp/one" "$dir/tmp/two" || job_fail "a token of the certificate before from the cache"
(as $user alpha --cache "$cache") > "$dir/tmp/one"
ctl agent freeze alpha > /dev/null
refused_cache() { # refused_cache PATTERN CODE: nothing of the cache is given
    local code=0
    (as $user alpha --cache "$cache") > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
    # shellcheck disable=SC2053 # a pattern
    [ $code = "$2" ] && [ ! -s "$dir/tmp/out" ] && [[ "$(cat "$dir/tmp/err")" == *$1* ]] ||
        { cat "$dir/tmp/err"; job_fail "the cache: expected $1, exit $2, found exit $code"; }
}
refused_cache "frozen:" 1
[ ! -e "$cache" ] || job_fail "the cache of a frozen agent is still there"
ctl agent thaw alpha > /dev/null
(as $user alpha --cache "$cache") > "$dir/tmp/one"
ok "after a rotation --refresh gets a token of the new certificate at once, as does the cache; the old one is worth nothing with it"

for where in "$dir"/log/*.log; do
    ! grep -qaF "$first" "$where" || job_fail "a token in $where"
done
job_stop spiffed
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "bound: all held"
