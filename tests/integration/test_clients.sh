#!/usr/bin/env bash
# Unmodified programs and an agent's key, as docs/AGENTS.md shows them: each makes a handshake or a signature that
# somebody else checks, and each is refused when it is nobody's agent. What is not installed is left out, and said.
# The rest of the programs (nginx, Java, Node, sshd) is in tests/interop.
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

# ---- OpenSSL: the engine (Debian 12), the provider (Debian 13) ---------------------------------------------
s_client() { # s_client OPTIONS: against the server that wants a client's certificate
    echo Q | timeout 60 openssl s_client -connect "127.0.0.1:$port" -cert "$chain" -CAfile "$RIG/ca.pem" -verify_return_error \
        -brief "$@" > "$RIG/out" 2>&1
}
serves() { # serves OPTIONS: s_server with the agent's key; a client without one checks its chain
    local at
    port_into at
    openssl s_server -accept "127.0.0.1:$at" -cert "$chain" -www "$@" > "$RIG/s_server.log" 2>&1 &
    rig_pids+=($!)
    rig_wait connects "$at" || { cat "$RIG/s_server.log"; fail "s_server with $*"; }
    echo Q | OPENSSL_CONF='' timeout 60 openssl s_client -connect "127.0.0.1:$at" -CAfile "$RIG/ca.pem" -verify_return_error \
        -brief > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "a client of s_server with $*"; }
    grep -q 'CN *= *market-data' "$RIG/out" || { cat "$RIG/out"; fail "s_server with $* shows another certificate"; }
}
signed_with() { # signed_with OPTIONS: of openssl dgst; checked with the certificate's key
    printf 'an order' > "$RIG/data"
    run openssl dgst -sha256 "$@" -out "$RIG/sig" "$RIG/data" 2> "$RIG/out" || { cat "$RIG/out"; fail "openssl dgst $*"; }
    openssl x509 -in "$chain" -noout -pubkey > "$RIG/pub.pem"
    OPENSSL_CONF='' openssl dgst -sha256 -verify "$RIG/pub.pem" -signature "$RIG/sig" "$RIG/data" > /dev/null || fail "the signature of openssl dgst $*"
}
if have_engine; then
    export OPENSSL_CONF=$RIG/engine.cnf
    s_client -engine pkcs11 -keyform engine -key "$key" || { cat "$RIG/out"; fail "s_client, engine"; }
    serves -engine pkcs11 -keyform engine -key "$key"
    signed_with -engine pkcs11 -keyform engine -sign "$key"
    stranger openssl
    ! s_client -engine pkcs11 -keyform engine -key "$key" || fail "s_client signs for nobody's agent"
    no_stranger
    ok "OpenSSL's engine: s_client, s_server, dgst"
    if have curl && curl --version | grep -q OpenSSL; then
        curls --key "$key" --cert "$cert"
        curls --engine pkcs11 --key-type ENG --key "$key" --cert-type ENG --cert "$cert"
        # attestctl run sets this one variable: no configuration is needed
        OPENSSL_CONF='' PKCS11_MODULE_PATH=$module curls --key "$key" --cert "$cert"
        stranger curl
        ! answered --key "$key" --cert "$cert" || fail "curl signs for nobody's agent"
        no_stranger
        ok "curl: --cert and --key pkcs11:…, with a configuration and with PKCS11_MODULE_PATH alone"
    else
        skipped "curl (package curl, linked with OpenSSL)"
    fi
    unset OPENSSL_CONF
else
    skipped "OpenSSL's engine (package libengine-pkcs11-openssl)"
