#!/usr/bin/env bash
# Java (SunPKCS11), Node and a real sshd with an agent's key; the lighter programs are in
# tests/integration/test_clients.sh. What is not installed is left out, and said.
set -euo pipefail
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || { echo "skipped: no p11-kit-client.so (package p11-kit-modules)"; exit 77; }
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
# shellcheck source=../support/token/clients.sh
. "$ATT_SOURCE_DIR/tests/support/token/clients.sh"
trap rig_end EXIT
rig_store market-data
rig_server attestd whod
rig_server keyd
rig_tokend
clients_setup

# ---- Java --------------------------------------------------------------------------------------------------
java_config() {
    printf 'name = attestd\nlibrary = %s\nslotListIndex = 0\n' "$module" > "$RIG/p11.cfg"
}
keytools() { timeout 120 keytool -storetype PKCS11 -keystore NONE -storepass '' -providerClass sun.security.pkcs11.SunPKCS11 \
    -providerArg "$RIG/p11.cfg" "$@" > "$RIG/out" 2>&1 < /dev/null; }
if have keytool; then
    java_config
    keytools -list || { cat "$RIG/out"; fail "keytool -list"; }
    grep -q '^agent, PrivateKeyEntry' "$RIG/out" || { cat "$RIG/out"; fail "keytool shows no key"; }
    keytools -certreq -alias agent -file "$RIG/java.csr" || { cat "$RIG/out"; fail "keytool -certreq"; }
    openssl req -in "$RIG/java.csr" -noout -verify 2> "$RIG/out" || { cat "$RIG/out"; fail "the signature of keytool"; }
    [ "$(openssl req -in "$RIG/java.csr" -noout -pubkey)" = "$(openssl x509 -in "$chain" -noout -pubkey)" ] || fail "keytool signed with another key"
    ok "Java: keytool lists and signs ($(java --version | head -n 1))"
    if have javac; then
        javac -d "$RIG/java" "$support/TlsClient.java"
        javas() { timeout 120 java -cp "$RIG/java" TlsClient "$RIG/p11.cfg" "$RIG/ca.pem" "$port" > "$RIG/out" 2>&1 < /dev/null; }
        javas || { cat "$RIG/out"; fail "Java, TLS"; }
        [ "$(cut -c1-3 "$RIG/out" | tr '\n' ' ')" = "200 200 " ] || { cat "$RIG/out"; fail "Java, TLS"; }
        stranger java
        ! javas || fail "Java signs for nobody's agent"
        no_stranger
        ok "Java: TLS 1.3 and 1.2 by SunPKCS11"
    else
        skipped "Java's TLS (package default-jdk-headless, to compile the example)"
    fi
else
    skipped "Java (package default-jdk-headless)"
fi

# ---- Go (Debian's own, without modules: its packages are in GOPATH) ------------------------------------------
crypto11=/usr/share/gocode/src/github.com/ThalesIgnite/crypto11
if [ -x /usr/bin/go ] && [ -d $crypto11 ] && have gcc; then
    (cd "$RIG" && GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$RIG/go GOTOOLCHAIN=local GOFLAGS='' CGO_ENABLED=1 \
        nice /usr/bin/go build -o "$RIG/go-client" "$support/tls_client.go") > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "go build"; }
    gos() { timeout 120 "$RIG/go-client" "$module" "$port" "$RIG/ca.pem" > "$RIG/out" 2>&1 < /dev/null; }
    gos || { cat "$RIG/out"; fail "Go"; }
    [ "$(tr '\n' ' ' < "$RIG/out")" = "200 0x304 200 0x303 " ] || { cat "$RIG/out"; fail "Go"; }
    stranger go-client
    ! gos || fail "Go signs for nobody's agent"
    no_stranger
    ok "Go: crypto/tls by crypto11, TLS 1.3 and 1.2 ($(/usr/bin/go version | cut -d' ' -f3))"
