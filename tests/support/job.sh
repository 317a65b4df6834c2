# shellcheck shell=bash
# The main job with real processes, for integration tests: source this, call job_setup, then the
# job_start_* functions. Everything lies in $dir; what was started is ended by job_cleanup.
# Needs ATT_BIN_DIR and ATT_SOURCE_DIR. JOB_KEY (default tpm) is the store of the agents' keys,
# JOB_LIFETIME the profile's (default 1h; 15m, the most there is, where a key is in memory).
# JOB_STORE=postgres: the issuer's store is a PostgreSQL of this test's own, else a file.

JOB_KEY=${JOB_KEY:-tpm}
case $JOB_KEY in memory) JOB_LIFETIME=${JOB_LIFETIME:-15m} ;; *) JOB_LIFETIME=${JOB_LIFETIME:-1h} ;; esac
job_vectors=$ATT_SOURCE_DIR/tests/vectors/boot
job_pcrs="sha256:0,1,2,3,4,5,6,7,8,9,14"
# shellcheck source=port.sh
. "$ATT_SOURCE_DIR/tests/support/port.sh"

job_skip() {
    echo "skipped: $*"
    exit 77
}

job_setup() {
    local tool
    for tool in swtpm swtpm_setup tpm2_pcrextend tpm2_checkquote openssl jq; do
        command -v "$tool" > /dev/null || job_skip "no $tool"
    done
    dir=$(mktemp -d "${TMPDIR:-/tmp}/att-job.XXXXXX")
    trap job_cleanup EXIT
    # shellcheck source=../../scripts/lib/swtpm.sh
    . "$ATT_SOURCE_DIR/scripts/lib/swtpm.sh"
    bin=$ATT_BIN_DIR
    mkdir -p "$dir/run" "$dir/issuer-run" "$dir/ek-roots" "$dir/log" "$dir/tmp"
}

