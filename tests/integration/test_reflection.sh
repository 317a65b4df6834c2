#!/usr/bin/env bash
# gRPC's server reflection at spiffed, which answers everybody, also while attestd is not there: gRPC's Python library finds
# every service, method and type by it, as protoc describes them; what there is not is NOT_FOUND; its bounds.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
command -v protoc > /dev/null || job_skip "no protoc"
/usr/bin/python3 -c 'import grpc, google.protobuf' 2> /dev/null || job_skip "no python3-grpcio"
job_setup
# shellcheck source=../support/spiffe/alone.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe/alone.sh"
start_alone --slow 2
stubs=$dir/stubs
mkdir "$stubs"
protos=$ATT_SOURCE_DIR/attestd/spiffe/proto
protoc -I "$protos" --python_out "$stubs" "$protos/reflection.proto" "$protos/reflection_v1alpha.proto"
for proto in "$protos"/*.proto; do
    protoc -I "$protos" -o "$stubs/$(basename "$proto" .proto).pb" "$proto"
done
PYTHONDONTWRITEBYTECODE=1 timeout 300 /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/spiffe/reflection.py" "$stubs" "$socket" "$stubs"/*.pb

# ---- more requests than answers that are read ----
# Nine answers wait at most; by frames, since gRPC's library reads.
/usr/bin/python3 -c 'import hpack' 2> /dev/null || job_skip "no python3-hpack; the rest held"
cp "$ATT_SOURCE_DIR/tests/support/spiffe/streams.py" "$stubs/"
for n in 9 10; do
    (cd "$stubs" && PYTHONDONTWRITEBYTECODE=1 timeout 60 /usr/bin/python3 - "$socket" $n) > "$dir/tmp/$n" << 'PYTHON'
import struct
import sys

import streams

one = streams.connect(sys.argv[1])
ask = b"\x22\x05nobod"
message = struct.pack(">BI", 0, len(ask)) + ask
block = one.encoder.encode([(":path", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")] + streams.CALL)
body = message * int(sys.argv[2])
one.socket.sendall(struct.pack(">I", len(block))[1:] + struct.pack(">BBI", streams.HEADERS, 4, 1) + block +
                   struct.pack(">I", len(body))[1:] + struct.pack(">BBI", streams.DATA, 1, 1) + body)
while not one.over and not one.ended:
    one.read()
print(one.ended)
PYTHON
done
[ "$(cat "$dir/tmp/9" "$dir/tmp/10" | tr '\n' ' ')" = "{1: 0} {1: 8} " ] || job_fail "requests at once: $(cat "$dir/tmp/9" "$dir/tmp/10")"
echo "nine requests in one frame are answered, ten are RESOURCE_EXHAUSTED"
job_stop spiffed
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "reflection: all held"
