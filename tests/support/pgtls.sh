# shellcheck shell=bash
# shellcheck disable=SC2154 # dir comes from job.sh
# A PostgreSQL that is reached over TLS with client certificates only, and its CA, by openssl. Source it after job.sh.

# pgtls_ca NAME: $dir/pki/NAME.{pem,key}
pgtls_ca() {
    mkdir -p "$dir/pki"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" -keyout "$dir/pki/$1.key" \
        -out "$dir/pki/$1.pem" -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign 2> "$dir/tmp/openssl"
}

# pgtls_leaf NAME CA CN [SAN]
pgtls_leaf() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$3" -keyout "$dir/pki/$1.key" -out "$dir/pki/$1.csr" 2> "$dir/tmp/openssl"
    printf 'basicConstraints=CA:false\n%s' "${4:+subjectAltName=$4}" > "$dir/pki/$1.ext"
    openssl x509 -req -in "$dir/pki/$1.csr" -CA "$dir/pki/$2.pem" -CAkey "$dir/pki/$2.key" -days 30 -set_serial "$RANDOM$RANDOM" \
        -extfile "$dir/pki/$1.ext" -out "$dir/pki/$1.pem" 2> "$dir/tmp/openssl"
}

# pgtls_server LEAF CA: what the server reads, in $job_pg, which is made where it is not there
pgtls_server() {
    # shellcheck source=../support/postgres.sh
    . "$ATT_SOURCE_DIR/tests/support/postgres.sh"
    pg_bin > /dev/null || job_skip "no PostgreSQL server"
    if [ -z "${job_pg:-}" ]; then
        job_pg=$(mktemp -d "${TMPDIR:-/tmp}/att-pg.XXXXXX")
        chmod 755 "$job_pg"
    fi
    cp "$dir/pki/$1.pem" "$job_pg/server.pem"
    cp "$dir/pki/$2.pem" "$job_pg/ca.pem"
    (umask 077 && cp "$dir/pki/$1.key" "$job_pg/server.key")
    printf 'local all att trust\nhostssl all all all cert\n' > "$job_pg/hba.conf"
    if [ "$(id -u)" -eq 0 ]; then
        chown postgres "$job_pg"/server.* "$job_pg"/*.pem "$job_pg/hba.conf"
    fi
}

# pgtls_start ADDRESS PORT COMMAND...: COMMAND (a word like job_start postgres) gets what starts it
pgtls_start() {
    local address=$1 port=$2
    shift 2
    "$@" "$ATT_SOURCE_DIR/tests/support/postgres.sh" serve "$job_pg" -c listen_addresses="$address" -c port="$port" -c ssl=on \
        -c ssl_cert_file="$job_pg/server.pem" -c ssl_key_file="$job_pg/server.key" -c ssl_ca_file="$job_pg/ca.pem" \
        -c hba_file="$job_pg/hba.conf"
    export PGPORT=$port # of the socket's name
    wait_for 120 pg_sql "$job_pg" postgres "SELECT 1"
}