fi
if have_provider; then
    export OPENSSL_CONF=$RIG/provider.cnf
    s_client -key "$key" || { cat "$RIG/out"; fail "s_client, provider"; }
    s_client -key "$key_uri_file" || { cat "$RIG/out"; fail "s_client, provider, key by a file"; }
    serves -key "$key"
    signed_with -sign "$key_uri_file"
    stranger openssl
    ! s_client -key "$key" || fail "s_client signs for nobody's agent"
    no_stranger
    ok "OpenSSL's provider: s_client, s_server, dgst; the key by URI and by the file agent-key.pem"
    if have curl && curl --version | grep -q OpenSSL; then
        curls --key "$key_uri_file" --cert "$chain"
        stranger curl
        ! answered --key "$key_uri_file" --cert "$chain" || fail "curl signs for nobody's agent"
        no_stranger
        ok "curl with the provider: --key agent-key.pem"
    fi
    unset OPENSSL_CONF
else
    skipped "OpenSSL's provider (package pkcs11-provider: Debian 13, or backports of 12)"
fi

# ---- Python --------------------------------------------------------------------------------------------------
python=/usr/bin/python3 # Debian's own: with Debian's OpenSSL
pythons() { OPENSSL_CONF=$RIG/provider.cnf timeout 120 "$python" "$support/$1" "$port" "$RIG/ca.pem" "$chain" "$key_uri_file" > "$RIG/out" 2>&1 < /dev/null; }
if have_provider; then
    pythons ssl_client.py || { cat "$RIG/out"; fail "Python's ssl"; }
    [ "$(grep -c '^200' "$RIG/out")" = 20 ] || { cat "$RIG/out"; fail "20 handshakes of Python's ssl"; }
    stranger python3
    ! pythons ssl_client.py || fail "Python signs for nobody's agent"
    no_stranger
    ok "Python: ssl.SSLContext.load_cert_chain(chain, agent-key.pem), 20 handshakes"
    if "$python" -c 'import requests' 2> /dev/null; then
        pythons requests_client.py || { cat "$RIG/out"; fail "requests"; }
        [ "$(grep -c '^200' "$RIG/out")" = 2 ] || { cat "$RIG/out"; fail "requests, urllib3"; }
        ok "Python: requests and urllib3"
    else
        skipped "requests (package python3-requests)"
    fi
else
    skipped "Python's ssl and requests: they need OpenSSL's provider"
fi
if "$python" -c 'import pycurl' 2> /dev/null; then
    drop_in
    as_user "$python" "$support/pycurl_client.py" "$port" "$RIG/ca.pem" "$cert" "$key" > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "pycurl"; }
    grep -q '^200' "$RIG/out" || { cat "$RIG/out"; fail "pycurl"; }
    stranger python3
    ! as_user "$python" "$support/pycurl_client.py" "$port" "$RIG/ca.pem" "$cert" "$key" > "$RIG/out" 2>&1 || fail "pycurl signs for nobody's agent"
    no_stranger
    ok "Python: pycurl, by p11-kit's drop-in, without any provider"
else
    skipped "pycurl (package python3-pycurl)"
fi

# ---- GnuTLS ---------------------------------------------------------------------------------------------------
if have gnutls-cli && have gnutls-serv; then
    port_into at
    timeout 120 gnutls-serv --provider "$module" --x509keyfile "$key" --x509certfile "$cert" --x509cafile "$RIG/ca.pem" \
        --require-client-cert --verify-client-cert --echo -p "$at" > "$RIG/serv.log" 2>&1 &
    rig_pids+=($!)
    rig_wait connects "$at" || { cat "$RIG/serv.log"; fail "gnutls-serv"; }
    gnutls() {
        run gnutls-cli --provider "$module" --x509keyfile "$key" --x509certfile "$cert" --x509cafile "$RIG/ca.pem" \
            --insecure -p "$at" 127.0.0.1 > "$RIG/out" 2>&1
    }
    # SPIFFE certificates have no host name: who the server is, is looked at below.
    gnutls || { cat "$RIG/out"; fail "gnutls-cli to gnutls-serv, both with the agent's key"; }
    grep -q 'Handshake was completed' "$RIG/out" && grep -q 'subject .CN=market-data' "$RIG/out" || { cat "$RIG/out"; fail "gnutls-cli"; }
    stranger gnutls-cli
    ! gnutls || fail "gnutls-cli signs for nobody's agent"
    no_stranger
    run p11tool --provider "$module" --test-sign "$key" > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "p11tool --test-sign"; }
    [ "$(grep -c '\.\.\. ok' "$RIG/out")" = 3 ] || { cat "$RIG/out"; fail "p11tool --test-sign"; }
    run p11tool --provider "$module" --info "$key" > "$RIG/out" 2>&1 || fail "p11tool --info"
    grep -q 'CKA_NEVER_EXTRACTABLE' "$RIG/out" || { cat "$RIG/out"; fail "p11tool --info"; }
    run p11tool --provider "$module" --list-mechanisms pkcs11:token=attestd > "$RIG/out" 2>&1 || fail "p11tool --list-mechanisms"
    [ "$(grep -c CKM_ "$RIG/out")" = 1 ] && grep -q CKM_ECDSA "$RIG/out" || { cat "$RIG/out"; fail "mechanisms"; }
    ok "GnuTLS: gnutls-cli, gnutls-serv, p11tool --test-sign"
