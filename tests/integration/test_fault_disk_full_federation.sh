#!/usr/bin/env bash
# The issuer's disk is full while other trust domains' bundles are looked at: what was good last stays, whole, and is what
# hosts and operators are given; that nothing can be written is said; no bundle is half taken, no look is lost for good, and
# the new bundle is there, with its record, when there is room again. The issuer alone, with an endpoint.
set -euo pipefail
if [ "$(id -u)" -ne 0 ]; then
    echo "skipped: mounting a tmpfs needs root"
    exit 77
fi
if [ -z "${FAULT_IN_NAMESPACE:-}" ]; then
    unshare -m true 2> /dev/null || { echo "skipped: no mount namespaces here"; exit 77; }
    FAULT_IN_NAMESPACE=yes exec unshare -m --propagation private "$0" "$@"
fi
# shellcheck disable=SC2154 # dir and bin come from job.sh, port_web from port_into
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
# shellcheck source=../support/auditlog.sh
. "$ATT_SOURCE_DIR/tests/support/auditlog.sh"
/usr/bin/python3 -c 'import cryptography' 2> /dev/null || job_skip "no python3-cryptography"
log_setup
trap 'status=$?; for name in issuerd web; do job_stop "$name" KILL 2> /dev/null || true; done
    umount "$dir/issuer" 2> /dev/null || true; set +e; (exit "$status"); job_cleanup' EXIT
job_stop issuerd
mkdir "$dir/was"
cp -a "$dir/issuer/." "$dir/was/"
mount -t tmpfs -o size=8m,mode=700 tmpfs "$dir/issuer" || job_skip "no tmpfs"
cp -a "$dir/was/." "$dir/issuer/"
rm -r "$dir/was"

# ---- a partner: an HTTPS server with a bundle of N roots ----
port_into port_web
support=$ATT_SOURCE_DIR/tests/support/spiffe
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/web.key" -out "$dir/tmp/web.pem" -days 2 \
    -subj /CN=web -addext "subjectAltName=IP:127.0.0.1" 2> /dev/null
served=$dir/tmp/served.json
bundle() { # bundle N SEQUENCE: all roots are of this call
    local i
    rm -f "$dir"/tmp/root.*.pem
    for i in $(seq "$1"); do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -out "$dir/tmp/root.$i.pem" -days 2 \
            -subj "/CN=root $2 $i" -addext "subjectAltName=URI:spiffe://partner.example" -addext keyUsage=critical,keyCertSign 2> /dev/null
    done
    /usr/bin/python3 - "$2" "$dir"/tmp/root.*.pem > "$served.new" << 'END'
import base64
import json
import sys
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
keys = []
for name in sys.argv[2:]:
    with open(name, "rb") as file:
        cert = x509.load_pem_x509_certificate(file.read())
    point = cert.public_key().public_numbers()
    b64 = lambda n: base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode()  # noqa: E731
    keys.append({"kty": "EC", "crv": "P-256", "x": b64(point.x), "y": b64(point.y), "use": "x509-svid",
                 "x5c": [base64.b64encode(cert.public_bytes(Encoding.DER)).decode()]})
print(json.dumps({"keys": keys, "spiffe_sequence": int(sys.argv[1])}))
END
    mv "$served.new" "$served"
}
bundle 1 1
job_start web /usr/bin/python3 "$support/federation.py" serve "$port_web" "$dir/tmp/web.pem" "$dir/tmp/web.key" "$served"
wait_for 30 grep -q ready "$dir/log/web.log"
cat >> "$dir/issuer.yaml" << END
federation:
  allow: [127.0.0.0/8]
  refresh_min: 1s
  refresh_max: 1s
  timeout: 5s
  trust_domains:
    - name: partner.example
      url: "https://127.0.0.1:$port_web/bundle"
      ca_file: $dir/tmp/web.pem
END
job_start_issuer
fed() { ctl --json federation list | jq -r ".trustDomains[0].$1"; }
fed_is() { [ "$(fed "$1")" = "$2" ]; }
wait_for 30 fed_is sequence 1
fill() { # not a byte more, nor one in place of what goes, nor in the pages that SQLite's files have left
    dd if=/dev/zero of="$dir/issuer/ballast" bs=4k 2> /dev/null || true
    while printf x 2> /dev/null >> "$dir/issuer/ballast"; do :; done
}
updates() { ctl --json audit list --kind federation --limit 100 | jq '[.records[].record | select(.outcome == "updated")] | length'; }
shown() { ctl --json federation show partner.example | jq -c '[.sequence, .sha256, .changedAt, .pem]'; }

# ---- a new bundle, and no room for it ----
was=$(shown) records=$(updates) age=$(fed fetchedAt)
bundle 24 2 # larger than what an old row's place has room for
fill
refused_full() { ! ctl federation refresh partner.example > "$dir/tmp/refresh" 2>&1 && grep -qiE 'full|no space' "$dir/tmp/refresh"; }
wait_for 60 refused_full || job_fail "refresh on a full disk: $(cat "$dir/tmp/refresh")"
said() { fault_log_more issuerd 'event=federation\..*([Ff]ull|[Nn]o space)' "${1:-0}"; }
wait_for 30 said || job_fail "the issuer does not say why it has no newer bundle: $(tail -n 3 "$dir/log/issuerd.log")"
[ "$(shown)" = "$was" ] || { shown; job_fail "the bundle changed: $was"; }
[ "$(updates)" = "$records" ] || job_fail "a record of a bundle that was not taken"
job_alive issuerd || job_fail "the issuer ended"
ok "no room for a new bundle: said, the one that was good last stays whole, no record"

# ---- killed then, and room again ----
job_stop issuerd KILL
rm "$dir/issuer/ballast"
job_start_issuer
wait_for 30 fed_is sequence 2
[ "$(fed roots)" = 24 ] && [ "$(updates)" = $((records + 1)) ] || job_fail "after the kill: $(fed roots) roots, $(updates) records after $records"
ok "killed on the full disk: with room the new bundle is taken once, with its record"

# ---- without a restart ----
was=$(shown)
words=$(fault_log_count issuerd 'event=federation\..*([Ff]ull|[Nn]o space)')
fill
bundle 20 3
wait_for 60 refused_full || job_fail "refresh on a full disk: $(cat "$dir/tmp/refresh")"
# Not even that it was looked at can be written: that is said, too, and not once a second.
wait_for 30 said "$words" || job_fail "the issuer does not say that it cannot look"
lines=$(fault_log_count issuerd 'event=federation\.')
sleep 5
[ $(($(fault_log_count issuerd 'event=federation\.') - lines)) -le 3 ] || job_fail "the log is flooded"
[ "$(shown)" = "$was" ] || job_fail "the bundle changed"
pid=$(job_pid issuerd)
rm "$dir/issuer/ballast"
wait_for 30 fed_is sequence 3
wait_for 30 fed_is outcome unchanged
[ "$(fed failures)" = 0 ] && [ "$(fed fetchedAt)" != "$age" ] || job_fail "$(ctl --json federation list)"
[ "$(updates)" = $((records + 2)) ] || job_fail "records: $(updates) after $records"
[ "$(job_pid issuerd)" = "$pid" ] && job_alive issuerd || job_fail "the issuer ended"
wait_for 60 log_is_current "$(log_records)"
log_verify "$log" > /dev/null
ctl audit verify > /dev/null
fault_sanitizers
ok "room again: the new bundle, without a restart; the audit log is whole"
echo "a full disk under federation: all held"