# Of whatever failed, under set -e or not: everything that job_start started is ended.
job_cleanup() {
    local status=$? name
    set +e
    for name in tokend spiffed attestd keyd hsmd whod issuerd "$dir"/*.pid; do # attestd first: it logs what is gone
        job_stop "$(basename "$name" .pid)" KILL 2> /dev/null
    done
    [ ! -d "$dir/tpm" ] || swtpm_stop "$dir/tpm"
    if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
        echo "---- FAILED ($status): last lines of the logs in $dir/log"
        tail -n 25 "$dir"/log/*.log 2> /dev/null
    fi
    [ -n "${JOB_KEEP:-}" ] || rm -rf "$dir" ${job_pg:+"$job_pg"}
    exit "$status"
}

job_fail() {
    echo "FAIL: $*"
    return 1
}

# wait_for SECONDS COMMAND...: until it succeeds. The seconds are for a machine that has nothing else to do; they end
# a wait that is in vain and prove nothing about speed, so that a laden machine gets JOB_PATIENCE times as many. COMMAND
# says with "|| return 1" where it fails: set -e does not hold in it. A look costs 60 ms of a processor under sanitizers,
# which another test needs: the pauses grow.
wait_for() {
    local until=$((SECONDS + $1 * ${JOB_PATIENCE:-4})) pause=5
    shift
    until "$@" > "$dir/tmp/wait" 2>&1; do
        if [ "$SECONDS" -ge "$until" ]; then
            echo "waited in vain for: $*"
            cat "$dir/tmp/wait"
            return 1
        fi
        sleep "0.$(printf %02d $pause)"
        [ $pause -ge 30 ] || pause=$((pause * 3 / 2))
    done
}

ctl() {
    "$bin/attestctl" --socket "$dir/run/control.sock" --issuer "$dir/issuer-run/admin.sock" "$@"
}

# job_start NAME COMMAND...: pid in $dir/NAME.pid, output in $dir/log/NAME.log
job_start() {
    local name=$1
    shift
    "$@" < /dev/null >> "$dir/log/$name.log" 2>&1 {job_port_lock}>&- &
    echo $! > "$dir/$name.pid"
    disown $!
}

job_pid() { cat "$dir/$1.pid"; }

job_alive() { [ -d "/proc/$(job_pid "$1")" ] && [ "$(job_state "$1")" != Z ]; }
job_threads() { ls "/proc/$1/task" 2> /dev/null | wc -l; }
job_state() { sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$(job_pid "$1")/status" 2> /dev/null; }

# job_stop NAME [SIGNAL]: ends it and waits
job_stop() {
    local pid n=0
    [ -f "$dir/$1.pid" ] || return 0
    pid=$(job_pid "$1")
    kill -s "${2:-TERM}" "$pid" 2> /dev/null || true
    # A zombie with threads is not over: what they hold (a lock) is still held.
    while [ -d "/proc/$pid" ] && { [ "$(job_state "$1")" != Z ] || [ "$(job_threads "$pid")" -gt 1 ]; }; do
        n=$((n + 1))
        if [ "$n" -gt 2400 ]; then
            kill -s KILL "$pid"
            job_fail "$1 did not end within 120 s of SIG${2:-TERM}" || return 1
        fi
        sleep 0.05
    done
    rm -f "$dir/$1.pid"
}

# A swtpm that booted: the recorded log's digests are extended into its PCRs.
job_make_tpm() {
    swtpm_make "$dir/tpm"
    swtpm_start "$dir/tpm" > /dev/null
    cp "$dir/tpm/ek-roots.pem" "$dir/ek-roots/swtpm.pem"
    cp "$job_vectors/eventlog.bin" "$dir/firmware.log"
    job_boot_tpm
}

job_boot_tpm() {
    "$bin/attestctl" --json eventlog show "$dir/firmware.log" |
        jq -r '.events[] | select(.type != "EV_NO_ACTION") | "\(.pcr):sha256=\(.digests.sha256)"' > "$dir/tmp/extends"
    xargs -a "$dir/tmp/extends" -n 40 env TPM2TOOLS_TCTI="$(cat "$dir/tpm/tcti")" tpm2_pcrextend
}

# A PostgreSQL whose superuser is "att": started, and $job_store its place. In a folder that its user may enter.
job_start_postgres() {
    # shellcheck source=postgres.sh
    . "$ATT_SOURCE_DIR/tests/support/postgres.sh"
    pg_bin > /dev/null || job_skip "no PostgreSQL server"
    if [ -z "${job_pg:-}" ]; then
        job_pg=$(mktemp -d "${TMPDIR:-/tmp}/att-pg.XXXXXX")
        chmod 755 "$job_pg"
    fi
    job_start postgres "$ATT_SOURCE_DIR/tests/support/postgres.sh" serve "$job_pg"
    job_store="postgres:host=$job_pg user=att dbname=postgres"
    wait_for 120 pg_sql "$job_pg" postgres "SELECT 1"
}

job_write_conf() {
    job_port
    local job_store=$dir/issuer/issuer.db
    [ "${JOB_STORE:-}" != postgres ] || job_start_postgres
    cat > "$dir/issuer.yaml" << END
trust_domain: bank.example
listen: "127.0.0.1:$port"
url: "https://127.0.0.1:$port/acme"
state_dir: $dir/issuer
store: "$job_store"
run_dir: $dir/issuer-run
control_group: none
ek:
  roots_dir: $dir/ek-roots
enrolment:
  boot: ovmf-guest
  pcrs: "$job_pcrs"
  logs: [firmware]
profiles:
  - name: trading
    description: agents that trade, on hosts whose boot is known
    lifetime: $JOB_LIFETIME
    keys: [tpm$([ "$JOB_KEY" = tpm ] || echo ", $JOB_KEY")]
    boot: ovmf-guest
    pcrs: "$job_pcrs"
    logs: [firmware]
END
    cat > "$dir/attestd.yaml" << END
issuer:
  url: "https://127.0.0.1:$port/acme"
  ca_file: $dir/issuer/ca/tls-root.pem
tpm:
  tcti: "$(cat "$dir/tpm/tcti")"
state_dir: $dir/state
run_dir: $dir/run
control_group: none
ticket_file: $dir/ticket.json
logs:
  firmware: $dir/firmware.log
END
    [ "$JOB_KEY" != hsm ] || job_make_hsm
}

# With JOB_KEY=hsm: a SoftHSM token, its PIN's file, and the configuration's section.
job_make_hsm() {
    [ -r /usr/lib/softhsm/libsofthsm2.so ] && command -v softhsm2-util > /dev/null || job_skip "no softhsm2"
    export SOFTHSM2_CONF=$dir/softhsm2.conf
    mkdir -p "$dir/tokens"
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$dir/tokens" > "$SOFTHSM2_CONF"
    (umask 077 && echo 47110815 > "$dir/hsm.pin")
    job_make_token agents
    cat >> "$dir/attestd.yaml" << END
hsm:
  module: ${job_hsm_module:-/usr/lib/softhsm/libsofthsm2.so}
  token: "pkcs11:token=agents;serial=$job_hsm_serial?pin-source=file:$dir/hsm.pin"
  files: [ $SOFTHSM2_CONF, $dir/tokens${job_hsm_files:-} ]
END
}

# job_make_token LABEL: $job_hsm_serial is its serial number
job_make_token() {
    ls "$dir/tokens" > "$dir/tmp/tokens"
    softhsm2-util --init-token --free --label "$1" --pin 47110815 --so-pin 08154711 > /dev/null
    job_hsm_serial=$(find "$dir/tokens" -mindepth 1 -maxdepth 1 -printf '%f\n' | grep -vxFf "$dir/tmp/tokens" | tr -d - | cut -c 17-)
}

job_hsm_ready() { [ "$(grep -c hsmd.token-ready "$dir/log/$1.log")" -gt "$job_hsm_starts" ]; }
# job_start_hsmd [MODULE]: of a module of the list as hsmd-MODULE
# shellcheck disable=SC2120
job_start_hsmd() {
    local name=hsmd${1:+-$1}
    job_hsm_starts=$(grep -c hsmd.token-ready "$dir/log/$name.log" 2> /dev/null || true)
    job_hsm_starts=${job_hsm_starts:-0}
    job_start "$name" "$bin/attestd-hsmd" --config "$dir/attestd.yaml" ${1:+--module "$1"}
    wait_for 30 job_hsm_ready "$name"
}

job_start_issuer() {
    job_start issuerd "$bin/attest-issuerd" --config "$dir/issuer.yaml"
    wait_for 30 ctl issuer status
}
job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml"; }
job_start_attestd() {
    job_start attestd "$bin/attestd" --config "$dir/attestd.yaml"
    wait_for 30 ctl status
}

# An issuer with policy and ticket, and both daemons of the host.
job_start_all() {
    "$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 ||
        { cat "$dir/log/init.log"; job_fail "attest-issuerd init"; }
    job_start_issuer
    ctl policy apply -f "$job_vectors/policy.json" > /dev/null
    ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
    [ "$JOB_KEY" != hsm ] || job_start_hsmd
    job_start_keyd
    job_start_attestd
}

job_host_known() { [ "$(ctl --json host list | jq '.hosts | length')" = 1 ]; }
job_host_id() { ctl --json host list | jq -r '.hosts[0].id'; }

# job_entries NAME...: exactly these agents; job_key_of[NAME]: with a key of another store than JOB_KEY
declare -A job_key_of=()
job_entries() {
    local name
    {
        echo "trust_domain: bank.example"
        echo "agents:"
        for name in "$@"; do
            cat << END
  - name: $name
    owner: trading-platform@bank.example
    hosts: [ "ek:$(job_host_id)" ]
    workload:
      uid: 1001
    key: ${job_key_of[$name]:-$JOB_KEY}
    profile: trading
END
        done
    } > "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > /dev/null
}

job_serial() { ctl --json agent show "$1" | jq -er '.serial | select(. != null and . != "")'; }
# … and all that belongs to its certificate is written down: evidence comes after the serial number
job_settled() { ctl --json agent show "$1" | jq -e '(.serial // "") != "" and .busy == false'; }
job_state_of() { ctl --json agent show "$1" | jq -er .state; }
job_is() { [ "$(job_state_of "$1")" = "$2" ]; }

# An agent's installed chain, by stock tools: chain, one SPIFFE URI, its own.
job_check_chain() {
    local chain=$dir/state/host/agents/$1/chain.pem uris
    openssl verify -x509_strict -CAfile "$dir/issuer/ca/bundle.pem" -untrusted "$chain" "$chain" > "$dir/tmp/verify" ||
        { cat "$dir/tmp/verify"; job_fail "openssl verify $1" || return 1; }
    uris=$(openssl x509 -in "$chain" -noout -ext subjectAltName | grep -o 'URI:[^,]*')
    [ "$uris" = "URI:spiffe://bank.example/agent/$1" ] || job_fail "SAN of $1: $uris" || return 1
    # Another reader than libcrypto: GnuTLS refuses what libcrypto lets pass.
    if command -v certtool > /dev/null; then
        certtool --verify --load-ca-certificate "$dir/issuer/ca/bundle.pem" --infile "$chain" > "$dir/tmp/verify" 2>&1 ||
            { cat "$dir/tmp/verify"; job_fail "certtool --verify $1"; }
    fi
}

job_enrolled_with() { # agents...
    wait_for 60 job_host_known
    ctl host approve "$(job_host_id)" --label job > /dev/null
    job_entries "$@"
    local name
    for name in "$@"; do
        wait_for 60 job_settled "$name"
    done
}
