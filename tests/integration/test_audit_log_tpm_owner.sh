#!/usr/bin/env bash
# The log's TPM with an owner password (swtpm, tpm2_changeauth): none, a wrong one, its file in another form, the right one,
# by the configuration and as systemd gives credentials; how often a wrong one is tried. And what attest-issuerd --check
# says of that process: no socket, nobody at it, another key, another log, another counter.
set -euo pipefail
# shellcheck disable=SC2154 # from job.sh and auditlog.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/auditlog.sh
. "$ATT_SOURCE_DIR/tests/support/auditlog.sh"
# shellcheck source=../support/logtpm.sh
. "$ATT_SOURCE_DIR/tests/support/logtpm.sh"
for tool in swtpm swtpm_setup tpm2_changeauth tpm2_getcap tpm2_evictcontrol; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
log_setup
log_decide 2
job_stop issuerd
plain=$(cat "$dir/issuer.yaml")
secret='correct horse' wrong='battery staple'
tpm() { TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") "$@" > "$dir/tmp/tpm" 2>&1 || { cat "$dir/tmp/tpm"; job_fail "$*"; }; }
failures() { tpm tpm2_getcap properties-variable && sed -n 's/^TPM2_PT_LOCKOUT_COUNTER: *//p' "$dir/tmp/tpm"; }
with_tpm() { # with_tpm [LINE]: a line more in the section
    {
        echo "$plain"
        logtpm_conf "$dir/tpm" "$dir/tpm-state"
        [ -z "${1:-}" ] || echo "  $1"
    } > "$dir/issuer.yaml"
}
tpm_says() { grep -q "logtpm.tpm-not-ready.*$1" "$dir/log/logtpm.log"; }
tries() { grep -c 'logtpm.owner-refused' "$dir/log/logtpm.log" || true; }
tpm_start() { : > "$dir/log/logtpm.log" && logtpm_start; }
is_ready() { grep -q logtpm.tpm-ready "$dir/log/logtpm.log"; }
no_secret() { ! grep -qe "$secret" -e "$wrong" "$dir/log/logtpm.log" "$dir/tmp/refused" || job_fail "a password is told"; }
check() { "$bin/attest-issuerd" --config "$dir/issuer.yaml" --check; }

# ---- a TPM whose owner has a password ---------------------------------------------------------------------
logtpm_make "$dir/tpm"
tpm tpm2_changeauth -c owner "$secret"
before=$(failures)
with_tpm
tpm_start
wait_for 30 tpm_says ownerPassword
grep -q 'none is given.*attest-issuerd-tpm.owner' "$dir/log/logtpm.log" || { cat "$dir/log/logtpm.log"; job_fail "what is expected is not told"; }
refused 'ownerPassword' check
job_stop logtpm
[ ! -e "$dir/tpm-state/secret.pem" ] || job_fail "something was made without the password"
ok "none is given: ownerPassword, told by --check, too"

# ---- its file ---------------------------------------------------------------------------------------------
form() { # form WORDS: refused as ownerPasswordFile, with them
    tpm_start
    wait_for 30 tpm_says "ownerPasswordFile.*$1"
    job_stop logtpm
}
with_tpm "owner_password_file: $dir/owner"
form 'owner password: .*owner'
(umask 077 && printf '%s\n' "$secret" > "$dir/owner") && chmod 644 "$dir/owner"
form 'expected a file that others cannot read, found mode 644'
chmod 600 "$dir/owner"
: > "$dir/owner"
form 'found none'
printf '%065d\n' 7 > "$dir/owner"
form 'found more'
printf 'one\ntwo\n' > "$dir/owner"
form 'more than one line'
with_tpm 'owner_password_file: owner'
refused 'owner_password_file: expected an absolute path' "$bin/attest-issuerd-tpm" --config "$dir/issuer.yaml" --check
ok "a file that is missing, for all to read, empty, too long, of two lines: ownerPasswordFile"

# ---- a wrong one is tried once ------------------------------------------------------------------------------
with_tpm "owner_password_file: $dir/owner"
printf '%s\n' "$wrong" > "$dir/owner"
tpm_start
wait_for 30 tpm_says 'ownerPassword.*not tried again'
sleep 4 # not asserted by this alone: it looks once a second
refused 'ownerPassword' check
no_secret
after=$(failures)
[ $((after - before)) -le 1 ] || job_fail "the TPM counts $before, then $after failures"
[ "$(tries)" = 1 ] || { cat "$dir/log/logtpm.log"; job_fail "tried $(tries) times"; }
# Another one in its place is tried without a restart.
printf '%s\n' "$secret" > "$dir/owner.new" && chmod 600 "$dir/owner.new" && mv "$dir/owner.new" "$dir/owner"
wait_for 30 is_ready
check > /dev/null
job_start_issuer
log_decide 2
log_tpm_verify "$log" --save "$dir/first" > /dev/null
[ "$(failures)" = "$after" ] || job_fail "failures with the right one"
ok "a wrong one: tried once, the dictionary counter stands; the right one in its place: the log goes on, signed by the TPM"

# ---- changed while it runs -----------------------------------------------------------------------------------
tpm tpm2_changeauth -c owner -p "$secret" 'another one'
ctl ticket create > /dev/null
waits() { [ "$(ctl --json issuer status | jq .log.waiting)" = true ]; }
wait_for 30 waits
[ "$(ctl --json issuer status | jq .log.broken)" = false ] || job_fail "broken"
tried_twice() { [ "$(tries)" = 2 ]; } # the first one above, and this
wait_for 30 tried_twice
tpm tpm2_changeauth -c owner -p 'another one' "$secret"
printf '%s\r\n' "$secret" > "$dir/owner" # the same: not tried again
sleep 3
waits || job_fail "the log goes on with a password that was refused"
tried_twice || { cat "$dir/log/logtpm.log"; job_fail "tried $(tries) times"; }
job_stop logtpm
tpm_start
wait_for 60 log_is_current "$(log_records)"
log_tpm_verify "$log" --since "$dir/first" --save "$dir/first" > /dev/null
job_stop issuerd
job_stop logtpm
ok "changed under it: ownerPassword, nothing is published, a restart with the right one goes on"

# ---- as systemd gives it ----------------------------------------------------------------------------------------
with_tpm
mkdir -m 700 "$dir/credentials"
mv "$dir/owner" "$dir/credentials/attest-issuerd-tpm.owner"
export CREDENTIALS_DIRECTORY=$dir/credentials
tpm_start
wait_for 30 is_ready
job_start_issuer
log_decide 1
log_tpm_verify "$log" --since "$dir/first" --save "$dir/first" > /dev/null
job_stop issuerd
job_stop logtpm
tpm tpm2_nvundefine -C o -P "$secret" 0x01804c47
"$bin/attest-issuerd-tpm" --config "$dir/issuer.yaml" --new-counter --reason 'it was removed' > /dev/null
tpm_start
wait_for 30 is_ready
job_start_issuer
log_decide 1
log_tpm_verify "$log" --since "$dir/first" > /dev/null
job_stop issuerd
job_stop logtpm
# A password that nobody asks for is not used.
tpm tpm2_changeauth -c owner -p "$secret"
tpm_start
wait_for 30 is_ready
check > /dev/null
job_stop logtpm
unset CREDENTIALS_DIRECTORY
ok "as a credential, for --new-counter, too; a TPM without a password does not mind one"

# ---- --check ------------------------------------------------------------------------------------------------------
refused 'logTpmAway.*log.sock is not there' check
python3 - "$dir/tpm-run/log.sock" << 'END'
import socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])
END
refused 'logTpmAway' check
! grep -q 'is not there' "$dir/tmp/refused" || job_fail "a socket that is there"
rm "$dir/tpm-run/log.sock"
tpm_start
wait_for 30 is_ready
check > /dev/null
cp "$dir/issuer/audit.tpm.vkey" "$dir/tmp/vkey"
openssl ecparam -name prime256v1 -genkey -noout 2> /dev/null | openssl pkey -pubout -outform DER -out "$dir/tmp/other"
vkey_of() { echo "$(cut -d+ -f1 "$dir/tmp/vkey")+$(openssl dgst -sha256 -r "$1" | cut -c 1-8)+$({ printf '\002' && cat "$1"; } | base64 -w 0)"; }
vkey_of "$dir/tmp/other" > "$dir/issuer/audit.tpm.vkey"
refused 'logTpmKey.*another key' check
cp "$dir/tmp/vkey" "$dir/issuer/audit.tpm.vkey"
check > /dev/null
# The counter: the issuer's newest checkpoint is an older one than what was signed.
cp "$dir/issuer/audit.checkpoint" "$dir/tmp/older"
job_start_issuer
log_decide 1
job_stop issuerd
check > /dev/null
cp "$dir/issuer/audit.checkpoint" "$dir/tmp/newer"
cp "$dir/tmp/older" "$dir/issuer/audit.checkpoint"
refused 'logRolledBack.*has the counter' check
cp "$dir/tmp/newer" "$dir/issuer/audit.checkpoint"
# Another log.
mkdir "$dir/kept"
(cd "$dir/issuer/ca" && mv log.key log.vkey "$dir/kept/")
check > /dev/null # none yet: it begins with the next start
(cd "$dir/kept" && cp log.key log.vkey "$dir/issuer/ca/")
job_stop logtpm
cp "$dir/tpm-state/record.json" "$dir/tmp/record"
sed -i 's,"origin":"[^"]*","origin":"other.example/log",' "$dir/tpm-state/record.json"
tpm_start
wait_for 30 is_ready
refused 'logOrigin' check
job_stop logtpm
cp "$dir/tmp/record" "$dir/tpm-state/record.json"
tpm_start
wait_for 30 is_ready
sed -i '/^log_tpm:/,$d' "$dir/issuer.yaml"
check > /dev/null
ok "--check: no socket, nobody at it, another key, an older checkpoint, another log, each by its name; nothing without the section"
