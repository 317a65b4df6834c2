# shellcheck shell=bash
# An issuer alone, whose decisions are tickets: source this after job.sh, call log_setup.
# $key: the log's verifier key; $log: its folder; $url: its address.

log_setup() {
    local tool
    for tool in openssl jq curl sqlite3; do
        command -v "$tool" > /dev/null || job_skip "no $tool"
    done
    dir=$(mktemp -d "${TMPDIR:-/tmp}/att-log.XXXXXX")
    trap job_cleanup EXIT
    bin=$ATT_BIN_DIR
    mkdir -p "$dir/run" "$dir/issuer-run" "$dir/ek-roots" "$dir/log" "$dir/tmp"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/ek.key" \
        -out "$dir/ek-roots/maker.pem" -subj /CN=maker -days 30 2> /dev/null
    job_port
    log_conf "$dir/issuer" "$dir/issuer-run" "$port" > "$dir/issuer.yaml"
    "$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/tmp/init"
    key=$dir/issuer/ca/log.vkey
    log=$dir/issuer/audit-log
    export url=https://127.0.0.1:$port/acme/log
    job_start_issuer
}

log_conf() { # log_conf STATE RUN PORT
    cat << END
trust_domain: bank.example
listen: "127.0.0.1:$3"
url: "https://127.0.0.1:$port/acme"
state_dir: $1
run_dir: $2
control_group: none
ek:
  roots_dir: $dir/ek-roots
enrolment:
  boot: none
  pcrs: "$job_pcrs"
  logs: [firmware]
profiles:
  - name: trading
    description: agents that trade
    lifetime: 1h
    keys: [tpm]
    boot: none
    pcrs: "$job_pcrs"
    logs: [firmware]
END
}

log_records() { ctl --json audit list --limit 1 | jq .head.seq; }
log_size() { sed -n 2p "$1/checkpoint"; }
log_is_current() { [ "$(log_size "$log")" -ge "$1" ]; }
# log_decide N: that many further decisions, published
log_decide() {
    local _
    for _ in $(seq "$1"); do ctl ticket create > /dev/null; done
    wait_for 60 log_is_current "$(log_records)"
}
log_verify() { ctl audit verify "$@" --key "$key"; }
# refused REASON COMMAND...: exit 1, and that word
refused() {
    local got=0 reason=$1
    shift
    "$@" > "$dir/tmp/refused" 2>&1 || got=$?
    [ "$got" = 1 ] && grep -q "$reason" "$dir/tmp/refused" ||
        { cat "$dir/tmp/refused"; job_fail "$*: exit $got, expected $reason"; }
}
ok() { echo "ok: $*"; }
