# shellcheck shell=bash
# A tokend with the processes that it asks, for tests: an agent with a software key, its own CA.
# Wants ATT_BIN_DIR. Sets RIG (a folder), RIG_SOCKET; rig_end removes everything.

RIG_BIN=${ATT_BIN_DIR:?}
RIG_SERVERS=$RIG_BIN/../tests-bin/token-servers
RIG=$(mktemp -d)
RIG_SOCKET=$RIG/run/public/pkcs11.sock
rig_pids=()
# shellcheck source=../port.sh
. "${ATT_SOURCE_DIR:?}/tests/support/port.sh"

# rig_key AGENT: a new key and certificate, in force at once; the old key stays until it is removed
rig_key() {
    local agent=$1 id
    id=$(openssl rand -hex 16)
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$RIG/store/keys/$id.pem" 2> /dev/null ||
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$RIG/store/keys/$id.pem"
    openssl req -new -key "$RIG/store/keys/$id.pem" -subj "/CN=$agent" -out "$RIG/leaf.csr"
    openssl x509 -req -in "$RIG/leaf.csr" -CA "$RIG/ca.pem" -CAkey "$RIG/ca.key" -days 2 -out "$RIG/leaf.pem" -extfile <(
        printf 'subjectAltName=URI:spiffe://bank.example/agent/%s\nkeyUsage=critical,digitalSignature\n' "$agent"
        printf 'extendedKeyUsage=clientAuth,serverAuth\nbasicConstraints=critical,CA:FALSE\n'
        printf 'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n'
    ) 2> /dev/null
    mkdir -p "$RIG/store/$agent"
    cp "$RIG/ca.pem" "$RIG/store/$agent/bundle.pem"
    printf 'spiffe://bank.example/agent/%s\n' "$agent" > "$RIG/store/$agent/spiffe_id"
    mv "$RIG/leaf.pem" "$RIG/store/$agent/chain.pem"
    printf '%s\n' "$id" > "$RIG/store/$agent/key_id"
}

rig_store() {
    mkdir -p "$RIG/store/keys" "$RIG/run"
    chmod 755 "$RIG" "$RIG/run"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$RIG/ca.key" -out "$RIG/ca.pem" \
        -days 2 -subj "/CN=test CA" -addext keyUsage=critical,keyCertSign,cRLSign 2> /dev/null
    printf '%s\n' "${1:-market-data}" > "$RIG/store/agent"
    rig_key "${1:-market-data}"
}

# rig_server NAME…: starts them in one process; its pid is in RIG_LAST
rig_server() {
    "$RIG_SERVERS" "$RIG/run" "$RIG/store" "$@" > "$RIG/$1.out" 2>> "$RIG/servers.log" &
    RIG_LAST=$!
    rig_pids+=("$RIG_LAST")
    rig_wait grep -q ready "$RIG/$1.out"
}

# rig_tokend [OPTIONS]
rig_tokend() {
    cat > "$RIG/attestd.yaml" << YAML
state_dir: $RIG/state
run_dir: $RIG/run
log_level: debug
YAML
    "$RIG_BIN/attestd-tokend" --config "$RIG/attestd.yaml" "$@" 2>> "$RIG/tokend.log" &
    RIG_TOKEND=$!
    rig_pids+=("$RIG_TOKEND")
    rig_wait test -S "$RIG_SOCKET"
}

# rig_wait COMMAND…: until it succeeds; 60 s end a wait that is in vain and say nothing about speed
rig_wait() {
    local until=$(($(date +%s) + 60))
    while [ "$(date +%s)" -le "$until" ]; do
        "$@" > /dev/null 2>&1 && return 0
        sleep 0.05
    done
    echo "waited 60 s in vain for: $*" >&2
    return 1
}

rig_end() {
    local pid
    for pid in "${rig_pids[@]}"; do
        kill "$pid" 2> /dev/null || true
    done
    for pid in "${rig_pids[@]}"; do
        wait "$pid" 2> /dev/null || true
    done
    rm -rf "$RIG"
}
