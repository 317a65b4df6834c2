# shellcheck shell=bash
# A port for a test that runs beside others.

# job_port: $port is nobody's, and this test's until it ends: below the ports that the kernel gives to
# clients (32768 …), held by a locked file against tests that run beside this one.
job_port() {
    local locks=${TMPDIR:-/tmp}/att-ports.$UID tries
    mkdir -p "$locks"
    for tries in $(seq 200); do
        port=$((20000 + RANDOM % 4000))
        exec {job_port_lock}> "$locks/$port"
        if flock -n "$job_port_lock" && ! job_port_used "$port"; then
            return 0
        fi
        exec {job_port_lock}>&-
    done
    echo "FAIL: no free port in $tries tries"
    return 1
}
job_port_lock=9 # closed for what job_start starts, also before there is a port
job_port_used() { # as a local port, in whatever state
    local net
    for net in /proc/net/tcp /proc/net/tcp6; do
        ! grep -qsE "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") " "$net" || return 0
    done
    return 1
}
# port_into VARIABLE: the same, and $port stays what it was
port_into() {
    local port
    job_port
    printf -v "$1" %s "$port"
}
