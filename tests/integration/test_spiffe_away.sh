#!/usr/bin/env bash
# What api.sock serves while the issuer is away for three lifetimes, and while the host's clock goes a day back and forth
# (clocks that the test moves): open streams of FetchX509SVID and Signer.Watch, and new calls. Nothing expired is served,
# streams end by their code when the last identity goes, bundles go on, and all comes back by itself.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
spiffe_setup client.py "cryptography, hpack" workload.proto signer.proto health.proto
user=62001 tpm_user=62002
fault_clock_make
job_make_tpm
job_write_conf
id_port=
port_into id_port
printf 'jwt:\n  issuer: "https://127.0.0.1:%s"\n  listen: "127.0.0.1:%s"\n' "$id_port" "$id_port" >> "$dir/issuer.yaml"
clock=$dir/clock issuer_clock=$dir/clock-issuer
now_s=0 lifetime=600
fault_clock "$clock" 0 0
fault_clock "$issuer_clock" 0 0
chmod 644 "$clock" "$dir/clock.so"
status=0
trap 'status=$?; for one in svid watch bundles; do job_stop $one KILL; done; set +e; (exit $status); job_cleanup' EXIT
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1
start_issuer() {
    fault_start_clocked issuerd "$issuer_clock" "$bin/attest-issuerd" --config "$dir/issuer.yaml"
    wait_for 30 ctl issuer status
}
# The same as spiffe_start_all, by those clocks.
install -d -o $service "$dir/run/public"
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml" --client 0 --client $service
start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
fault_start_clocked keyd "$clock" "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service --exporter $service
fault_start_clocked attestd "$clock" "$bin/attestd" --config "$dir/attestd.yaml" --spiffed-user $service
wait_for 30 ctl status
chmod 644 "$dir/attestd.yaml"
fault_start_clocked spiffed "$clock" setpriv --reuid $service --regid $service --groups 0 "$bin/attestd-spiffed" \
    --config "$dir/attestd.yaml" --slow 5 --attestd-user 0 --whod-user 0 --keyd-user 0
wait_for 30 test -S "$socket"
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
printf 'trust_domain: bank.example\nagents:\n' > "$dir/agents.yaml"
printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: {uid: %s}, key: %s, profile: trading, audiences: [a.example]}\n' \
    alpha "$(job_host_id)" $user exportable beta "$(job_host_id)" $tpm_user tpm >> "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
settled() { wait_for 90 job_settled alpha && wait_for 60 job_settled beta; }
settled

# ---- open streams, and what is new ----
begin() { # open streams; each has its first message
    rm -f "$dir"/log/{svid,watch,bundles}.log
    follow svid $user svid
    follow watch $tpm_user watch
    follow bundles $tpm_user bundles
    wait_for 60 first
}
first() { grep -q '"svids": 1' "$dir/log/svid.log" && grep -q '"notAfter"' "$dir/log/watch.log" && grep -q '"bundles"' "$dir/log/bundles.log"; }
told() { # told CODES COMMAND USER: a new call ends by one of these, with nothing before it
    (timeout 20 setpriv --reuid "$3" --regid "$3" --clear-groups /usr/bin/python3 "$spiffe_program" "$stubs" "$socket" "$2") \
        > "$dir/tmp/told" 2>&1 || true
    [ "$(wc -l < "$dir/tmp/told")" = 1 ] && [[ " $1 " == *" $(jq -r .code "$dir/tmp/told") "* ]]
}
served() { # served COMMAND USER: a new call is answered
    (timeout 3 setpriv --reuid "$2" --regid "$2" --clear-groups /usr/bin/python3 "$spiffe_program" "$stubs" "$socket" "$1") \
        > "$dir/tmp/served" 2>&1 || true
    grep -qE '"svids": 1|"notAfter"|"verified": true' "$dir/tmp/served"
}
# Each message's certificate was good, by the moved clock, when it came (give or take 5 s).
all_good() {
    jq -es --argjson moved "$1" 'map(select(.notAfter)) | all(.notAfter > .ms / 1000 + $moved - 5)' "$dir/log/watch.log" > "$dir/tmp/good"
}
begin
ok "streams of an exported key, a chain and the bundle are open"

pass() {
    now_s=$((now_s + $1))
    fault_clock "$clock" "$now_s" "$now_s"
}

