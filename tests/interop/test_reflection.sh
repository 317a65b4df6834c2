#!/usr/bin/env bash
# gRPC's server reflection by clients that others wrote: grpcio-reflection (PyPI) in a venv, and grpcurl (Go module).
# ATT_GRPCURL: a grpcurl that is there already; else go brings it. What cannot be had is left out, and said.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
# shellcheck source=../support/spiffe/alone.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe/alone.sh"
start_alone
ok() { echo "ok: $*"; }
tried=0

# ---- grpcio-reflection ----
if /usr/bin/python3 -m venv "$dir/venv" > "$dir/tmp/pip" 2>&1 &&
    timeout 300 "$dir/venv/bin/pip" install -q grpcio grpcio-reflection >> "$dir/tmp/pip" 2>&1; then
    "$dir/venv/bin/python" - "$socket" << 'PYTHON' || job_fail "grpcio-reflection"
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

database = ProtoReflectionDescriptorDatabase(grpc.insecure_channel("unix://" + sys.argv[1]))
pool = DescriptorPool(database)
services = sorted(database.get_services())
assert services[0] == "SpiffeWorkloadAPI" and len(services) == 6, services
for name in services:
    for method in pool.FindServiceByName(name).methods:
        assert method.input_type.full_name and method.output_type.full_name, method
assert [field.name for field in pool.FindMessageTypeByName("X509SVID").fields] == [
    "spiffe_id", "x509_svid", "x509_svid_key", "bundle", "hint"]
try:
    pool.FindMessageTypeByName("attestd.v1.Nobody")
    sys.exit("a type that is not there")
except KeyError:
    pass
PYTHON
    ok "grpcio-reflection $("$dir/venv/bin/pip" list 2> /dev/null | awk '$1 == "grpcio-reflection" {print $2}'): services, methods, fields; an unknown type is a KeyError"
    tried=1
else
    echo "left out: pip cannot fetch grpcio-reflection"
fi

# ---- grpcurl ----
grpcurl=${ATT_GRPCURL:-}
if [ -z "$grpcurl" ] && command -v go > /dev/null && GOFLAGS=-mod=mod GOPATH="$dir/go" GOBIN="$dir/go/bin" \
    timeout 500 go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3 > "$dir/tmp/go" 2>&1; then
    grpcurl=$dir/go/bin/grpcurl
fi
[ ! -d "$dir/go" ] || chmod -R u+w "$dir/go" # so that it can be removed
if [ -n "$grpcurl" ]; then
    curl=("$grpcurl" -plaintext) # its -unix takes a path for a TCP address (1.9.3)
    "${curl[@]}" "unix://$socket" list > "$dir/tmp/list" || job_fail "grpcurl list"
    [ "$(wc -l < "$dir/tmp/list")" = 6 ] && grep -qx attestd.v1.Signer "$dir/tmp/list" || job_fail "$(cat "$dir/tmp/list")"
    "${curl[@]}" "unix://$socket" describe SpiffeWorkloadAPI.FetchX509SVID | grep -q 'rpc FetchX509SVID ( .X509SVIDRequest ) returns ( stream .X509SVIDResponse );' ||
        job_fail "grpcurl describe"
    ! "${curl[@]}" "unix://$socket" describe attestd.v1.Nobody > "$dir/tmp/nobody" 2>&1 || job_fail "grpcurl describes what is not there"
    grep -qi 'not found' "$dir/tmp/nobody" || job_fail "$(cat "$dir/tmp/nobody")"
    # Called by what reflection said, and refused by the service's own words: attestd is not there.
    "${curl[@]}" "unix://$socket" grpc.health.v1.Health/Check > "$dir/tmp/health" || job_fail "grpcurl Health/Check"
    grep -q '"status": "NOT_SERVING"' "$dir/tmp/health" || job_fail "$(cat "$dir/tmp/health")"
    ! "${curl[@]}" -d '{"algorithm": 1, "digest": "AAAA"}' "unix://$socket" attestd.v1.Signer/Sign > "$dir/tmp/sign" 2>&1 || job_fail "a signature"
    grep -q 'Code: InvalidArgument' "$dir/tmp/sign" || job_fail "$(cat "$dir/tmp/sign")"
    ok "grpcurl: list, describe, calls with no .proto file"
    tried=1
else
    echo "left out: no grpcurl, and go cannot fetch it"
fi
[ $tried = 1 ] || job_skip "neither client"
job_stop spiffed
echo "reflection: all held"
