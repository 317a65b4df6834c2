#!/usr/bin/env bash
# Three issuers on one PostgreSQL that federate with a fourth, which is an attest-issuerd of another trust domain with
# documents over https: each look is one connection, counted by a forwarder before it. The partner is asked once in each
# interval, not thrice; what changed is recorded once and told by all three; many changes are one record; an issuer that is
# cut off from the database gives no old bundle; the one that looks is killed, and another one looks. Then the keys of
# tokens: made in a file at one issuer, which the others say that they lack, at a start and with --check.
# shellcheck disable=SC2154 # ports, id and front are made by port_into
set -euo pipefail
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
for tool in psql jq openssl python3 curl; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/att-job.XXXXXX")
trap job_cleanup EXIT
bin=$ATT_BIN_DIR
mkdir -p "$dir/log" "$dir/tmp" "$dir/ek"
# shellcheck source=../support/issuers.sh
. "$ATT_SOURCE_DIR/tests/support/issuers.sh"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/ek.key" -out "$dir/ek/root.pem" -days 2 \
    -subj /CN=ek -addext basicConstraints=critical,CA:TRUE > "$dir/tmp/openssl" 2>&1

# ---- the partner: issuer 4, with a store of its own ----
job_start_postgres
port_into "ports[4]"
port_into id
port_into front
shared=$job_store
job_store=$dir/partner.db
issuers_conf 4 "127.0.0.1:${ports[4]}"
sed -i 's/^trust_domain: .*/trust_domain: partner.example/' "$dir/issuer-4.yaml"
printf 'jwt:\n  issuer: "https://127.0.0.1:%s"\n  listen: "127.0.0.1:%s"\n' "$id" "$id" >> "$dir/issuer-4.yaml"
start_issuer() {
    job_start "issuer-$1" "$bin/attest-issuerd" --config "$dir/issuer-$1.yaml"
    wait_for 60 ctl_of "$1" issuer status
}
issuers_init 4
start_issuer 4
cat > "$dir/tmp/forward.py" << 'END'
"""forward.py PORT TO FILE: TCP to 127.0.0.1:TO; a line in FILE for each connection: the time."""
import socket
import sys
import threading
import time


def pump(src, dst):
    try:
        while data := src.recv(65536):
            dst.sendall(data)
        dst.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client):
    with client, socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as server:
        other = threading.Thread(target=pump, args=(server, client), daemon=True)
        other.start()
        pump(client, server)
        other.join()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    with open(sys.argv[3], "a", encoding="ascii") as file:
        print(f"{time.time():.3f}", file=file)
    threading.Thread(target=serve, args=(conn,), daemon=True).start()
END
: > "$dir/looks"
job_start forward /usr/bin/python3 "$dir/tmp/forward.py" "$front" "$id" "$dir/looks"

# ---- three issuers that share a store ----
job_store=$shared
for n in 1 2 3; do
    port_into "ports[$n]"
    issuers_conf "$n" "127.0.0.1:${ports[n]}"
    cat >> "$dir/issuer-$n.yaml" << END
jwt:
  issuer: "https://id.bank.example"
federation:
  allow: [127.0.0.0/8]
  refresh_min: 4s
  refresh_max: 4s
  timeout: 5s
  trust_domains:
    - name: partner.example
      url: "https://127.0.0.1:$front/bundle"
      ca_file: $dir/state-4/ca/tls-root.pem
END
done
issuers_init 1 2 3
for n in 1 2 3; do
    start_issuer "$n"
done
fed() { ctl_of "$1" --json federation list | jq -r ".trustDomains[0].$2"; }
known() { [ "$(fed "$1" source)" = endpoint ]; }
for n in 1 2 3; do
    wait_for 30 known "$n"
done
count() { wc -l < "$dir/looks"; }
from=$(count)
sleep 20
asked=$(($(count) - from))
[ "$asked" -ge 2 ] && [ "$asked" -le 6 ] || { cat "$dir/looks"; job_fail "$asked looks within 20 s, expected 5: one each 4 s"; }
# No two of them lie closer than the interval, but for the second that a clock is rounded by.
awk 'NR > 1 && $1 - before < 2.9 { exit 1 } { before = $1 }' "$dir/looks" || { cat "$dir/looks"; job_fail "two issuers looked at once"; }
ok "three issuers that share a store ask a partner once in each interval: $asked looks within 20 s, one each 4 s"

# ---- a change ----
updates() { issuers_records "$1" federation | jq -c 'select(.outcome == "updated")' | wc -l; }
[ "$(issuers_records 1 federation | jq -c 'select(.outcome == "configured")' | wc -l)" = 1 ] || job_fail "configured more than once"
[ "$(updates 1)" = 1 ] || { issuers_records 1 federation; job_fail "$(updates 1) records of the first bundle"; }
old=$(fed 1 sha256)
ctl_of 4 ca jwt-replace > /dev/null
changed() { [ "$(fed 1 sha256)" != "$old" ]; }
wait_for 30 changed
for n in 2 3; do
    [ "$(fed "$n" sha256)" = "$(fed 1 sha256)" ] || job_fail "issuer $n has another bundle"
done
sleep 9 # the others' turns
[ "$(updates 2)" = 2 ] || { issuers_records 2 federation; job_fail "$(updates 2) records, expected 2: one for the change"; }
ok "a change is taken once, told by all three and recorded once"

