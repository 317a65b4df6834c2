#!/usr/bin/env bash
# The keys of tokens in a TPM, by tpm2-pkcs11 behind attestd-hsmd --issuer, on a swtpm of its own (jwt.keys: hsm): made there,
# a restart, a rotation with overlap and one by hand, each token judged by python3-jwt through what the issuer publishes; a
# key in the TPM that is another than the store says; a TPM that goes in the middle of a signature and comes back.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and id_port come from job.sh and port_into
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/ca.sh
. "$ATT_SOURCE_DIR/tests/support/ca.sh"
# shellcheck source=../support/tpm2_pkcs11.sh
. "$ATT_SOURCE_DIR/tests/support/tpm2_pkcs11.sh"
module=$(find /usr/lib -name libtpm2_pkcs11.so -print -quit 2> /dev/null || true)
if [ -z "$module" ] || ! command -v tpm2_ptool > /dev/null || ! command -v pkcs11-tool > /dev/null; then
    job_skip "needs libtpm2-pkcs11-1, libtpm2-pkcs11-tools and opensc"
fi
/usr/bin/python3 -c 'import jwt, cryptography' 2> /dev/null || job_skip "no python3-jwt"
command -v sqlite3 > /dev/null || job_skip "no sqlite3"
job_setup
job_make_tpm
job_write_conf
id_port=
port_into id_port
ok() { echo "ok: $*"; }
tpm2_pkcs11_make "$dir/third" "$module"
(umask 077 && echo 47110815 > "$dir/hsm.pin")
cat >> "$dir/issuer.yaml" << END
jwt:
  issuer: "https://127.0.0.1:$id_port"
  listen: "127.0.0.1:$id_port"
  keys: hsm
  rotate: 1h
  publish_wait: 1m
hsm:
  module: $module
  token: "pkcs11:token=third;serial=$tpm2_pkcs11_serial?pin-source=file:$dir/hsm.pin"
  files: [ $dir/third ]
  sessions: 1
END
ca_start_hsmd
job_start_all
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: alpha, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: 62001}, key: tpm, profile: trading,
     audiences: [$(seq -f 'a%g.example' -s ', ' 1 16)]}
