# shellcheck shell=bash
# A client of SDS that follows the rules of xDS (sds.py), for integration tests with job.sh: sds_setup, then the functions.
# $user is the agent's.

sds_setup() {
    for tool in setpriv protoc; do
        command -v $tool > /dev/null || job_skip "no $tool"
    done
    /usr/bin/python3 -c 'import grpc, google.protobuf' 2> /dev/null || job_skip "no python3-grpcio"
    # shellcheck disable=SC2154 # dir comes from job.sh
    socket=$dir/run/public/api.sock
    stubs=$dir/stubs
    log=$dir/log/stream.log
    said=0
    mkdir "$stubs"
    protoc -I "$ATT_SOURCE_DIR/attestd/spiffe/proto" --python_out "$stubs" "$ATT_SOURCE_DIR/attestd/spiffe/proto/secret.proto"
    cp "$ATT_SOURCE_DIR/tests/support/spiffe/sds.py" "$stubs/"
    chmod -R a+rX "$stubs"
}
as() { # as USER COMMAND…
    local uid=$1
    shift
    PYTHONDONTWRITEBYTECODE=1 timeout 60 setpriv --reuid "$uid" --regid "$uid" --clear-groups \
        /usr/bin/python3 "$stubs/sds.py" "$stubs" "$socket" "$@"
}
must() { # must EXPECTED FILTER USER COMMAND…
    local expected=$1 filter=$2 got
    shift 2
    as "$@" > "$dir/tmp/must" 2> "$dir/tmp/must.err" || { cat "$dir/tmp/must.err"; job_fail "$*"; }
    got=$(jq -r "$filter" "$dir/tmp/must" | tail -n 1)
    # shellcheck disable=SC2053 # a pattern
    [[ "$got" == $expected ]] || { cat "$dir/tmp/must"; job_fail "$*: $got, expected $expected"; }
}
refused() { # refused CODE MESSAGE USER COMMAND…
    local expected=$1 message=$2
    shift 2
    must "$expected" .code "$@"
    got=$(jq -r .message "$dir/tmp/must" | tail -n 1)
    # shellcheck disable=SC2053 # a pattern
    [[ "$got" == $message ]] || job_fail "$*: $got, expected $message"
}
follow() { # follow NAME…: a stream in the background that obeys what say writes
    rm -f "$dir/tmp/say"
    mkfifo "$dir/tmp/say"
    said=0
    # shellcheck disable=SC2154 # user is the test's
    PYTHONDONTWRITEBYTECODE=1 setpriv --reuid "$user" --regid "$user" --clear-groups \
        /usr/bin/python3 "$stubs/sds.py" "$stubs" "$socket" stream "$@" < "$dir/tmp/say" > "$log" 2>&1 &
    echo $! > "$dir/stream.pid"
    disown -a
    exec 8> "$dir/tmp/say"
}
did() { jq -r 'select(.did) | .did' "$log" > "$dir/tmp/did" && [ "$(wc -l < "$dir/tmp/did")" -ge "$1" ]; }
say() {
    echo "$*" >&8
    said=$((said + 1))
    wait_for 30 did $said
}
answers() { jq -c 'select(.nonce)' "$log" 2> /dev/null; }
count() { answers > "$dir/tmp/answers" && [ "$(wc -l < "$dir/tmp/answers")" = "$1" ]; }
last() { answers | tail -n 1 | jq -r "$1"; }
# What is done may be said after the call's end.
code() { [ "$(jq -r 'select(.code) | .code' "$log" 2> /dev/null)" = "$1" ]; }
