#!/usr/bin/env bash
# Another trust domain's bundle while things break: the issuer, then attestd, killed again and again while the bundle
# changes; the issuer's disk full, then the host's (each a small tmpfs in a mount namespace of this test). What is known is
# at every moment one bundle as it was served, never an older one than before at the issuer, never half of it; and all goes
# on when there is room again.
set -euo pipefail
if [ "$(id -u)" -ne 0 ]; then
    echo "skipped: mounting a tmpfs needs root"
    exit 77
fi
if [ -z "${FAULT_IN_NAMESPACE:-}" ]; then
    unshare -m true 2> /dev/null || { echo "skipped: no mount namespaces here"; exit 77; }
    FAULT_IN_NAMESPACE=yes exec unshare -m --propagation private "$0" "$@"
fi
# shellcheck disable=SC2154 # dir, bin and the like come from these
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
spiffe_setup client.py cryptography workload.proto signer.proto health.proto
cp "$support/federation.py" "$stubs/"
trap 'status=$?; job_stop rotator KILL; job_stop web KILL; for name in spiffed attestd keyd whod issuerd; do job_stop "$name" KILL; done
    umount "$dir/state" "$dir/issuer" 2> /dev/null; set +e; (exit "$status"); job_cleanup' EXIT
mkdir -p "$dir/state" "$dir/issuer"
mount -t tmpfs -o size=4m,mode=755 tmpfs "$dir/state" || job_skip "no tmpfs"
mount -t tmpfs -o size=8m,mode=700 tmpfs "$dir/issuer"
user=62001
served=$dir/tmp/served.json

# ---- a partner whose bundle N has the sequence N and a key kN of tokens ----
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/web.key" -out "$dir/tmp/web.pem" -days 2 \
    -subj /CN=web -addext "subjectAltName=IP:127.0.0.1" > "$dir/tmp/openssl" 2>&1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/partner.key" -out "$dir/tmp/partner.pem" -days 2 \
    -subj /CN=partner -addext "subjectAltName=URI:spiffe://partner.example" -addext keyUsage=critical,keyCertSign > "$dir/tmp/openssl" 2>&1
/usr/bin/python3 "$stubs/federation.py" jwks "$dir/tmp/partner.pem" > "$dir/tmp/root.json"
serve() { # serve N
    jq --argjson n "$1" '.spiffe_sequence = $n | .keys += [.keys[0] | del(.x5c) | .use = "jwt-svid" | .kid = "k\($n)"]' \
        "$dir/tmp/root.json" > "$served.new"
    mv "$served.new" "$served"
}
serve 1
port_into web_port
job_start web /usr/bin/python3 "$stubs/federation.py" serve "$web_port" "$dir/tmp/web.pem" "$dir/tmp/web.key" "$served"
wait_for 30 grep -q ready "$dir/log/web.log"
rotates_from() { # in the background: a new bundle five times a second; the last one's number is in tmp/n
    (n=$1; while [ -d "$dir/run" ]; do n=$((n + 1)); serve $n; echo $n > "$dir/tmp/n"; sleep 0.2; done) &
    echo $! > "$dir/rotator.pid"
    disown $!
}

job_make_tpm
job_write_conf
cat >> "$dir/issuer.yaml" << END
federation:
  allow: [127.0.0.0/8]
  refresh_min: 1s
  refresh_max: 1s
  timeout: 5s
  trust_domains: [ { name: partner.example, url: "https://127.0.0.1:$web_port/bundle", ca_file: $dir/tmp/web.pem } ]
END
spiffe_start_all
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: alpha, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: $user}, key: tpm, profile: trading, federates_with: [partner.example]}
END
ctl entry apply -f "$dir/agents.yaml" > /dev/null
wait_for 60 job_settled alpha
shown() { ctl --json federation show partner.example > "$dir/tmp/show"; }
at_issuer() { shown && [ "$(jq -r '.keys[0].kid' "$dir/tmp/show")" = "k$1" ]; }
is_whole() { # its sequence and its one key are the same bundle's, and it has its root
    jq -e '.keys[0].kid == "k\(.sequence)" and (.keys | length) == 1 and (.roots | length) == 1' "$dir/tmp/show" > /dev/null ||
        { cat "$dir/tmp/show"; job_fail "half of a bundle"; }
}
follow jwt $user jwt-bundles
at_agent() { last_is jwt '.kids["spiffe://partner.example"] | join(" ")' "k$1"; }
wait_for 60 at_issuer 1
wait_for 60 at_agent 1
survived() {
    local name
    for name in attestd keyd issuerd spiffed; do
        job_alive "$name" || job_fail "$name ended"
    done
}

