# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # from and for job.sh and who sources this
# api.sock with real processes, each user its own: what the tests of attestd-spiffed share. Source this after job.sh.

service=62010 # spiffed's user, as its unit has one; the other daemons are root here, and their sockets root's group's
ok() { echo "ok: $*"; }

# spiffe_setup PROGRAM MODULES PROTO...: skips where a tool, or one of Python's modules (a, b), is not here; job_setup;
# stubs of the protocols in $stubs, with PROGRAM of tests/support/spiffe, the client
spiffe_setup() {
    local program=$1 modules=$2 tool
    shift 2
    [ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
    for tool in setpriv protoc grpc_python_plugin; do
        command -v $tool > /dev/null || job_skip "no $tool"
    done
    /usr/bin/python3 -c "import grpc, google.protobuf, $modules" 2> /dev/null || job_skip "no python3-grpcio, or not all of $modules"
    job_setup
    chmod 755 "$dir" "$dir/tmp" "$dir/run"
    socket=$dir/run/public/api.sock
    support=$ATT_SOURCE_DIR/tests/support/spiffe
    stubs=$dir/stubs
    mkdir "$stubs"
    protoc -I "$support" -I "$ATT_SOURCE_DIR/attestd/spiffe/proto" --python_out "$stubs" --grpc_out "$stubs" \
        --plugin=protoc-gen-grpc="$(command -v grpc_python_plugin)" "$@"
    spiffe_program=$stubs/$program
    cp "$support/$program" "$support/streams.py" "$stubs/"
    chmod -R a+rX "$stubs"
}

# client USER COMMAND...: in place of the (sub)shell
client() {
    local uid=$1
    shift
    PYTHONDONTWRITEBYTECODE=1 exec setpriv --reuid "$uid" --regid "$uid" --clear-groups \
        /usr/bin/python3 "$spiffe_program" "$stubs" "$socket" "$@"
}
as() { # as USER COMMAND...: its lines
    local uid=$1
    shift
    PYTHONDONTWRITEBYTECODE=1 timeout 60 setpriv --reuid "$uid" --regid "$uid" --clear-groups \
        /usr/bin/python3 "$spiffe_program" "$stubs" "$socket" "$@"
}
follow() { # follow NAME USER COMMAND...: in the background; its lines are in log/NAME.log
    local name=$1 uid=$2
    shift 2
    PYTHONDONTWRITEBYTECODE=1 job_start "$name" setpriv --reuid "$uid" --regid "$uid" --clear-groups \
        /usr/bin/python3 "$spiffe_program" "$stubs" "$socket" "$@"
}
last() { tail -n 1 "$dir/log/$1.log" | jq -r "$2"; }
lines() { [ "$(wc -l < "$dir/log/$1.log")" -ge "$2" ]; }
last_is() { [ "$(last "$1" "$2")" = "$3" ]; }

job_start_keyd() { # job_start_keyd [OPTION...]
    job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service "$@"
}
job_start_attestd() { # job_start_attestd [USER]: whose process spiffed is taken to be
    job_start attestd "$bin/attestd" --config "$dir/attestd.yaml" --spiffed-user "${1:-$service}"
    wait_for 30 ctl status
}
job_start_spiffed() {
    job_start spiffed setpriv --reuid $service --regid $service --groups 0 "$bin/attestd-spiffed" --config "$dir/attestd.yaml" \
        --slow 5 --attestd-user 0 --whod-user 0 --keyd-user 0
    wait_for 30 test -S "$socket"
}
# After job_write_conf: everything, with the host approved.
spiffe_start_all() {
    install -d -o $service "$dir/run/public"
    job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml" --client 0 --client $service
    job_start_all
    chmod 644 "$dir/attestd.yaml"
    job_start_spiffed
    wait_for 60 job_host_known
    ctl host approve "$(job_host_id)" --label job > /dev/null
}

# halt NAME: stops a daemon, and does not return before each of its threads stands: one may answer until then
spiffe_stands() { ! grep -LE '^State:[[:space:]]+T' /proc/"$1"/task/*/status | grep -q .; }
halt() {
    kill -s STOP "$(job_pid "$1")"
    wait_for 10 spiffe_stands "$(job_pid "$1")"
}
