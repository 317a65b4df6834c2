# shellcheck shell=bash
# shellcheck disable=SC2154 # dir, bin, job_pg and job_store come from job.sh, ports from who sources this
# Several issuers of one database as processes, simulated hosts (tests/support/fleet) in front of them; and what has to
# hold when whatever happened to them is over. Source it after job.sh, with $dir/log, $dir/tmp and $dir/ek made.

db() { pg_sql "$job_pg" "${job_database:-postgres}" "$1"; }
ctl_of() { # N COMMAND...
    local n=$1
    shift
    "$bin/attestctl" --issuer "$dir/run-$n/admin.sock" "$@"
}

# issuers_conf N LISTEN [LIFETIME]: $dir/issuer-N.yaml. The url is the balancer's name; hosts reach it at another port,
# which TLS and the signed url do not see.
issuers_conf() {
    local pcrs="sha256:0,1,2,3,4,5,6,7,14,16"
    cat > "$dir/issuer-$1.yaml" << END
trust_domain: bank.example
listen: "$2"
url: "https://127.0.0.1:8443/acme"
state_dir: $dir/state-$1
run_dir: $dir/run-$1
policies_dir: $dir/policies
store: "$job_store"
control_group: none
ek:
  roots_dir: $dir/ek
enrolment:
  boot: none
  pcrs: "$pcrs"
  logs: [firmware]
profiles:
  - name: trading
    lifetime: ${3:-1h}
    keys: [tpm]
    boot: none
    pcrs: "$pcrs"
    logs: [firmware]
END
}

# issuers_init N...: the first makes the CA, which is one; each other gets a copy.
issuers_init() {
    local first=$1 n
    shift
    "$bin/attest-issuerd" --config "$dir/issuer-$first.yaml" init > "$dir/log/init.log" 2>&1 ||
        { cat "$dir/log/init.log"; job_fail "init"; }
    for n in "$@"; do
        mkdir -m 700 "$dir/state-$n"
        cp -a "$dir/state-$first/ca" "$dir/state-$n/"
    done
}

certs() { if [ -e "$dir/certs" ]; then wc -l < "$dir/certs"; else echo 0; fi; }
more_than() { [ "$(certs)" -gt "$1" ]; }
# N more certificates in hands, while the fleet lives
progress() {
    job_alive fleet || job_fail "the fleet ended"
    local from
    from=$(certs)
    wait_for 180 more_than $((from + $1))
}

# issuers_end: every host gets one more certificate, and the fleet ends
issuers_fleet_ended() { ! job_alive fleet; }
issuers_end() {
    touch "$dir/stop"
    wait_for 180 issuers_fleet_ended
    grep 'hosts:.*certificates' "$dir/log/fleet.log" || job_fail "the fleet failed"
}

issuers_no_intents() { [ "$(db "SELECT COUNT(*) FROM certs WHERE status = 'intent'")" = 0 ]; }
# issuers_whole HOSTS ISSUER...: by the database
issuers_whole() {
    local twice lost wrong hosts=$1
    shift
    wait_for 60 issuers_no_intents
    twice=$(db "SELECT ord FROM certs WHERE status = 'issued' AND kind = 'agent' GROUP BY ord HAVING COUNT(*) > 1")
    [ -z "$twice" ] || job_fail "two certificates for one order: $twice"
    # Each certificate that a host has in its hand is in the store as issued, for its order.
    sort "$dir/certs" | cut -d' ' -f1,2 > "$dir/tmp/hands"
    db "SELECT serial || ' ' || ord FROM certs WHERE status = 'issued' AND kind = 'agent'" | sort > "$dir/tmp/store"
    lost=$(comm -23 "$dir/tmp/hands" "$dir/tmp/store")
    [ -z "$lost" ] || job_fail "not in the store: $lost"
    [ "$(cut -d' ' -f1 "$dir/tmp/hands" | sort | uniq -d)" = "" ] || job_fail "a serial number twice"
    # And each that the store says is issued is one that some order could fetch: with its bytes.
    [ "$(db "SELECT COUNT(*) FROM certs WHERE status = 'issued' AND pem = ''")" = 0 ] || job_fail "issued without bytes"
    [ "$(cut -d' ' -f3 "$dir/certs" | sort -u | wc -l)" = "$hosts" ] || job_fail "a host without a certificate"
    # An intent record and one outcome for each. The records are read once: there are thousands.
    wrong=$(db "SELECT COUNT(*) FROM certs LEFT JOIN
        (SELECT record::jsonb ->> 'serial' AS serial, COUNT(*) AS n FROM audit
            WHERE record::jsonb ->> 'kind' IN ('issued', 'abandoned') GROUP BY 1) outcomes USING (serial) WHERE COALESCE(n, 0) <> 1")
    [ "$wrong" = 0 ] || job_fail "$wrong certificates without exactly one outcome in the log"
    issuers_log "$1"
    local n
    for n in "$@"; do
        ctl_of "$n" audit verify > "$dir/tmp/audit" || { cat "$dir/tmp/audit"; job_fail "audit of issuer $n"; }
    done
}

# issuers_records N KIND: all records of a kind as lines of JSON, as the issuer's admin socket tells them
issuers_records() {
    local after=0
    while :; do
        ctl_of "$1" --json audit list --kind "$2" --after "$after" --limit 500 > "$dir/tmp/page"
        [ "$(jq '.records | length' "$dir/tmp/page")" -gt 0 ] || return 0
        jq -c '.records[].record' "$dir/tmp/page"
        after=$(jq '[.records[].seq] | max' "$dir/tmp/page")
    done
}

# By the log alone: what is in a host's hand was issued once, for that order, after an intent with the same serial number.
issuers_log() {
    issuers_records "$1" issued > "$dir/tmp/issued"
    issuers_records "$1" intent > "$dir/tmp/intents"
    [ -z "$(jq -r .serial "$dir/tmp/issued" | sort | uniq -d)" ] || job_fail "the log: a serial number issued twice"
    [ -z "$(jq -r .serial "$dir/tmp/intents" | sort | uniq -d)" ] || job_fail "the log: a serial number intended twice"
    [ -z "$(jq -r 'select((.order // "") != "") | .order' "$dir/tmp/issued" | sort | uniq -d)" ] || job_fail "the log: an order twice"
    jq -r .serial "$dir/tmp/issued" | sort > "$dir/tmp/log"
    jq -r .serial "$dir/tmp/intents" | sort > "$dir/tmp/meant"
    [ -z "$(comm -23 "$dir/tmp/log" "$dir/tmp/meant")" ] || job_fail "the log: issued without an intent"
    cut -d' ' -f1 "$dir/tmp/hands" > "$dir/tmp/held"
    [ -z "$(comm -23 "$dir/tmp/held" "$dir/tmp/log")" ] || job_fail "the log lacks: $(comm -23 "$dir/tmp/held" "$dir/tmp/log")"
}