# ---- a token is kept for half of its life, and longer while the issuer is away: until it ends ----
token() { as $tpm_user token a.example > "$dir/tmp/token" 2>&1 && [ "$(jq -r .code "$dir/tmp/token")" = OK ]; }
age() { # age SECONDS: of the token, by both clocks (of its 300)
    pass "$1"
    fault_clock "$issuer_clock" "$now_s" "$now_s"
}
wait_for 60 token || { cat "$dir/tmp/token"; job_fail "no token"; }
first_token=$(jq -r .token "$dir/tmp/token")
age 120
wait_for 30 token
[ "$(jq -r .token "$dir/tmp/token")" = "$first_token" ] || job_fail "another token before half of its life is over"
age 31
renewed_token() { token && [ "$(jq -r .token "$dir/tmp/token")" != "$first_token" ]; }
wait_for 30 renewed_token || job_fail "the same token after half of its life"
token=$(jq -r .token "$dir/tmp/token")
settled # the agents' certificates may be renewed by now

# ---- the issuer is away ----
job_stop issuerd KILL
pass 200
wait_for 30 token || { cat "$dir/tmp/token"; job_fail "no token while it lives"; }
[ "$(jq -r .token "$dir/tmp/token")" = "$token" ] || job_fail "another token without the issuer"
pass 105
no_token() { ! token && [ "$(jq -r .code "$dir/tmp/token")" = UNAVAILABLE ]; }
wait_for 30 no_token || { cat "$dir/tmp/token"; job_fail "a token that has ended"; }
ok "a token is another one after half of its life; without the issuer it is given until it ends, and not after"
for i in 1 2 3; do
    pass $lifetime
    wait_for 30 last_is svid .code PERMISSION_DENIED || { cat "$dir/log/svid.log"; job_fail "FetchX509SVID goes on without an identity"; }
    wait_for 30 last_is watch .code NOT_FOUND || { cat "$dir/log/watch.log"; job_fail "Watch goes on without a certificate"; }
    wait_for 30 told "NOT_FOUND" chain $tpm_user || { cat "$dir/tmp/told"; job_fail "lifetime $i: Chain"; }
    wait_for 30 told "NOT_FOUND" sign $tpm_user || { cat "$dir/tmp/told"; job_fail "lifetime $i: Sign"; }
    wait_for 30 told "UNAVAILABLE PERMISSION_DENIED" svid $user || { cat "$dir/tmp/told"; job_fail "lifetime $i: FetchX509SVID"; }
    job_alive spiffed || job_fail "spiffed ended"
done
[ "$(grep -c '"code"' "$dir/log/bundles.log")" = 0 ] || { cat "$dir/log/bundles.log"; job_fail "the bundle's stream ended"; }
ok "away for three lifetimes: streams ended by their code, nothing expired is served or signed with, the bundle's stream goes on"
fault_clock "$issuer_clock" "$now_s" "$now_s"
start_issuer
pass 61 # the longest back-off
fault_clock "$issuer_clock" "$now_s" "$now_s"
settled
wait_for 60 served svid $user || { cat "$dir/tmp/served"; job_fail "FetchX509SVID after it is back"; }
wait_for 60 served sign $tpm_user || { cat "$dir/tmp/served"; job_fail "Sign after it is back"; }
ok "back: keys, chains and signatures by themselves"

# ---- the host's clock, a day back and forth; the issuer's is right ----
for one in svid watch bundles; do job_stop $one KILL; done
begin
true_s=$now_s
for day in -86400 86400 0; do
    now_s=$((true_s + day))
    fault_clock "$clock" "$now_s" "$true_s"
    sleep 3
    job_alive spiffed || job_fail "spiffed ended"
    wait_for 30 all_good "$true_s" || { cat "$dir/log/watch.log"; job_fail "clock by $day s: an expired chain"; }
done
pass 0
settled
wait_for 60 served svid $user || { cat "$dir/tmp/served"; job_fail "FetchX509SVID after the clock"; }
wait_for 60 served sign $tpm_user || { cat "$dir/tmp/served"; job_fail "Sign after the clock"; }
ok "a day back, a day forth, right again: no chain that has expired, and all is served"
for one in svid watch bundles; do job_stop $one KILL; done
job_stop spiffed
fault_sanitizers
echo "api.sock with the issuer away and clocks that jump: all held"
