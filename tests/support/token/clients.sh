# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # names of rig.sh, and those that tests use
# What tests with stock clients share; source rig.sh first, and start its tokend before clients_setup.

began=$(date +%s%3N)
ok() { printf 'ok %5d ms: %s\n' $(($(date +%s%3N) - began)) "$*"; }
skipped() { printf 'not tried: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    grep -v level=debug "$RIG/tokend.log" | tail -n 20 >&2
    exit 1
}
have() { command -v "$1" > /dev/null; }
run() { timeout 60 "$@" < /dev/null; }
connects() { bash -c "exec 9<>/dev/tcp/127.0.0.1/$1"; }

# Sets key, cert, chain, key_uri_file, module, support, port: a server that wants a certificate of the rig's CA.
clients_setup() {
    key='pkcs11:token=attestd;object=agent;type=private'
    cert='pkcs11:token=attestd;object=agent;type=cert'
    chain=$RIG/store/market-data/chain.pem
    key_uri_file=$ATT_SOURCE_DIR/scripts/pkcs11/agent-key.pem
    support=$ATT_SOURCE_DIR/tests/support/token
    export P11_KIT_SERVER_ADDRESS=unix:path=$RIG_SOCKET
    local folder
    folder=$(dirname "$module")
    sed "s,@ATT_PKCS11_DIR@,$folder," "$ATT_SOURCE_DIR/scripts/pkcs11/openssl-engine.cnf" > "$RIG/engine.cnf"
    sed "s,@ATT_PKCS11_DIR@,$folder," "$ATT_SOURCE_DIR/scripts/pkcs11/openssl-agent.cnf" > "$RIG/provider.cnf"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$RIG/srv.key" -out "$RIG/srv.csr" \
        -subj /CN=localhost 2> /dev/null
    openssl x509 -req -in "$RIG/srv.csr" -CA "$RIG/ca.pem" -CAkey "$RIG/ca.key" -days 1 -out "$RIG/srv.pem" \
        -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n') 2> /dev/null
    chmod 644 "$RIG/srv.key" "$RIG/ca.pem"
    job_port
    openssl s_server -accept "127.0.0.1:$port" -cert "$RIG/srv.pem" -key "$RIG/srv.key" -CAfile "$RIG/ca.pem" \
        -Verify 2 -verify_return_error -www > "$RIG/srv.log" 2>&1 &
    rig_pids+=($!)
    rig_wait connects "$port"
}
have_engine() { [ -e "$(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so" ]; }
have_provider() { [ -e "$(openssl version -m | sed 's/.*"\(.*\)"/\1/')/pkcs11.so" ]; }

# stranger PROGRAM: by its name (comm) nobody's agent, until no_stranger
stranger() { printf '%s\n' "$@" > "$RIG/store/strangers"; }
no_stranger() { rm "$RIG/store/strangers"; }

answered() { # answered CURL OPTIONS: the server took the client's certificate
    local code
    code=$(run curl -sS --cacert "$RIG/ca.pem" -o "$RIG/page" -w '%{http_code}' "$@" "https://localhost:$port/" 2> "$RIG/out") && [ "$code" = 200 ]
}
curls() { answered "$@" || { cat "$RIG/out"; fail "curl $*"; }; }

# A user's own drop-in, which p11-kit reads for anybody but root: no variable, no path of a module.
drop_in() {
    mkdir -p "$RIG/home/.config/pkcs11/modules"
    sed "s,/run/attestd/public/pkcs11.sock,$RIG_SOCKET," "$ATT_SOURCE_DIR/scripts/pkcs11/attestd.module" \
        > "$RIG/home/.config/pkcs11/modules/attestd.module"
}
as_user() {
    local user=()
    [ "$(id -u)" != 0 ] || user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    timeout 60 "${user[@]}" env -u P11_KIT_SERVER_ADDRESS -u OPENSSL_CONF HOME="$RIG/home" "$@" < /dev/null
}
