#!/usr/bin/env bash
# nginx as an agent: its master reads the configuration as root, its workers sign as another user. Each of them is
# attested for what it is, so that an entry needs both; a worker never uses its master's connection. With real
# processes (swtpm, keyd, whod, attestd, tokend), nginx as a server and as a client of an upstream.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "nginx's master is root"
nginx=$(PATH=$PATH:/usr/sbin command -v nginx || true)
[ -n "$nginx" ] || job_skip "no nginx (package nginx-light)"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
engine=$(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
provider=$(openssl version -m | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
[ -e "$engine" ] || [ -e "$provider" ] || job_skip "neither libengine-pkcs11-openssl nor pkcs11-provider"
job_setup
chmod 755 "$dir"
ok() { echo "ok: $*"; }
connects() { bash -c "exec 9<>/dev/tcp/127.0.0.1/$1"; }
nginx_exe=$(readlink -f "$nginx")
nginx_sha=$(sha256sum "$nginx_exe" | cut -d' ' -f1)
worker_uid=$(id -u www-data) # Debian has this user with or without nginx

job_make_tpm
job_write_conf
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
job_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
view_is_new() { [ "$(ctl --json status | jq .enrolment.viewVersion)" -gt "$1" ]; }
entry() { # entry WORKLOAD: until the host has it; a worker that asked before would be nobody's for ever
    local version
    version=$(ctl --json status | jq .enrolment.viewVersion)
    cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - name: web
    owner: web@bank.example
    hosts: [ "ek:$(job_host_id)" ]
    workload: $1
    key: tpm
    profile: trading
END
    ctl entry apply -f "$dir/agents.yaml" > /dev/null
    wait_for 30 view_is_new "$version"
}
master="{uid: 0, exe_sha256: [$nginx_sha]}" worker="{uid: $worker_uid, exe_sha256: [$nginx_sha]}"
entry "[$master, $worker]"
wait_for 60 job_serial web
chain=$dir/state/host/agents/web/chain.pem

# ---- an upstream that wants a client's certificate ----
bundle=$dir/issuer/ca/bundle.pem
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/up.key" -out "$dir/up.pem" -days 2 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost 2> /dev/null
port_into up
job_start upstream openssl s_server -accept "127.0.0.1:$up" -cert "$dir/up.pem" -key "$dir/up.key" -CAfile "$bundle" -Verify 3 \
    -verify_return_error -www
# nginx by TERM: a killed master leaves its workers, and they their connections.
trap 'status=$?; for name in nginx upstream; do job_stop $name; done; set +e; (exit $status); job_cleanup' EXIT
wait_for 10 connects "$up"

# nginx_start FORM: engine or provider; fails as nginx does
export P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock
nginx_conf() {
    local key
    port_into client
    port_into server
    if [ "$1" = engine ]; then
        key="engine:pkcs11:pkcs11:token=attestd;object=agent;type=private"
        sed "s,@ATT_PKCS11_DIR@,$(dirname "$module")," "$ATT_SOURCE_DIR/scripts/pkcs11/openssl-engine.cnf" > "$dir/openssl.cnf"
    else
        key=$ATT_SOURCE_DIR/scripts/pkcs11/agent-key.pem
        sed "s,@ATT_PKCS11_DIR@,$(dirname "$module")," "$ATT_SOURCE_DIR/scripts/pkcs11/openssl-agent.cnf" > "$dir/openssl.cnf"
    fi
    cat > "$dir/nginx.conf" << END
daemon off;
user www-data;
worker_processes 2;
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
        listen 127.0.0.1:$client;
        location / {
            proxy_pass https://localhost:$up;
            proxy_ssl_certificate $chain;
            proxy_ssl_certificate_key "$key";
            proxy_ssl_trusted_certificate $dir/up.pem;
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_ssl_session_reuse off;
        }
    }
    server {
        listen 127.0.0.1:$server ssl;
        ssl_certificate $chain;
        ssl_certificate_key "$key";
        location / { return 200 "served\n"; }
    }
}
END
}
nginx_check() { OPENSSL_CONF=$dir/openssl.cnf timeout 60 "$nginx" -p "$dir" -c "$dir/nginx.conf" -t > "$dir/tmp/nginx" 2>&1; }
nginx_start() {
    OPENSSL_CONF=$dir/openssl.cnf job_start nginx "$nginx" -p "$dir" -c "$dir/nginx.conf"
    wait_for 30 connects "$client"
    wait_for 30 connects "$server"
}
asked() { [ "$(curl -sS -m 60 -o "$dir/tmp/page" -w '%{http_code}' "http://127.0.0.1:$client/" 2> "$dir/tmp/out")" = "$1" ]; }
served() { # who serves, as its certificate says
    echo Q | timeout 60 openssl s_client -connect "127.0.0.1:$server" -CAfile "$bundle" -verify_return_error > "$dir/tmp/page" 2>&1 &&
        openssl x509 -in "$dir/tmp/page" -noout -ext subjectAltName 2> /dev/null | grep -q 'URI:spiffe://bank.example/agent/web'
}
granted() { grep 'event=workload.granted' "$dir/log/attestd.log" | grep "uid=$1 " | grep -q "exe=$nginx_exe"; }
refused() { grep 'event=workload.refused' "$dir/log/attestd.log" | grep "uid=$1 " | grep -q "exe=$nginx_exe"; }

for form in engine provider; do
    if [ $form = engine ] && [ ! -e "$engine" ]; then
        echo "not tried: the engine (package libengine-pkcs11-openssl)"
        continue
    elif [ $form = provider ] && [ ! -e "$provider" ]; then
        echo "not tried: the provider (package pkcs11-provider)"
        continue
    fi
    # ---- refused first: only the worker, then only the master ----
    : > "$dir/log/attestd.log"
    entry "[$worker]"
    nginx_conf $form
    no_key() { ! nginx_check && grep -q 'cannot load certificate key' "$dir/tmp/nginx"; }
    wait_for 30 no_key
    wait_for 10 refused 0
    ok "$form: an entry without the master: nginx does not start"
    entry "[$master]"
    wait_for 30 nginx_check
    nginx_start
    asked 502 || job_fail "a worker that no entry names signs: $(cat "$dir/tmp/page")"
    ! served || job_fail "a worker that no entry names serves"
    wait_for 10 refused $worker_uid || job_fail "no line about the worker"
    job_stop nginx
    ok "$form: an entry without the workers: it starts, and no handshake succeeds"

    # ---- granted ----
    : > "$dir/log/attestd.log"
    entry "[$master, $worker]"
    wait_for 30 nginx_check
    nginx_start
    wait_for 30 asked 200
    for _ in $(seq 10); do asked 200 || job_fail "upstream: $(cat "$dir/tmp/page")"; done
    for _ in $(seq 10); do served || job_fail "$(cat "$dir/tmp/page")"; done
    wait_for 10 granted 0 || job_fail "no line about the master"
    wait_for 10 granted $worker_uid || job_fail "no line about the workers"
    ! grep -q 'another process wrote' "$dir/log/tokend.log" || job_fail "a worker used its master's connection"
    ok "$form: master and workers by an entry with both: client of an upstream, and server"

    # ---- another program of the workers' user ----
    status=0
    setpriv --reuid $worker_uid --regid $worker_uid --clear-groups "$bin/../tests-bin/token-client" "$module" sign 1 > "$dir/tmp/out" 2>&1 || status=$?
    [ $status -ne 0 ] && grep -q 'slots: 0x0' "$dir/tmp/out" || job_fail "another program of the workers' user: $(cat "$dir/tmp/out")"
    ok "$form: another program of the workers' user sees no token"

    # ---- rotation: the chain is a file, so nginx reads it anew ----
    before=$(job_serial web)
    ctl agent rotate web > /dev/null
    [ "$(job_serial web)" != "$before" ] || job_fail "the serial is still $before"
    sleep 2 # a connection that is there shows the new key a second later at most (docs/AGENTS.md)
    kill -HUP "$(cat "$dir/nginx.ours")"
    new_serial() { served && [ "$(openssl x509 -in "$dir/tmp/page" -noout -serial | tr 'A-F' 'a-f' | cut -d= -f2 | sed 's/^0*//')" = "$(job_serial web | sed 's/^0*//')" ]; }
    wait_for 30 new_serial
    wait_for 30 asked 200
    job_stop nginx
    ok "$form: after a rotation and nginx -s reload the new certificate is served"
done
job_stop upstream
job_stop tokend
echo "nginx: all held"