# ---- the issuer is killed ----
last=1
rotates_from 1
for i in $(seq "${KILLS:-10}"); do
    sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
    job_stop issuerd KILL
    job_start_issuer
    shown
    is_whole
    now=$(jq .sequence "$dir/tmp/show")
    [ "$now" -ge "$last" ] || job_fail "kill $i: sequence $now after $last"
    last=$now
done
[ "$last" -gt 1 ] || job_fail "nothing changed"
ctl audit verify > "$dir/tmp/audit" || { cat "$dir/tmp/audit"; job_fail "audit verify"; }
ok "issuer: ${KILLS:-10} kills while the bundle changes (at sequence $last): whole at each start, never an older one"

# ---- attestd is killed ----
for _ in $(seq "${KILLS:-10}"); do
    sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
    job_stop attestd KILL
    job_start_attestd
done
job_stop rotator KILL
n=$(cat "$dir/tmp/n")
serve "$((n + 1))" # the rotator may have been ended between its two steps
wait_for 60 at_issuer "$((n + 1))"
as $user jwt-bundles > "$dir/tmp/now" 2> "$dir/tmp/err" &
reader=$!
now_is() { tail -n 1 "$dir/tmp/now" | jq -e --arg kid "k$1" '.kids["spiffe://partner.example"] == [$kid]'; }
wait_for 60 now_is "$((n + 1))" || { cat "$dir/tmp/now"; job_fail "the agent has another"; }
kill $reader 2> /dev/null || true
jq -e 'select(.kids["spiffe://partner.example"] != null) | .kids["spiffe://partner.example"] | length == 1 and (.[0] | test("^k[0-9]+$"))' \
    "$dir/log/jwt.log" > "$dir/tmp/whole"
! grep -q false "$dir/tmp/whole" || { cat "$dir/log/jwt.log"; job_fail "half of a bundle at the agent"; }
ok "attestd: ${KILLS:-10} kills meanwhile; the agent had whole bundles only, and has the last one"
job_stop jwt KILL
: > "$dir/log/jwt.log"
follow jwt $user jwt-bundles
n=$((n + 1))
wait_for 60 at_agent $n

# ---- disks ----
fill() { # fill DIR: not a byte more
    dd if=/dev/zero of="$1/ballast" bs=4k 2> /dev/null || true
    ! printf x 2> /dev/null > "$1/.probe" || [ ! -s "$1/.probe" ] || job_fail "$1 is not full"
    rm -f "$1/.probe"
}
job_stop issuerd # … which leaves SQLite's files without room inside
job_start_issuer
fill "$dir/issuer"
# SQLite's files may still have room inside: a few may yet be kept.
full() { fault_log_has issuerd 'event=federation\.(unrecorded|unclaimed|failed|thread|look).*(full|No space)'; }
for _ in $(seq 40); do
    n=$((n + 1))
    serve $n
    sleep 1.2
    ! full || break
done
full || { tail -n 5 "$dir/log/issuerd.log"; job_fail "the issuer does not say that its disk is full"; }
shown || true
is_whole
kept=$(jq .sequence "$dir/tmp/show")
[ "$kept" -lt $n ] || job_fail "taken on a full disk"
wait_for 30 at_agent "$kept" || { tail -n 2 "$dir/log/jwt.log"; job_fail "the agent has another than $kept"; }
survived
job_stop issuerd KILL
rm -f "$dir/issuer/ballast"
job_start_issuer
wait_for 60 at_issuer $n
wait_for 60 at_agent $n
ctl audit verify > "$dir/tmp/audit" || { cat "$dir/tmp/audit"; job_fail "audit verify"; }
ok "issuer, full: said, the last bundle stays; room again: the newest"

fill "$dir/state"
before=$n
n=$((n + 1))
serve $n
wait_for 60 at_issuer $n
not_kept() { fault_log_has attestd 'No space left'; }
wait_for 60 not_kept || { tail -n 5 "$dir/log/attestd.log"; job_fail "attestd does not say that its disk is full"; }
survived
at_agent $before || at_agent $n || { tail -n 2 "$dir/log/jwt.log"; job_fail "the agent has neither"; }
had=$(last jwt '.kids["spiffe://partner.example"] | join(" ")')
job_stop attestd KILL
job_start_attestd || job_fail "attestd does not start on a full disk"
either() { at_agent $before || at_agent $n; }
wait_for 60 either
survived
rm -f "$dir/state/ballast"
wait_for 90 at_agent $n
jq -e 'select(.kids != null) | .kids["spiffe://partner.example"] // [] | length == 1' "$dir/log/jwt.log" > "$dir/tmp/whole"
! grep -q false "$dir/tmp/whole" || { cat "$dir/log/jwt.log"; job_fail "an agent without the bundle, or with half of it"; }
ok "host, full: said (the agent had $had of k$before and k$n), it starts, no stream is without the bundle; room again: the newest"
fault_sanitizers