else
    skipped "GnuTLS (package gnutls-bin)"
fi

# ---- pkcs11-tool ------------------------------------------------------------------------------------------------
if have pkcs11-tool; then
    run pkcs11-tool --module "$module" --test > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "pkcs11-tool --test"; }
    # Its one finding is p11-kit's: no answer of its RPC carries zero bytes.
    grep -v 'C_GenerateRandom(buf1,0) failed: CKR_BUFFER_TOO_SMALL' "$RIG/out" > "$RIG/findings"
    ! grep -E 'ERR|rror:|failed' "$RIG/findings" || { cat "$RIG/out"; fail "findings of pkcs11-tool --test"; }
    [ "$(sed -n 's/^\([0-9]*\) errors$/\1/p;s/^No errors$/0/p' "$RIG/out")" -le 1 ] || { cat "$RIG/out"; fail "pkcs11-tool --test counts more"; }
    run pkcs11-tool --module "$module" --list-slots --list-mechanisms --list-objects > "$RIG/out" 2>&1 || fail "pkcs11-tool, lists"
    ! grep -q 'login required' "$RIG/out" || fail "pkcs11-tool: a login is wanted"
    run pkcs11-tool --module "$module" --login --pin nonsense -O > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "pkcs11-tool --login"; }
    stranger pkcs11-tool
    ! run pkcs11-tool --module "$module" --test > "$RIG/out" 2>&1 || fail "pkcs11-tool --test for nobody's agent"
    no_stranger
    ok "pkcs11-tool --test: nothing found but what p11-kit's RPC lacks"
else
    skipped "pkcs11-tool (package opensc)"
fi

# ---- SSH --------------------------------------------------------------------------------------------------------
if have ssh-keygen && have ssh; then
    run ssh-keygen -D "$module" > "$RIG/out" 2> "$RIG/err" || { cat "$RIG/err"; fail "ssh-keygen -D"; }
    # The certificates' keys are listed, too; only the agent's has a private half.
    [ "$(grep -c ' agent$' "$RIG/out")" = 1 ] || { cat "$RIG/out"; fail "ssh-keygen -D shows other than one agent's key"; }
    grep ' agent$' "$RIG/out" | cut -d' ' -f1,2 > "$RIG/ssh.pub"
    openssl x509 -in "$chain" -noout -pubkey > "$RIG/pub.pem"
    [ "$(ssh-keygen -i -m PKCS8 -f "$RIG/pub.pem")" = "$(cat "$RIG/ssh.pub")" ] || fail "ssh-keygen -D shows another key than the certificate's"
    stranger ssh-keygen
    ! run ssh-keygen -D "$module" > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "ssh-keygen lists keys for nobody's agent"; }
    no_stranger
    ok "ssh-keygen -D"
else
    skipped "ssh-keygen (package openssh-client)"
fi
