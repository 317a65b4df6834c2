#!/usr/bin/env bash
# attestd at an ACME server that does what it should not (tests/support/device/server.py): each thing is refused by its
# name, and what was installed before stays as it was. The AK's certificate comes from a file here. And what goes to such
# a server: the statement, and nothing else.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and port come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
python3 -c 'import cryptography' 2> /dev/null || job_skip "no python3-cryptography"
job_setup
job_make_tpm
job_port
server=$ATT_SOURCE_DIR/tests/support/device/server.py
mkdir -p "$dir/bad"
echo good > "$dir/bad/case"
job_start bad python3 "$server" "$dir/bad" "$port"
wait_for 30 test -f "$dir/bad/root.pem"
cat > "$dir/attestd.yaml" << END
acme:
  directory: https://127.0.0.1:$port/dir
  ca_file: $dir/bad/root.pem
  agents: $dir/acme-agents.yaml
  ak_certificate: $dir/ak.pem
tpm:
  tcti: "$(cat "$dir/tpm/tcti")"
state_dir: $dir/state
run_dir: $dir/run
control_group: none
END
printf 'agents:\n  - name: web\n    identifier: serial-0815\n    workload: { uid: 1001 }\n' > "$dir/acme-agents.yaml"
job_start_keyd
job_start_attestd
host_reason() { [ "$(ctl --json status | jq -r '.lastError.reason // ""')" = "$1" ]; }
reason() { ctl --json agent show web | jq -r '.lastError.reason // ""'; }
installed() { find "$dir/state/host/agents" -mindepth 1 -maxdepth 1 ! -name '.*'; }

# ---- the AK's certificate ----------------------------------------------------------------------------
wait_for 60 host_reason akCertificate
ctl quote --nonce 00112233445566778899aabbccddeeff --out "$dir/quote" > /dev/null
[ -f "$dir/quote/ak.pem" ] || { ls "$dir/quote"; job_fail "a quote without the AK"; }
openssl genrsa 2048 2> /dev/null | openssl rsa -pubout > "$dir/tmp/stranger.pem" 2> /dev/null
again() {
    kill -HUP "$(job_pid attestd)"
}
python3 "$server" "$dir/bad" ak "$dir/tmp/stranger.pem" "$dir/ak.pem"
again
stranger() { ctl --json status | jq -e '.lastError.message | contains("another key")'; }
wait_for 60 stranger
python3 "$server" "$dir/bad" ak "$dir/quote/ak.pem" "$dir/ak.pem" -1
again
expired() { ctl --json status | jq -e '.lastError.message | contains("not valid now")'; }
wait_for 60 expired
[ -z "$(installed)" ] || job_fail "something was installed"
python3 "$server" "$dir/bad" ak "$dir/quote/ak.pem" "$dir/ak.pem"
echo otherkey > "$dir/bad/case"
again
echo "ok: no AK certificate, one of another AK, one that has ended"

# ---- the first certificate: refused, and nothing there -------------------------------------------------
other_key() { [ "$(reason)" = chainKey ]; }
wait_for 60 other_key
[ -z "$(installed)" ] || job_fail "a certificate for another key was installed"
echo good > "$dir/bad/case"
rotate() { timeout 60 "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate web > "$dir/tmp/rotate" 2>&1; }
rotate || { cat "$dir/tmp/rotate"; job_fail "a good server's certificate"; }
# An attempt that was under way already answers `agent rotate`, too, and what was asked for comes after it.
still() {
    local n
    n=$(ctl --json agent show web | jq .issued)
    sleep 2
    ctl --json agent show web | jq -e --argjson n "$n" '.busy == false and .issued == $n' > /dev/null
}
wait_for 30 still
chain=$dir/state/host/agents/web/chain.pem
openssl verify -CAfile "$dir/bad/root.pem" "$chain" > /dev/null
openssl x509 -in "$chain" -outform DER | grep -aq serial-0815 || job_fail "the certificate does not name the identifier"
serial=$(job_serial web)
echo "ok: chainKey: then a good one"

# ---- renewals: refused by name; what is there stays --------------------------------------------------------
refused() { # CASE REASON
    echo "$1" > "$dir/bad/case"
    ! rotate || job_fail "$1: a certificate was installed"
    [ "$(reason)" = "$2" ] || { ctl --json agent show web | jq .lastError; job_fail "$1: expected $2"; }
    [ "$(job_serial web)" = "$serial" ] || job_fail "$1: another certificate is in force"
    openssl verify -CAfile "$dir/bad/root.pem" "$chain" > /dev/null || job_fail "$1: what is installed does not verify"
    echo "ok: $1: $2"
}
refused noidentifier unsupportedIdentifier
refused nochallenge noDeviceAttest
refused otherorder orderIdentifier
refused otherkey chainKey
refused otherid chainSan
refused twoids chainSan
refused noid chainSan
refused expired chainExpired
refused short chainDates
refused ancient chainDates
refused future chainNotYet
refused wrongroot chainPath
refused noeku chainEku
refused isca chainCa
refused html protocol
echo good > "$dir/bad/case"
rotate || { cat "$dir/tmp/rotate"; job_fail "after all refusals"; }
[ "$(job_serial web)" != "$serial" ] || job_fail "the old certificate"
echo "ok: and a good one again"

# ---- another host's URLs ------------------------------------------------------------------------------------
echo origin > "$dir/bad/case"
job_stop attestd
job_start_attestd
wait_for 60 host_reason protocol
echo "ok: a directory that leads to another host"

# ---- what was sent ------------------------------------------------------------------------------------------
[ -z "$(cut -d' ' -f1 "$dir/bad/seen" | grep -vx attObj)" ] || job_fail "more than the statement was sent"
# fmt "tpm", ver "2.0", and the AK certificate in it; no quote (a TPMS_ATTEST of type 0x8018).
[ "$(grep -c 63666d746374706d "$dir/bad/seen")" = "$(wc -l < "$dir/bad/seen")" ] || job_fail "a statement without fmt tpm"
[ "$(grep -c ff5443478017 "$dir/bad/seen")" = "$(wc -l < "$dir/bad/seen")" ] || job_fail "a statement without a TPM2_Certify"
! grep -q ff5443478018 "$dir/bad/seen" || job_fail "a quote was sent"
echo "ok: $(wc -l < "$dir/bad/seen") statements, and nothing else"
