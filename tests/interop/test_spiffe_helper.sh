#!/usr/bin/env bash
# spiffe-helper, which writes what the Workload API gives to files, with real processes (swtpm, keyd, whod, attestd, issuer,
# spiffed): certificate, key and roots of an agent whose entry says "exportable", over two rotations with a signal to the
# program that uses them; tokens and their keys alone for an agent whose key is in the TPM; who is given nothing is told why,
# and no file is written. Go fetches it with ATT_LONG=1 (ATT_SPIFFE_HELPER_VERSION for another version); ATT_SPIFFE_HELPER:
# its binary.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir and others come from job.sh and clients.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
# shellcheck source=../support/spiffe/clients.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe/clients.sh"
[ -n "${ATT_SPIFFE_HELPER:-}${ATT_LONG:-}" ] || job_skip "Go fetches it with ATT_LONG=1 only, or ATT_SPIFFE_HELPER names its binary"
[ -n "${ATT_SPIFFE_HELPER:-}" ] || command -v go > /dev/null || job_skip "no Go (package golang-go)"
clients_setup
helper=$dir/spiffe-helper
if [ -n "${ATT_SPIFFE_HELPER:-}" ]; then
    cp "$ATT_SPIFFE_HELPER" "$helper"
else
    CGO_ENABLED=0 GOBIN=$dir GOPATH=$dir/gopath GOFLAGS=-modcacherw timeout 1800 nice go install \
        "github.com/spiffe/spiffe-helper/cmd/spiffe-helper@${ATT_SPIFFE_HELPER_VERSION:-v0.11.0}" > "$dir/tmp/build" 2>&1 ||
        { tail -n 5 "$dir/tmp/build"; job_skip "spiffe-helper cannot be had here"; }
fi
chmod 755 "$helper"
# shellcheck disable=SC2034 # for clients.sh
client=("$helper" -config)
status=0
trap 'status=$?; job_stop helper KILL; job_stop refused KILL; job_stop user KILL; set +e; (exit $status); job_cleanup' EXIT
clients_world

# place NAME USER LINE…: a folder of USER's and its configuration in place/NAME.conf
place() {
    install -d -m 700 -o "$2" -g "$2" "$dir/place/$1"
    {
        printf 'agent_address = "%s"\ncert_dir = "%s"\n' "$socket" "$dir/place/$1"
        printf '%s\n' "${@:3}"
    } > "$dir/place/$1.conf"
    chmod 644 "$dir/place/$1.conf"
}
install -d -m 755 "$dir/place"
x509=('svid_file_name = "svid.pem"' 'svid_key_file_name = "key.pem"' 'svid_bundle_file_name = "bundle.pem"')
jwt=('jwt_bundle_file_name = "jwks.json"' "jwt_svids = [{jwt_audience = \"$api\", jwt_svid_file_name = \"token\"}]")
once() { # once NAME USER: runs it without its daemon
    timeout 90 setpriv --reuid "$2" --regid "$2" --clear-groups "$helper" -config "$dir/place/$1.conf" -daemon-mode=false > "$dir/tmp/once" 2>&1
}
refused() { # refused PATTERN NAME USER: it goes on, logs these words, and has written nothing
    job_start refused setpriv --reuid "$3" --regid "$3" --clear-groups "$helper" -config "$dir/place/$2.conf"
    told() { grep -q "code = PermissionDenied desc = $1" "$dir/log/refused.log"; }
    wait_for 30 told "$1" || { cat "$dir/log/refused.log"; job_fail "$2: another reason"; }
    job_alive refused || job_fail "$2: spiffe-helper ended"
    job_stop refused
    rm "$dir/log/refused.log"
    [ -z "$(ls "$dir/place/$2")" ] || job_fail "$2: $(ls "$dir/place/$2")"
}

# ---- refusals ----
place hard $tpm_user "${x509[@]}"
refused ".*never leaves its store.*PKCS#11.*attestd.v1.Signer" hard $tpm_user
place stranger $stranger "${x509[@]}"
refused ".*notAssigned" stranger $stranger
# Without its daemon it takes PermissionDenied for something that passes, and says nothing while it tries again.
! timeout 10 setpriv --reuid $tpm_user --regid $tpm_user --clear-groups "$helper" -config "$dir/place/hard.conf" -daemon-mode=false \
    > "$dir/tmp/once" 2>&1 || job_fail "a key that stays was written"