END
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
wait_for 60 job_settled alpha
keys() { ctl --json ca jwt | jq -r ".keys[$1] | $2"; }
n_keys() { [ "$(ctl --json ca jwt | jq '.keys | length')" = "$1" ]; }
n=0
fresh() { # $token, of the audience a$n: where n is another number than before the host has none yet
    ctl token alpha --audience "a$n.example" --out "$dir/tmp/token" > "$dir/tmp/out" 2>&1 || return 1
    token=$(cat "$dir/tmp/token")
}
kid_of() { /usr/bin/python3 -c 'import jwt, sys; print(jwt.get_unverified_header(sys.argv[1])["kid"])' "$1"; }
verify() { # verify AUDIENCE TOKEN
    /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/spiffe/tokens.py" check "https://127.0.0.1:$id_port" "$dir/issuer/ca/tls-root.pem" "$@" > "$dir/tmp/claims"
}
must() { # a token, and who signs it
    n=$((n + 1))
    fresh || { cat "$dir/tmp/out"; job_fail "no token"; }
    verify "a$n.example" "$token" || job_fail "python3-jwt does not take it"
    [ "$(jq -r .sub "$dir/tmp/claims")" = spiffe://bank.example/agent/alpha ] || job_fail "$(cat "$dir/tmp/claims")"
    [ "$(kid_of "$token")" = "$1" ] || job_fail "signed by $(kid_of "$token"), expected $1"
}
db() { sqlite3 -cmd '.timeout 10000' "$dir/issuer/issuer.db" "$1"; }

first=$(keys 0 .kid)
must "$first"
first_token=$token
[ ! -e "$dir/issuer/ca/jwt" ] || job_fail "a key in a file"
[ "$(db 'SELECT keyref FROM jwt_keys' | cut -c1-4)" = hsm: ] || job_fail "$(db 'SELECT keyref FROM jwt_keys')"
ok "the key is made in the TPM; python3-jwt takes a token by it"
job_stop issuerd
job_start_issuer
must "$first"
ok "after a restart of the issuer the same key signs"

# ---- a rotation: an hour goes by ----
db 'UPDATE jwt_keys SET active_at = active_at - 3545, created_at = created_at - 3545'
wait_for 60 n_keys 2
second=$(keys 1 .kid)
must "$first" # published, and not in use yet
in_use() { [ "$(date +%s)" -gt "$(db "SELECT active_at FROM jwt_keys WHERE kid = '$second'")" ]; }
wait_for 90 in_use
must "$second"
verify a1.example "$first_token" || job_fail "a token of the first key is not believed any more"
ok "rotated within the TPM: published, then in use; tokens of the first key hold meanwhile"
ctl ca jwt-replace > /dev/null
third=$(keys 2 .kid)
must "$third"
verify a1.example "$first_token" || job_fail "a token of the first key is not believed any more"
ok "ca jwt-replace: another one in the TPM signs at once"

# ---- the key of that name in the TPM is another one ----
right=$(db "SELECT keyref FROM jwt_keys WHERE kid = '$third'") wrong=$(db "SELECT keyref FROM jwt_keys WHERE kid = '$first'")
job_stop issuerd
db "UPDATE jwt_keys SET keyref = '$wrong' WHERE kid = '$third'"
job_start_issuer
n=$((n + 1))
! fresh || job_fail "a token: $token"
grep 'event=jwt.keyAway' "$dir/log/issuerd.log" | grep -q "kid=$third" || job_fail "not said"
[ "$(keys 2 '.lacks | length > 0')" = true ] || job_fail "ca jwt does not say it"
grep 'resource=newToken status=429' "$dir/log/issuerd.log" | tail -n 1 | grep -q hsmSignature || { grep newToken "$dir/log/issuerd.log" | tail -n 3; job_fail "another reason"; }
job_stop issuerd
db "UPDATE jwt_keys SET keyref = '$right' WHERE kid = '$third'"
job_start_issuer
wait_for 30 fresh # the host asks again when its pause is over
must "$third"
ok "a key in the TPM that is another than the store says: no token, said by name; the right one again"

# ---- the TPM goes in the middle of a signature ----
refusals() { grep -c 'resource=newToken status=429' "$dir/log/issuerd.log"; }
before=$(refusals)
kill -STOP "$(job_pid third-tpm)" # it has the command, and will never answer
(ctl token alpha --audience "a$((n + 1)).example" --out "$dir/tmp/never" > "$dir/tmp/asked" 2>&1 && echo given > "$dir/tmp/given") &
asking=$!
sleep 2
job_stop third-tpm KILL
wait $asking || true
[ ! -e "$dir/tmp/given" ] && [ ! -s "$dir/tmp/never" ] || job_fail "a token without the TPM: $(cat "$dir/tmp/never")"
told_again() { [ "$(refusals)" -gt "$before" ]; }
wait_for 30 told_again
job_start third-tpm swtpm socket --tpm2 --tpmstate "dir=$dir/third/state" --server "type=unixio,path=$dir/third/sock" \
    --ctrl "type=unixio,path=$dir/third/sock.ctrl" --flags not-need-init,startup-clear
answers() { tpm2_pkcs11_run tpm2_getrandom 4 > /dev/null 2>&1; }
wait_for 20 answers
if ! job_alive ca-hsmd; then
    job_stop ca-hsmd KILL
    ca_start_hsmd
fi
n=$((n + 1))
wait_for 90 fresh
[ "$(kid_of "$token")" = "$third" ] || job_fail "signed by $(kid_of "$token"), expected $third"
verify "a$n.example" "$token" || job_fail "python3-jwt does not take it"
ctl audit verify > /dev/null || job_fail "the audit chain"
ok "a TPM that went in the middle of a signature: ask again, no token; it is back, and so are tokens"
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
