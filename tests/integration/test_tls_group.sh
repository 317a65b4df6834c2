#!/usr/bin/env bash
# Which key exchange attestd and its issuer come to: X25519MLKEM768 where OpenSSL has it (3.5), x25519
# before. Said by `status` on both sides and in the issuer's log; a stock client gets the same.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and port come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
ok() { echo "ok: $*"; }

version=$(openssl version | cut -d' ' -f2)
if [ "$(printf '%s\n' 3.5 "$version" | sort -V | head -n 1)" = 3.5 ]; then
    group=X25519MLKEM768 pq=true
else
    group=x25519 pq=false
fi

# is WHAT WANTED FOUND
is() {
    [ "$2" = "$3" ] || job_fail "$1: expected $2, found $3 (OpenSSL $version)"
}

job_make_tpm
job_write_conf
job_start_all
wait_for 60 job_host_known

ctl --json status > "$dir/tmp/status"
is "attestctl status" "TLSv1.3 $group $pq $pq" \
    "$(jq -r '.issuer.tls | "\(.version) \(.group) \(.postQuantum) \(.postQuantumAvailable)"' "$dir/tmp/status")"
ctl status | grep -qw "$group" || job_fail "attestctl status (text) does not say $group"
ok "attestd: $group"

# Nobody but attestd has connected yet, and every connection of it used this group.
is "attestctl issuer status" "TLSv1.3 $group $pq [\"$group\"]" \
    "$(ctl --json issuer status | jq -r '.tls | "\(.version) \(.group) \(.postQuantum) \(.groups | keys | tojson)"')"
if [ "$pq" = true ]; then said=X25519MLKEM768; else said='not in this OpenSSL'; fi
grep -qF "$said" "$dir/log/issuerd.log" || job_fail "the issuer's log does not say: $said"
ok "attest-issuerd: $group"

# peer [OPTIONS]: the group that openssl s_client gets
peer() {
    openssl s_client -connect "127.0.0.1:$port" -CAfile "$dir/issuer/ca/tls-root.pem" -verify_return_error \
        -brief "$@" < /dev/null > "$dir/tmp/peer" 2>&1 || true
    sed -n 's/^Negotiated TLS1.3 group: //p; s/^[A-Z][a-z]* Temp Key: \([A-Za-z0-9]*\).*/\1/p' "$dir/tmp/peer" | tail -n 1
}
# s_client names X25519 in capitals.
is "openssl s_client" "${group,,}" "$(peer | tr '[:upper:]' '[:lower:]')"
if [ "$pq" = true ]; then # a client that would rather not is asked
    is "openssl s_client -groups X25519:X25519MLKEM768" $group "$(peer -groups X25519:X25519MLKEM768)"
fi
is "openssl s_client -groups X25519" x25519 "$(peer -groups X25519 | tr '[:upper:]' '[:lower:]')"
is "openssl s_client -groups P-521" "" "$(peer -groups P-521)"
is "openssl s_client -tls1_2" "" "$(peer -tls1_2)"
grep -qi 'alert protocol version' "$dir/tmp/peer" || job_fail "TLS 1.2: $(cat "$dir/tmp/peer")"
ok "a stock client: $group; X25519 alone is served, P-521 and TLS 1.2 are not"
