#!/usr/bin/env bash
# An agent whose key in the HSM is RSA, with programs that ask for it each in its own way: GnuTLS, Java (SunPKCS11),
# nginx as a server and as a client of an upstream, curl; TLS 1.3 (PSS) and 1.2. With real processes and SoftHSM2; curl
# and s_client by the engine, and all that is refused, are in tests/integration/test_hsm_rsa.sh.
set -euo pipefail
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir, bin and port come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "a process of another user needs root"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
engine=$(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
provider=$(openssl version -m | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
nginx=$(PATH=$PATH:/usr/sbin command -v nginx || true)
support=$ATT_SOURCE_DIR/tests/support/token
job_setup
chmod 755 "$dir"
trap 'status=$?; set +e; for name in nginx upstream tokend; do job_stop $name KILL; done; (exit $status); job_cleanup' EXIT
ok() { echo "ok: $*"; }
skipped() { echo "not tried: $*"; }
connects() { bash -c "exec 9<>/dev/tcp/127.0.0.1/$1"; }
have() { command -v "$1" > /dev/null; }
uid=1202

# ---- an agent with an RSA key ----
job_make_tpm
job_write_conf
sed -n '/^  - name: trading/,$p' "$dir/issuer.yaml" | sed 's/name: trading/name: rsa/' > "$dir/tmp/profile"
echo "    key_types: [rsa-2048]" >> "$dir/tmp/profile"
cat "$dir/tmp/profile" >> "$dir/issuer.yaml"
job_start_all
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/whod.sock"
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
export P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - { name: vault, owner: x@bank.example, hosts: [ "ek:$(job_host_id)" ], workload: { uid: $uid }, key: hsm, key_type: rsa-2048, profile: rsa }
END
ctl entry apply -f "$dir/agents.yaml" > /dev/null
wait_for 90 job_serial vault
mkdir "$dir/client"
cp -L "$dir/state/host/agents/vault/chain.pem" "$dir/issuer/ca/bundle.pem" "$dir/client/"
chain=$dir/client/chain.pem bundle=$dir/client/bundle.pem
openssl x509 -in "$chain" -noout -text > "$dir/tmp/cert"
grep -q 'Public-Key: (2048 bit)' "$dir/tmp/cert" || job_fail "not an RSA key"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/client/up.key" -out "$dir/client/up.pem" -days 2 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2> /dev/null
sed "s,@ATT_PKCS11_DIR@,$(dirname "$module")," "$ATT_SOURCE_DIR/scripts/pkcs11/openssl-engine.cnf" > "$dir/client/engine.cnf"
sed "s,@ATT_PKCS11_DIR@,$(dirname "$module")," "$ATT_SOURCE_DIR/scripts/pkcs11/openssl-agent.cnf" > "$dir/client/provider.cnf"
cp "$ATT_SOURCE_DIR/scripts/pkcs11/agent-key.pem" "$dir/client/"
chown -R $uid:$uid "$dir/client"
chmod -R a+rX "$dir/client" "$dir/run"
as() { timeout 120 setpriv --reuid="$1" --regid="$1" --clear-groups env HOME=/nonexistent "${@:2}" < /dev/null > "$dir/tmp/out" 2>&1; }
vault() { as $uid "$@"; }
stranger() { as 1203 "$@"; }
key='pkcs11:token=attestd;object=agent;type=private'

# upstream OPTIONS: a server that wants a certificate of the issuer's
upstream() {
    job_stop upstream
    job_port
    up=$port
    job_start upstream openssl s_server -accept "127.0.0.1:$up" -cert "$dir/client/up.pem" -key "$dir/client/up.key" -CAfile "$bundle" \
        -Verify 4 -verify_return_error -www "$@"
    wait_for 15 connects "$up"
}
tried=''

# ---- GnuTLS ----
if have gnutls-cli; then
    gnutls() { # gnutls WHO VERSION
        "$1" bash -c "printf 'GET / HTTP/1.0\r\n\r\n' | gnutls-cli --provider '$module' --x509keyfile '$key' --x509certfile '$chain' \
            --x509cafile '$dir/client/up.pem' --priority 'NORMAL:-VERS-ALL:+VERS-TLS$2' -p $up localhost" &&
            grep -aq 'HTTP/1.0 200' "$dir/tmp/out"
    }
    for version in 1.3 1.2; do
        upstream -tls1_${version#1.}
        gnutls vault $version || { cat "$dir/tmp/out"; job_fail "GnuTLS, TLS $version"; }
        ! gnutls stranger $version || job_fail "GnuTLS signs for nobody's agent"
    done
    tried+=' GnuTLS'
    ok "GnuTLS: TLS 1.3 and 1.2 with an RSA key, and not for another user"
fi

# ---- Java ----
if have javac; then
    upstream
    printf 'name = attestd\nlibrary = %s\nslotListIndex = 0\n' "$module" > "$dir/client/p11.cfg"
    javac -d "$dir/client" "$support/TlsClient.java"
    java_as() { "$1" java -cp "$dir/client" TlsClient "$dir/client/p11.cfg" "$dir/client/up.pem" "$up"; }
    java_as vault || { cat "$dir/tmp/out"; job_fail "Java"; }
    [ "$(cut -c1-3 "$dir/tmp/out" | tr '\n' ' ')" = "200 200 " ] || { cat "$dir/tmp/out"; job_fail "Java, TLS"; }
    ! java_as stranger || job_fail "Java signs for nobody's agent"
    # Each scheme alone: the server takes no other of an RSA key (ECDSA is that of the authority in its chain). TLS 1.3 has
    # PSS only (RFC 8446 §4.2.3).
    for scheme in RSA-PSS+SHA256 RSA-PSS+SHA384 RSA+SHA256; do
        for version in 3 2; do
            [ "$scheme $version" != "RSA+SHA256 3" ] || continue
            upstream -tls1_$version -client_sigalgs "$scheme:ECDSA+SHA256"
            timeout 120 setpriv --reuid=$uid --regid=$uid --clear-groups env HOME=/nonexistent \
                java -cp "$dir/client" TlsClient "$dir/client/p11.cfg" "$dir/client/up.pem" "$up" TLSv1.$version \
                < /dev/null > "$dir/tmp/out" 2>&1 || { cat "$dir/tmp/out"; job_fail "Java, TLS 1.$version by $scheme"; }
            [ "$(cat "$dir/tmp/out")" = "200 TLSv1.$version" ] || { cat "$dir/tmp/out"; job_fail "Java, TLS 1.$version by $scheme"; }
        done
    done
    tried+=' Java'
    ok "Java: TLS 1.3 (PSS) and 1.2 (PSS, PKCS#1) by SunPKCS11 with an RSA key, and not for another user"
else
    skipped "Java (package default-jdk-headless)"
fi

# ---- nginx and curl, by the engine and by the provider ----
nginx_conf() { # nginx_conf KEY
    port_into client
    port_into server
    cat > "$dir/client/nginx.conf" << END
daemon off;
worker_processes 1;
error_log $dir/client/error.log info;
pid $dir/client/nginx.pid;
env P11_KIT_SERVER_ADDRESS;
env OPENSSL_CONF;
events {}
http {
    access_log off;
    client_body_temp_path $dir/client/body; proxy_temp_path $dir/client/proxy; fastcgi_temp_path $dir/client/fastcgi;
    uwsgi_temp_path $dir/client/uwsgi; scgi_temp_path $dir/client/scgi;
    server {
        listen 127.0.0.1:$client;
        location / {
            proxy_pass https://localhost:$up;
            proxy_ssl_certificate $chain;
            proxy_ssl_certificate_key "$1";
            proxy_ssl_trusted_certificate $dir/client/up.pem;
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
            proxy_ssl_session_reuse off;
        }
    }
    server {
        listen 127.0.0.1:$server ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate $chain;
        ssl_certificate_key "$1";
        location / { return 200 "served\n"; }
    }
}
END
}
asked() { [ "$(curl -sS -m 60 -o "$dir/tmp/page" -w '%{http_code}' "http://127.0.0.1:$client/" 2> "$dir/tmp/out")" = 200 ]; }
served() { # served VERSION: by the agent, with a signature by PSS
    timeout 60 openssl s_client -connect "127.0.0.1:$server" "-$1" -CAfile "$bundle" -verify_return_error < /dev/null > "$dir/tmp/page" 2>&1 &&
        grep -aqE 'Peer signature type: (RSA-PSS|rsa_pss_rsae_sha)' "$dir/tmp/page"
}
for form in engine provider; do
    library=$engine
    [ $form = engine ] || library=$provider
    if [ ! -e "$library" ]; then
        skipped "the $form ($library)"
        continue
    fi
    form_key=$dir/client/agent-key.pem curl_key=(--key "$dir/client/agent-key.pem")
    if [ $form = engine ]; then
        form_key="engine:pkcs11:$key"
        curl_key=(--engine pkcs11 --key-type ENG --key "$key")
    fi
    if have curl && curl --version | grep OpenSSL > /dev/null; then
        for version in 1.3 1.2; do
            upstream -tls1_${version#1.}
            vault env OPENSSL_CONF="$dir/client/$form.cnf" curl -sS --fail --max-time 60 --cacert "$dir/client/up.pem" \
                --resolve "localhost:$up:127.0.0.1" "${curl_key[@]}" --cert "$chain" "https://localhost:$up/" ||
                { cat "$dir/tmp/out"; job_fail "curl, $form, TLS $version"; }
        done
        tried+=" curl-$form"
        ok "curl by the $form: TLS 1.3 and 1.2 with an RSA key"
    fi
    if [ -z "$nginx" ]; then
        skipped "nginx (package nginx-light)"
        continue
    fi
    for version in 1.3 1.2; do
        upstream -tls1_${version#1.}
        nginx_conf "$form_key"
        ! stranger env OPENSSL_CONF="$dir/client/$form.cnf" "$nginx" -e stderr -p "$dir/client" -c "$dir/client/nginx.conf" -t ||
            job_fail "nginx reads the key as another user"
        grep -q 'cannot load certificate key' "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "nginx of another user fails otherwise"; }
        job_start nginx setpriv --reuid=$uid --regid=$uid --clear-groups env HOME=/nonexistent OPENSSL_CONF="$dir/client/$form.cnf" \
            "$nginx" -e stderr -p "$dir/client" -c "$dir/client/nginx.conf"
        wait_for 30 connects "$server"
        wait_for 30 connects "$client"
        for _ in 1 2 3 4 5; do
            asked || { cat "$dir/tmp/page" "$dir/client/error.log"; job_fail "nginx, $form: its upstream, TLS $version"; }
            served tls1_${version#1.} || { cat "$dir/tmp/page" "$dir/client/error.log"; job_fail "nginx, $form: as a server, TLS $version"; }
        done
        job_stop nginx
    done
    tried+=" nginx-$form"
    ok "nginx by the $form: server and client of an upstream, TLS 1.3 and 1.2, with an RSA key"
done
[ -n "$tried" ] || job_skip "none of gnutls-cli, javac, curl, nginx is here"
job_stop upstream
job_stop tokend
echo "RSA keys:$tried: all held"
