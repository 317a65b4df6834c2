#!/usr/bin/env bash
# A PostgreSQL of a test's own, on a unix socket in a folder of its own; as root it runs as the user
# "postgres" of Debian's package, which root's files are not readable for.
#   postgres.sh serve DIR [OPTION...]   makes DIR/data if it is not there, then is the server (exec); ends with its parent
# Sourced: pg_serve DIR [OPTION...] the same, pg_bin the programs' folder, pg_sql DIR DATABASE [SQL].
# DIR is the socket's folder; the superuser is "att". Nothing is synced unless ATT_TEST_FSYNC=on.

pg_bin() {
    local bin
    bin=$(find /usr/lib/postgresql/*/bin -name postgres 2> /dev/null | sort -V | tail -n 1)
    [ -n "$bin" ] && dirname "$bin"
}

pg_as() {
    if [ "$(id -u)" -eq 0 ]; then
        exec setpriv --reuid=postgres --regid=postgres --clear-groups --pdeathsig=INT "$@"
    else
        exec setpriv --pdeathsig=INT "$@"
    fi
}

pg_serve() {
    local dir=$1 bin
    shift
    bin=$(pg_bin) || { echo "no PostgreSQL server on this machine"; exit 77; }
    mkdir -p "$dir"
    if [ ! -e "$dir/data/PG_VERSION" ]; then
        [ "$(id -u)" -ne 0 ] || chown postgres:postgres "$dir"
        (cd / && pg_as "$bin/initdb" -D "$dir/data" -U att -A trust -E UTF8 --locale=C --no-sync > "$dir/initdb.log" 2>&1) ||
            { cat "$dir/initdb.log"; exit 1; }
    fi
    rm -f "$dir/data/postmaster.pid" # of one that was killed; its folder is this test's alone
    cd /
    pg_as "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync="${ATT_TEST_FSYNC:-off}" -c max_connections=64 \
        -c shared_buffers=16MB -c dynamic_shared_memory_type=mmap -c logging_collector=off "$@"
}

pg_sql() {
    psql -X -q -t -A -v ON_ERROR_STOP=1 -h "$1" -U att -d "$2" ${3+-c "$3"}
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    [ "${1:-}" = serve ] && [ $# -ge 2 ] || { echo "usage: postgres.sh serve DIR [OPTION...]" >&2; exit 2; }
    shift
    pg_serve "$@"
fi