# ---- a partner whose bundle is another one each time, and three operators who look at once ----
db "UPDATE federated SET records_paid_at = $(date +%s) + 8 * 900" # it has had its eight records
for n in 1 2 3 4 5; do
    ctl_of 4 ca jwt-replace > /dev/null
    ctl_of 1 federation refresh partner.example > "$dir/tmp/r1" 2>&1 &
    one=$!
    ctl_of 2 federation refresh partner.example > "$dir/tmp/r2" 2>&1 &
    two=$!
    ctl_of 3 federation refresh partner.example > "$dir/tmp/r3" 2>&1
    wait $one $two || { cat "$dir"/tmp/r[12]; job_fail "refresh"; }
    kid=$(ctl_of 4 --json ca jwt | jq -r '.keys[-1].kid')
    ctl_of $((n % 3 + 1)) --json federation show partner.example | jq -e --arg kid "$kid" '[.keys[].kid] | index($kid) != null' > "$dir/tmp/has" ||
        job_fail "the newest key is not there"
done
[ "$(updates 3)" = 2 ] || { issuers_records 3 federation; job_fail "$(updates 3) records of five changes within a minute"; }
[ "$(fed 1 unrecorded)" = 5 ] || job_fail "unrecorded: $(fed 1 unrecorded), expected 5"
db "UPDATE federated SET records_paid_at = records_paid_at - 900" # a quarter of an hour goes by
recorded() { [ "$(updates 1)" = 3 ]; }
wait_for 30 recorded
[ "$(issuers_records 1 federation | jq -c 'select(.outcome == "updated")' | tail -n 1 | jq .unrecorded)" = 5 ] || { issuers_records 1 federation; job_fail "how many"; }
[ "$(issuers_records 1 federation | jq -c 'select(.outcome == "updated")' | tail -n 1 | jq -r .sha256)" = "$(fed 2 sha256)" ] || job_fail "of which bundle"
ok "five changes while three issuers look at once: the newest is there each time, and they are one record that counts them"

# ---- one that is cut off, and killed ----
kill -STOP "$(job_pid issuer-1)" # as if it were behind a partition: whatever it held, it lets go of
from=$(count)
ctl_of 4 ca jwt-replace > /dev/null
kid=$(ctl_of 4 --json ca jwt | jq -r '.keys[-1].kid')
has() { ctl_of "$1" --json federation show partner.example | jq -e --arg kid "$kid" '[.keys[].kid] | index($kid) != null' > "$dir/tmp/has"; }
wait_for 60 has 2
has 3 || job_fail "issuer 3 shows an older bundle"
kill -CONT "$(job_pid issuer-1)"
has 1 || job_fail "issuer 1 shows an older bundle when it is back"
sleep 9
has 1 && has 2 && has 3 || job_fail "a look that began before has brought the older bundle back"
job_stop issuer-1 KILL
job_stop issuer-2 KILL
from=$(count)
more_looks() { [ "$(count)" -gt $((from + 1)) ]; }
wait_for 30 more_looks
start_issuer 1
ok "issuers that hang or are killed: another one looks, and none shows an older bundle"
job_stop postgres INT
! ctl_of 1 --json federation show partner.example > "$dir/tmp/show" 2>&1 || job_fail "a bundle without the database: $(cat "$dir/tmp/show")"
job_start_postgres
wait_for 60 has 1
ok "without the database none is shown at all"

# ---- the keys of tokens ----
start_issuer 2
lacking() { ctl_of "$1" --json ca jwt | jq -r '[.keys[] | select(.lacks)] | length'; }
have=0 lack=0
for n in 1 2 3; do
    if [ "$(lacking "$n")" = 0 ]; then
        have=$((have + 1)) owner=$n
    else
        lack=$((lack + 1)) other=$n
    fi
done
[ "$have $lack" = "1 2" ] || job_fail "$have issuers have the key, $lack lack it"
grep -q 'event=jwt.keyAway.*reason=jwtKeyMissing' "$dir/log/issuer-$other.log" || job_fail "not said"
"$bin/attest-issuerd" --config "$dir/issuer-$owner.yaml" --check > "$dir/tmp/check" 2>&1 || { cat "$dir/tmp/check"; job_fail "--check"; }
! "$bin/attest-issuerd" --config "$dir/issuer-$other.yaml" --check > "$dir/tmp/check" 2>&1 || job_fail "--check: taken"
grep -q jwtKeyMissing "$dir/tmp/check" || { cat "$dir/tmp/check"; job_fail "--check"; }
ready() { [ "$(curl -sS --unix-socket "$dir/run-$1/metrics.sock" http://issuer/ready)" = "$2" ]; }
wait_for 30 ready "$other" jwt
wait_for 30 ready "$owner" ready
! ctl_of "$owner" ca jwt-replace > "$dir/tmp/replace" 2>&1 || job_fail "a key that two issuers would not have"
grep -q jwtIssuerBehind "$dir/tmp/replace" || { cat "$dir/tmp/replace"; job_fail "reason"; }
[ "$(ctl_of "$other" --json ca jwt | jq '.keys | length')" = 1 ] || job_fail "an issuer made a key against the other's"
for n in 1 2 3; do
    [ "$n" = "$owner" ] || cp -a "$dir/state-$owner/ca/jwt" "$dir/state-$n/ca/"
done
wait_for 30 ready "$other" ready
"$bin/attest-issuerd" --config "$dir/issuer-$other.yaml" --check > "$dir/tmp/check" 2>&1 || { cat "$dir/tmp/check"; job_fail "--check"; }
ok "a key for tokens in one issuer's file: the others say that they lack it (log, /ready, --check, ca jwt), make none of their own, and take the copy into use"
for n in 1 2 3; do
    ctl_of "$n" audit verify > "$dir/tmp/audit" || { cat "$dir/tmp/audit"; job_fail "audit of issuer $n"; }
done
fault_sanitizers
