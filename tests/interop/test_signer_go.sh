#!/usr/bin/env bash
# The example in Go (docs/examples/go) with real processes, without cgo: a file signed by a TPM's key and verified by
# openssl; mutual TLS 1.3 by two agents with such keys, over a rotation of the server's; peers and programs that are none
# are refused. ATT_GO_SIGNER_BIN: the example, built; else it is built as its README says, with modules of the Go proxy
# (minutes; with ATT_LONG=1).
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
[ -n "${ATT_GO_SIGNER_BIN:-}${ATT_LONG:-}" ] || job_skip "the example is built from modules of the Go proxy: ATT_LONG=1"
for tool in setpriv protoc; do command -v $tool > /dev/null || job_skip "no $tool"; done
go=$(command -v go) || [ -n "${ATT_GO_SIGNER_BIN:-}" ] || job_skip "no Go"
job_setup
chmod 755 "$dir" "$dir/tmp" "$dir/run"
program=$dir/sign
if [ -n "${ATT_GO_SIGNER_BIN:-}" ]; then
    cp "$ATT_GO_SIGNER_BIN" "$program"
else
    cp -r "$ATT_SOURCE_DIR/docs/examples/go" "$dir/source"
    export GOTOOLCHAIN=local GOFLAGS='' CGO_ENABLED=0 GOBIN=$dir/gobin PATH=$dir/gobin:$PATH
    build() {
        cd "$dir/source" || return 1
        timeout 600 "$go" install google.golang.org/protobuf/cmd/protoc-gen-go@v1.32.0 &&
            timeout 600 "$go" install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.3.0 &&
            protoc -I "$ATT_SOURCE_DIR/attestd/spiffe/proto" --go_out=. --go-grpc_out=. \
                --go_opt=module=attest.example/sign,Msigner.proto=attest.example/sign/signerpb \
                --go-grpc_opt=module=attest.example/sign,Msigner.proto=attest.example/sign/signerpb signer.proto &&
            timeout 600 "$go" mod download
    }
    (build) > "$dir/tmp/build" 2>&1 || { cat "$dir/tmp/build"; job_skip "the modules cannot be had here"; }
    (cd "$dir/source" && nice "$go" build -o "$program" .) > "$dir/tmp/build" 2>&1 || { cat "$dir/tmp/build"; job_fail "go build"; }
fi
chmod 755 "$program"
! readelf -l "$program" 2> /dev/null | grep -q INTERP || job_fail "not static"

user=62001 peer=62002 stranger=62003
socket=$dir/run/public/api.sock domain=spiffe://bank.example
export SPIFFE_ENDPOINT_SOCKET=unix://$socket
as_user() { timeout 60 setpriv --reuid "$1" --regid "$1" --clear-groups "$program" "${@:2}"; }
refused() { # refused WORDS USER COMMAND…
    ! as_user "${@:2}" > "$dir/tmp/out" 2> "$dir/tmp/err" || job_fail "${*:2}: not refused"
    grep -q "$1" "$dir/tmp/err" || { cat "$dir/tmp/err"; job_fail "${*:2}: expected $1"; }
}
job_make_tpm
job_write_conf
status=0
trap 'status=$?; set +e; job_stop serve KILL; (exit $status); job_cleanup' EXIT
spiffe_start_all
{
    echo "trust_domain: bank.example"
    echo "agents:"
    for one in "alpha $user" "beta $peer"; do
        printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: {uid: %s}, key: tpm, profile: trading}\n' \
            "${one% *}" "$(job_host_id)" "${one#* }"
    done
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
wait_for 60 job_settled alpha
wait_for 60 job_settled beta
install -d -o $user "$dir/work"
echo "a trade" > "$dir/work/trade"
signs() { as_user $user "$dir/work/trade" > "$dir/work/sig" 2> "$dir/tmp/err"; }
wait_for 30 signs
openssl x509 -in "$dir/work/trade.chain.pem" -noout -pubkey > "$dir/tmp/pub"
openssl dgst -sha256 -verify "$dir/tmp/pub" -signature "$dir/work/sig" "$dir/work/trade" > /dev/null || job_fail "the signature"
refused "code = PermissionDenied desc = .*notAssigned" $stranger "$dir/work/trade"
ok "Go, static: a signature by the TPM's key, verified by openssl; nobody's agent is refused"

job_start serve setpriv --reuid $user --regid $user --clear-groups "$program" --serve 127.0.0.1:0 $domain/agent/beta
listens() { grep -q '^listening on ' "$dir/log/serve.log"; }
wait_for 30 listens
at=$(sed -n 's/^listening on //p' "$dir/log/serve.log")
hello() { [ "$(as_user $peer --connect "$at" $domain/agent/alpha 2> "$dir/tmp/err")" = hello ]; }
wait_for 30 hello
refused "the peer is .*alpha.*, expected $domain/agent/gamma" $peer --connect "$at" $domain/agent/gamma
refused "." $user --connect "$at" $domain/agent/alpha # alpha is not beta: the server ends it
grep -q "refused: the peer is .*agent/alpha.*, expected $domain/agent/beta" "$dir/log/serve.log" || { cat "$dir/log/serve.log"; job_fail "the server's word"; }
serial() { { openssl s_client -connect "$at" < /dev/null 2> /dev/null || true; } | openssl x509 -noout -serial; } # then it is refused
before=$(serial)
ctl agent rotate alpha > /dev/null
wait_for 60 job_settled alpha
another() {
    local now
    now=$(serial)
    [ -n "$now" ] && [ "$now" != "$before" ]
}
wait_for 30 another
hello || { cat "$dir/tmp/err"; job_fail "after a rotation"; }
ok "mutual TLS 1.3 by keys in the TPM on both ends, over a rotation without a restart; other peers are refused by their SPIFFE ID"
! grep -lE 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "Signer from Go: all held"
