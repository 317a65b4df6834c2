#!/usr/bin/env bash
# The issuer's TLS certificate becomes due while it serves (its CA is made by a clock that is behind, so that
# two thirds of the life end a minute later, by the true time). New connections see the new certificate, none
# is refused or cut, hosts notice nothing; and a renewal that fails is told, while the old one is served.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
fault_clock_make
job_make_tpm
job_write_conf
wait_s=60
due=$(($(date +%s) + wait_s))
# made - 60 + 2 * floor((397 d + 60 s) / 3) = due
fault_clock "$dir/clock-init" $((due + 60 - (397 * 86400 + 60) / 3 * 2 - $(date +%s))) 0
LD_PRELOAD="$clock_preload" ATT_TEST_CLOCK=$dir/clock-init "$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1
serial_in() { openssl x509 -in "$1" -noout -serial | sed 's/serial=//'; }
old=$(serial_in "$dir/issuer/ca/tls.crt") old_view=$(serial_in "$dir/issuer/ca/view.crt")
job_start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
pin=$(jq -r .caSha256 "$dir/ticket.json")
at() { ctl --json ca status | jq -r ".authorities[] | select(.name == \"tls\") | $1"; }
told=$(date -d "$(at .renewAt)" +%s)
[ $((told - due)) -ge -1 ] && [ $((told - due)) -le 20 ] || job_fail "renewAt is $(at .renewAt), expected about $(date -u -d "@$due")"
due=$told

# One connection that stays, and new ones without end: serial numbers in the order seen.
cat > "$dir/client.py" << 'END'
import http.client, json, os, ssl, sys, time
port, ca, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=ca)
def connect():
    c = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    c.connect()
    return c
def get(c):
    c.request("GET", "/acme/directory")
    r = c.getresponse()
    assert r.status == 200 and b"newOrder" in r.read(), r.status
def serial(c):
    return c.sock.getpeercert()["serialNumber"]
kept, seen, n = connect(), [], 0
kept_serial, kept_socket = serial(kept), kept.sock
while not os.path.exists(out + ".stop"):
    c = connect()
    get(c)
    if not seen or seen[-1] != serial(c):
        seen.append(serial(c))
    c.close()
    get(kept)
    assert kept.sock is kept_socket, "the connection that stays was opened anew"
    n += 1
    with open(out + ".tmp", "w") as f:
        json.dump({"seen": seen, "kept": kept_serial, "n": n}, f)
    os.replace(out + ".tmp", out)
    time.sleep(0.02)
END
job_start client python3 "$dir/client.py" "$port" "$dir/issuer/ca/tls-root.pem" "$dir/client.json"
job_start_keyd
job_start_attestd
agents=(alpha)
job_enrolled_with "${agents[@]}"
seen() { jq -c .seen "$dir/client.json"; }
wait_for 10 test -s "$dir/client.json"
[ "$(seen)" = "[\"$old\"]" ] || job_fail "before the renewal clients see $(seen), expected $old (a machine too slow for $wait_s s?)"
before_n=$(jq .n "$dir/client.json")
failures=$(fault_log_count attestd 'level=(warn|error)')

# ---- due ----
wait_for $((wait_s + 30)) fault_log_more issuerd 'event=tls.renewed' 0 || job_fail "not renewed when due"
wait_for 30 fault_log_has issuerd 'event=viewSigner.renewed' || job_fail "the view signer was not renewed"
[ "$(date +%s)" -ge "$due" ] || job_fail "renewed before it was due"
new=$(serial_in "$dir/issuer/ca/tls.crt")
[ "$new" != "$old" ] && [ "$(serial_in "$dir/issuer/ca/view.crt")" != "$old_view" ] || job_fail "the same certificates after a renewal"
both() { [ "$(seen)" = "[\"$old\",\"$new\"]" ]; }
wait_for 10 both || job_fail "clients see $(seen), expected $old, then $new"
sleep 1
job_alive client || { cat "$dir/log/client.log"; job_fail "a client was refused or cut"; }
[ "$(jq -r .kept "$dir/client.json")" = "$old" ] && [ "$(jq .n "$dir/client.json")" -gt "$before_n" ] || job_fail "$(cat "$dir/client.json")"
both || job_fail "clients see $(seen)"
# What tickets pin is what is sent last, as before.
openssl s_client -connect "127.0.0.1:$port" -showcerts < /dev/null 2> /dev/null | awk '/BEGIN/ {c = ""} {c = c $0 "\n"} /END/ {last = c} END {printf "%s", last}' > "$dir/tmp/last.pem"
[ "$(openssl x509 -in "$dir/tmp/last.pem" -outform DER | sha256sum | cut -d' ' -f1)" = "$pin" ] || job_fail "the pinned root is not what is sent"
ok "due: new connections see the new certificate, the one that stayed was not cut"

# ---- hosts: a new view by the new signer, a renewal, nothing in the log ----
job_entries alpha beta
wait_for 60 job_serial beta
fault_rotates alpha
[ "$(fault_log_count attestd 'level=(warn|error)')" = "$failures" ] || job_fail "attestd noticed: $(grep -aE 'level=(warn|error)' "$dir/log/attestd.log" | tail -3)"
ctl audit verify > /dev/null || job_fail "audit verify"
ok "hosts: nothing to do, views by the new signer are believed"

# ---- it fails: the CA's key is elsewhere, and the pair on the disk is gone (as after a leak) ----
mv "$dir/issuer/ca/tls-root.key" "$dir/tmp/tls-root.key"
rm "$dir/issuer/ca/tls.crt" "$dir/issuer/ca/tls.key"
kill -HUP "$(job_pid issuerd)"
wait_for 10 fault_log_more issuerd 'event=tls.renewalFailed.*tls-root.key' 0 || job_fail "the failure is not in the log"
failure_told() { ctl ca status | grep 'renewing.*failed.*tls-root.key'; }
wait_for 10 failure_told || job_fail "the failure is not in ca status: $(ctl ca status)"
ctl --json issuer status | jq -e '.warnings[] | test("the old ones stay in use")' > /dev/null
sleep 2
[ "$(fault_log_count issuerd 'event=tls.renewalFailed')" = 1 ] || job_fail "logged more than once a try"
both && job_alive client || job_fail "the old certificate is not served any more: $(seen)"
mv "$dir/tmp/tls-root.key" "$dir/issuer/ca/tls-root.key"
kill -HUP "$(job_pid issuerd)"
wait_for 10 fault_log_more issuerd 'event=tls.renewed' 1 || job_fail "SIGHUP does not renew"
last=$(serial_in "$dir/issuer/ca/tls.crt")
three() { [ "$(seen)" = "[\"$old\",\"$new\",\"$last\"]" ]; }
wait_for 10 three || job_fail "clients see $(seen)"
no_warnings() { [ "$(ctl --json ca status | jq '.warnings | length')" = 0 ]; }
wait_for 10 no_warnings || job_fail "warnings: $(ctl --json ca status | jq -c .warnings)"
ok "a failure is told once a try, the old certificate is served; mended, SIGHUP renews"
touch "$dir/client.json.stop"
ended() { ! job_alive client; }
wait_for 20 ended
! grep -q . "$dir/log/client.log" || { cat "$dir/log/client.log"; job_fail "the client has something to say"; }

# ---- and a start finds all as it is ----
job_stop issuerd
job_start_issuer
[ "$(serial_in "$dir/issuer/ca/tls.crt")" = "$last" ]
fault_whole alpha beta
echo "TLS renewal: all held ($(jq .n "$dir/client.json") connections)"