[ -z "$(ls "$dir/place/hard")" ] || job_fail "$(ls "$dir/place/hard")"
ok "who is given no key: PermissionDenied with the reason in spiffe-helper's log, no file"

# ---- certificate and key in files, and a program that is told ----
# shellcheck disable=SC2016 # the inner shell expands
job_start user setpriv --reuid $user --regid $user --clear-groups bash -c '
    trap "echo renewed" USR1
    echo ready
    while :; do sleep 0.1; done'
wait_for 30 grep -qx ready "$dir/log/user.log"
job_pid user > "$dir/place/user.pid"
chmod 644 "$dir/place/user.pid"
place alpha $user "${x509[@]}" "${jwt[@]}" "pid_file_name = \"$dir/place/user.pid\"" 'renew_signal = "SIGUSR1"'
job_start helper setpriv --reuid $user --regid $user --clear-groups "$helper" -config "$dir/place/alpha.conf"
at=$dir/place/alpha
written() { # what is in the files is alpha's certificate in force, and fits
    [ "$(openssl x509 -in "$at/svid.pem" -noout -serial | sed 's/serial=0*//' | tr A-F a-f)" = "$(serial_of alpha)" ] || return 1
    [ "$(openssl x509 -in "$at/svid.pem" -noout -pubkey)" = "$(openssl pkey -in "$at/key.pem" -pubout)" ] || return 1
    openssl verify -CAfile "$at/bundle.pem" -untrusted "$at/svid.pem" "$at/svid.pem" || return 1
}
signals() { [ "$(grep -cx renewed "$dir/log/user.log")" -ge "$1" ]; }
wait_for 60 written
wait_for 30 signals 1
[ "$(stat -c %a "$at/key.pem")" = 600 ] || job_fail "the key's file: $(stat -c %a "$at/key.pem")"
for n in 1 2; do
    before=$(serial_of alpha)
    ctl agent rotate alpha > /dev/null
    again() { [ "$(serial_of alpha)" != "$before" ] && written; }
    wait_for 60 again || { cat "$dir/log/helper.log"; job_fail "rotation $n"; }
    wait_for 30 signals $((n + 1)) || { cat "$dir/log/user.log"; job_fail "rotation $n: no signal"; }
done
ok "daemon: certificate, key and roots in files, which OpenSSL verifies; each of two rotations, with a signal to the program"
has_token() { [ -s "$at/token" ] && [ "$(jq -r '.sub' <<< "$(cut -d. -f2 "$at/token" | tr '_-' '/+' | base64 -d 2> /dev/null)")" = $domain/agent/alpha ]; }
wait_for 30 has_token
job_stop helper

# ---- tokens without a key that is given away ----
place tokens $tpm_user "${jwt[@]}"
once tokens $tpm_user || { cat "$dir/tmp/once"; job_fail "tokens alone"; }
token=$dir/place/tokens/token
[ "$(jq -r .sub <<< "$(cut -d. -f2 "$token" | tr '_-' '/+' | base64 -d 2> /dev/null)")" = $domain/agent/hard ] || job_fail "another token: $(cat "$token")"
[ "$(stat -c %a "$token")" = 600 ] || job_fail "the token's file: $(stat -c %a "$token")"
kid=$(ctl --json ca jwt | jq -r '.keys[0].kid')
# By trust domain, and each JWK Set in base64.
jq -r '."bank.example"' "$dir/place/tokens/jwks.json" | base64 -d | jq -e --arg kid "$kid" '.keys[0].kid == $kid' > /dev/null || { cat "$dir/place/tokens/jwks.json"; job_fail "the token's keys"; }
ok "an agent whose key is in the TPM: tokens and their keys in files"
place audience $tpm_user 'jwt_svids = [{jwt_audience = "https://other.example", jwt_svid_file_name = "token"}]'
refused "audienceDenied.*" audience $tpm_user
ok "an audience that the entry does not allow: audienceDenied, no file"
clients_end
echo "spiffe-helper ($("$helper" -version 2>&1 | head -n 1)): all held"