else
    skipped "Go (packages golang-go, golang-github-thalesignite-crypto11-dev)"
fi

# ---- Node ---------------------------------------------------------------------------------------------------
if have node; then
    nodes() { timeout 120 node "$@" > "$RIG/out" 2>&1 < /dev/null; }
    if have_engine; then
        engine=$(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
        by_engine() { PKCS11_MODULE_PATH=$module nodes "$support/tls_client.js" "$port" "$RIG/ca.pem" "$chain" "$engine" "$key"; }
        by_engine || { cat "$RIG/out"; fail "Node with the engine"; }
        grep -q '^200' "$RIG/out" || { cat "$RIG/out"; fail "Node with the engine"; }
        stranger node
        ! by_engine || fail "Node signs for nobody's agent"
        no_stranger
        ok "Node $(node --version): privateKeyEngine, privateKeyIdentifier"
    else
        skipped "Node with the engine (package libengine-pkcs11-openssl)"
    fi
    if have_provider && [ "$(node -p 'process.config.variables.node_shared_openssl')" = true ]; then
        by_file() { OPENSSL_CONF=$RIG/provider.cnf nodes --openssl-shared-config "$support/tls_client.js" "$port" "$RIG/ca.pem" "$chain" "$key_uri_file"; }
        by_file || { cat "$RIG/out"; fail "Node with the provider"; }
        grep -q '^200' "$RIG/out" || { cat "$RIG/out"; fail "Node with the provider"; }
        stranger node
        ! by_file || fail "Node signs for nobody's agent"
        no_stranger
        ok "Node $(node --version): --openssl-shared-config, key: agent-key.pem"
    else
        skipped "Node with the provider (packages pkcs11-provider and Debian's own nodejs, linked with Debian's OpenSSL)"
    fi
else
    skipped "Node (package nodejs)"
fi

# ---- SSH ------------------------------------------------------------------------------------------------------
sshd=$(PATH=$PATH:/usr/sbin command -v sshd || true)
if have ssh && [ -n "$sshd" ] && [ "$(id -u)" = 0 ]; then
    port_into at
    mkdir -p /run/sshd "$RIG/ssh"
    ssh-keygen -q -t ed25519 -N '' -f "$RIG/ssh/host"
    run ssh-keygen -D "$module" 2> /dev/null | grep ' agent$' > "$RIG/ssh/authorized"
    cat > "$RIG/ssh/config" << END
ListenAddress 127.0.0.1:$at
HostKey $RIG/ssh/host
AuthorizedKeysFile $RIG/ssh/authorized
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
PidFile none
END
    "$sshd" -D -e -f "$RIG/ssh/config" 2> "$RIG/ssh/log" &
    rig_pids+=($!)
    rig_wait connects "$at" || { cat "$RIG/ssh/log"; fail "sshd"; }
    printf '[127.0.0.1]:%s %s\n' "$at" "$(cut -d' ' -f1,2 "$RIG/ssh/host.pub")" > "$RIG/ssh/known"
    # shellcheck disable=SC2016 # for the other side's shell
    login() {
        run ssh -F none -o PKCS11Provider="$module" -o UserKnownHostsFile="$RIG/ssh/known" -o IdentityAgent=none -o ForwardAgent=no \
            -o BatchMode=yes -p "$at" 127.0.0.1 'echo "in, agent ${SSH_AUTH_SOCK:-none}"' > "$RIG/out" 2>&1
    }
    login || { cat "$RIG/out" "$RIG/ssh/log"; fail "ssh"; }
    grep -q '^in, agent none$' "$RIG/out" || { cat "$RIG/out"; fail "ssh"; }
    stranger ssh
    ! login || fail "ssh logs in as nobody's agent"
    no_stranger
    ok "ssh: PKCS11Provider, forwarding of an SSH agent off"
else
    skipped "ssh to an sshd (package openssh-server; root)"
fi
