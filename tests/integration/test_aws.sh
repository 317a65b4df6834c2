#!/usr/bin/env bash
# IAM Roles Anywhere with real processes: CreateSession is signed by the agent's own processes with its key in the TPM,
# and an RSA one in an HSM, and posted to a server that makes the canonical request anew with botocore and verifies
# signature and chain. What is refused, by whom and why; the cache; then boto3, which gets its credentials by
# credential_process and uses them.
set -euo pipefail
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir, bin, port and the ports come from job.sh and port_into
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
/usr/bin/python3 -c 'import boto3, botocore, cryptography' 2> /dev/null || job_skip "no python3-boto3"
job_setup
chmod 755 "$dir" "$dir/tmp" "$dir/run"
ok() { echo "ok: $*"; }
user=62001 rsa_user=62002 stranger=62003 service=62010
job_make_tpm
job_write_conf
echo "    key_types: [ec-p256, rsa-2048]" >> "$dir/issuer.yaml"
aws_port=''
port_into aws_port
job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service; }
job_start_attestd() {
    job_start attestd "$bin/attestd" --config "$dir/attestd.yaml" --spiffed-user $service
    wait_for 30 ctl status
}
install -d -o $service "$dir/run/public"
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml" --client 0 --client $service
job_start_all
chmod 644 "$dir/attestd.yaml"
job_start_spiffed() {
    job_start spiffed setpriv --reuid $service --regid $service --groups 0 "$bin/attestd-spiffed" --config "$dir/attestd.yaml" \
        --attestd-user 0 --whod-user 0 --keyd-user 0
}
job_start_spiffed
status=0
trap 'status=$?; job_stop aws KILL; set +e; (exit $status); job_cleanup' EXIT
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
{
    printf 'trust_domain: bank.example\nagents:\n'
    printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: {uid: %s}, key: %s, key_type: %s, profile: trading}\n' \
        alpha "$(job_host_id)" $user tpm ec-p256 rsa "$(job_host_id)" $rsa_user hsm rsa-2048 \
        beta "$(job_host_id)" 62004 tpm ec-p256
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
for name in alpha rsa beta; do wait_for 60 job_settled $name; done
wait_for 30 test -S "$dir/run/public/api.sock"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=aws -keyout "$dir/aws.key" \
    -out "$dir/tmp/aws.pem" -addext subjectAltName=IP:127.0.0.1 2> /dev/null
chmod 644 "$dir/tmp/aws.pem"
record=$dir/record.json
job_start aws /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/aws/server.py" "$aws_port" "$dir/tmp/aws.pem" "$dir/aws.key" \
    "$dir/issuer/ca/bundle.pem" "$record"
wait_for 30 grep -q '^ready' "$dir/log/aws.log"
requests() { grep -c "^/$1 " "$dir/log/aws.log" || true; }

profile() { # profile [LINE…]: a later line of the same key takes the place of ours; "key:" alone leaves it out
    local line arn=arn:aws:rolesanywhere:eu-central-1:111122223333
    cat > "$dir/tmp/p.yaml" << END
endpoint: "https://127.0.0.1:$aws_port/sessions"
grant: aws-roles-anywhere
trust_anchor_arn: $arn:trust-anchor/t
profile_arn: $arn:profile/p
role_arn: arn:aws:iam::111122223333:role/agents
region: eu-central-1
ca_file: "$dir/tmp/aws.pem"
timeout: 5s
END
    for line in "$@"; do
        sed -i "/^${line%%:*}:/d" "$dir/tmp/p.yaml"
        [ "${line#*:}" = "" ] || echo "$line" >> "$dir/tmp/p.yaml"
    done
    chmod 644 "$dir/tmp/p.yaml"
}
export SPIFFE_ENDPOINT_SOCKET=unix://$dir/run/public/api.sock
as() { # as USER NAME [OPTION…]: attestctl token as that user, who may not open attestd's control socket
    local uid=$1
    shift
    exec setpriv --reuid "$uid" --regid "$uid" --clear-groups "$bin/attestctl" --socket /nowhere token "$@" --exchange "$dir/tmp/p.yaml"
}
refused() { # refused PATTERN [CODE [USER [NAME]]]: nothing on standard output
    local code=0
    (as "${3:-$user}" "${4:-alpha}") > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
    # shellcheck disable=SC2053 # a pattern
    if [ $code != "${2:-1}" ] || [ -s "$dir/tmp/out" ] || [[ "$(cat "$dir/tmp/err")" != *$1* ]]; then
        cat "$dir/tmp/err" "$dir/tmp/p.yaml"
        job_fail "expected $1, exit ${2:-1}, found exit $code"
    fi
    ! grep -qE 'ASIA|[0-9a-f]{60}' "$dir/tmp/err" || job_fail "a secret or a signature in an error"
}

# ---- who is refused before anything is sent ----
profile
refused "notAssigned: *" 1 $stranger
refused "callerAgent: this process is spiffe://bank.example/agent/rsa: agent alpha's key*" 1 $rsa_user
refused "callerAgent:" 1 $user beta
SPIFFE_ENDPOINT_SOCKET=unix://$dir/run/nobody.sock refused "nobody.sock*No such file" 3
SPIFFE_ENDPOINT_SOCKET=tcp://127.0.0.1:1 refused "SPIFFE_ENDPOINT_SOCKET: expected unix:///PATH"
profile "role_arn:"
refused "p.yaml:1: role_arn: required"
profile "region: Frankfurt"
refused "region: expected a region"
ctl agent freeze alpha > /dev/null
profile
refused "frozen:"
ctl agent thaw alpha > /dev/null
profile "ca_file: /etc/ssl/certs/ca-certificates.crt"
refused "issuerTls:"
[ "$(grep -c '^/' "$dir/log/aws.log" || true)" = 0 ] || job_fail "something was sent"
ok "a stranger, another agent's process, no socket, a frozen agent, a profile with a hole, a server that is not known: nothing is sent"

# ---- refused by the service, and answers that are none ----
profile "role_arn: arn:aws:iam::111122223333:role/admins"
refused "ResourceNotFoundException: *status 404: roleArn"
profile "region: us-east-1"
refused "RegionException: *status 403"
profile "endpoint: \"https://127.0.0.1:$aws_port/late/sessions\""
refused "RequestExpired: *status 403"
while read -r at pattern; do
    profile "endpoint: \"https://127.0.0.1:$aws_port/$at\""
    refused "$pattern"
done << 'END'
redirect redirect:
none answerToken:
html answerForm:
past answerLifetime:
lines answerToken:
huge the answer has more than 65536 bytes
busy answerStatus: *status 503
echo answerStatus: *status 403: \?\[31mAWS4-X509-ECDSA-SHA256 \[...],
END
[ "$(requests sessions)" -ge 2 ] && ! grep -q "^/sessions 201" "$dir/log/aws.log" || job_fail "a redirect was followed"
ok "another role, another region, a clock that is off, and answers that hold no credentials: by their names"

# ---- given, and what of it the server would have refused ----
profile "session_duration: 15m" "session_name: trader@alpha"
(as $user alpha) > "$dir/tmp/out" || job_fail "no credentials"
jq -e '.Version == 1 and (.AccessKeyId | startswith("ASIA")) and .SecretAccessKey != "" and .SessionToken != "" and
    (.Expiration | fromdateiso8601) - now > 880 and (keys | length) == 5' "$dir/tmp/out" > /dev/null || job_fail "$(cat "$dir/tmp/out")"
jq -e '.headers.Authorization | startswith("AWS4-X509-ECDSA-SHA256 Credential=")' "$record" > /dev/null || job_fail "not ECDSA"
serial=$(openssl x509 -in "$dir/state/host/agents/alpha/chain.pem" -noout -serial | cut -d= -f2)
[ "$(jq -r '.headers.Authorization | capture("Credential=(?<n>[0-9]+)/").n' "$record")" = \
    "$(/usr/bin/python3 -c "print(int('$serial', 16))")" ] || job_fail "the serial number"
forge() {
    /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/aws/forge.py" "$record" "https://127.0.0.1:$aws_port" "$dir/tmp/aws.pem" \
        "$dir/tmp/beta.pem" > "$dir/tmp/forge" 2>&1 || { cat "$dir/tmp/forge"; job_fail "forge.py"; }
    grep -c '^ok' "$dir/tmp/forge"
}
openssl x509 -in "$dir/state/host/agents/beta/chain.pem" -out "$dir/tmp/beta.pem"
forged=$(forge)
ok "credentials for the key in the TPM; the same request changed in one place, $forged times: each refused by its name"
profile
(as $rsa_user rsa) > "$dir/tmp/out" || job_fail "no credentials for RSA"
jq -e '.headers.Authorization | startswith("AWS4-X509-RSA-SHA256 Credential=")' "$record" > /dev/null || job_fail "not RSA"
forged=$(forge)
ok "the same with the RSA key in the HSM, $forged changes"

# ---- the cache ----
cache=$dir/cache
install -d -o $user -m 700 "$cache"
cached() { (as $user alpha --cache "$cache/aws" "$@"); }
cached_again() { cached > /dev/null 2>&1; }
before=$(requests sessions)
cached > "$dir/tmp/one"
cached > "$dir/tmp/two"
cmp -s "$dir/tmp/one" "$dir/tmp/two" && [ "$(requests sessions)" = $((before + 1)) ] || job_fail "not from the cache"
[ "$(stat -c '%a %u' "$cache/aws")" = "600 $user" ] || job_fail "mode $(stat -c %a "$cache/aws")"
profile "session_duration: 30m"
cached > "$dir/tmp/two"
! cmp -s "$dir/tmp/one" "$dir/tmp/two" || job_fail "another profile, the same credentials"
profile "endpoint: \"https://127.0.0.1:$aws_port/short/sessions\""
cached > "$dir/tmp/one"
sleep 5 # more than half of its eight seconds
cached > "$dir/tmp/two"
! cmp -s "$dir/tmp/one" "$dir/tmp/two" || job_fail "not renewed before its end"
profile
cached > "$dir/tmp/one"
age() { # the cache as if half of its hour were over
    jq -c '.issuedAt -= 2400 | .expiresAt -= 2000' "$cache/aws" > "$dir/tmp/aged" && cat "$dir/tmp/aged" > "$cache/aws"
}
age
job_stop aws
cached > "$dir/tmp/two" 2> "$dir/tmp/err" || job_fail "the kept one was not given while the service is away"
cmp -s "$dir/tmp/one" "$dir/tmp/two" && grep -q "127.0.0.1:$aws_port" "$dir/tmp/err" || job_fail "$(cat "$dir/tmp/err")"
job_start aws /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/aws/server.py" "$aws_port" "$dir/tmp/aws.pem" "$dir/aws.key" \
    "$dir/issuer/ca/bundle.pem" "$record"
listening() { curl -s --cacert "$dir/tmp/aws.pem" -d x "https://127.0.0.1:$aws_port/none" > /dev/null; }
wait_for 30 listening
cached > "$dir/tmp/two"
! cmp -s "$dir/tmp/one" "$dir/tmp/two" || job_fail "not renewed when the service was back"
echo "somebody's notes" > "$cache/notes"
chown $user "$cache/notes"
chmod 600 "$cache/notes"
code=0
(as $user alpha --cache "$cache/notes") > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
[ $code = 1 ] && grep -q "cacheFile: .*notes" "$dir/tmp/err" && [ "$(cat "$cache/notes")" = "somebody's notes" ] || job_fail "notes"
chmod 640 "$cache/aws"
code=0
cached > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
[ $code = 1 ] && grep -q "cacheFile: .*mode 0600" "$dir/tmp/err" && [ ! -s "$dir/tmp/out" ] || job_fail "a cache that others read"
chmod 600 "$cache/aws"
code=0
cached --refresh > /dev/null 2>&1 || code=$?
[ $code = 2 ] || job_fail "--cache with --refresh: $code"
ok "the cache: one session for two calls, another for another profile, renewed at half of its life, kept while the service is away; no other file is touched"


# ---- the cache of who is not in force ----
profile
ctl agent freeze alpha > /dev/null
cached > "$dir/tmp/one" 2> "$dir/tmp/err" && job_fail "a frozen agent's cache was given"
grep -q "frozen:" "$dir/tmp/err" && [ ! -s "$dir/tmp/one" ] && [ ! -e "$cache/aws" ] || { cat "$dir/tmp/err"; job_fail "frozen"; }
ctl agent thaw alpha > /dev/null
cached > "$dir/tmp/one" || job_fail "after the thaw"
[ -s "$cache/aws" ] || job_fail "no cache after the thaw"
unheard() { # unheard PATTERN CODE [VARIABLE]: what is kept is not given, and stays
    local code=0
    (exec env ${3:+"$3"} setpriv --reuid $user --regid $user --clear-groups "$bin/attestctl" --socket /nowhere token alpha \
        --cache "$cache/aws" --exchange "$dir/tmp/p.yaml") > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
    [ $code = "$2" ] && [ ! -s "$dir/tmp/out" ] && [ -s "$cache/aws" ] && grep -q "$1" "$dir/tmp/err" ||
        { cat "$dir/tmp/err"; job_fail "expected $1, exit $2, found exit $code"; }
}
unheard "nobody.sock" 3 "SPIFFE_ENDPOINT_SOCKET=unix://$dir/run/nobody.sock"
code=0
(as $rsa_user rsa --cache "$cache/aws") > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
[ $code != 0 ] && [ ! -s "$dir/tmp/out" ] && [ -s "$cache/aws" ] || job_fail "another user's process had the cache"
before=$(requests sessions)
job_stop spiffed
unheard "api.sock" 3
job_start_spiffed
wait_for 30 cached_again
[ "$(requests sessions)" = "$before" ] || job_fail "a session was made"
ok "the cache of a frozen agent is not given and is removed; nor is one given while nobody says whether the agent is in force"

# ---- two at once ----
rm -f "$cache"/aws "$cache"/aws.lock
before=$(requests sessions)
pids=()
for i in 1 2 3 4 5 6; do
    cached > "$dir/tmp/at-once.$i" 2> "$dir/tmp/at-once-err.$i" &
    pids+=($!)
done
for i in "${pids[@]}"; do wait "$i" || { cat "$dir"/tmp/at-once-err.*; job_fail "one of several at once"; }; done
[ "$(requests sessions)" = $((before + 1)) ] || job_fail "$(($(requests sessions) - before)) sessions for six processes at once"
for i in 2 3 4 5 6; do cmp -s "$dir/tmp/at-once.1" "$dir/tmp/at-once.$i" || job_fail "not the same"; done
rm -f "$cache/aws"
ln -sf /etc/hostname "$cache/aws.lock.new"
mv "$cache/aws.lock.new" "$cache/aws.lock"
code=0
cached > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
[ $code = 1 ] && [ ! -s "$dir/tmp/out" ] && grep -q "cacheFile: .*aws.lock: expected a file, found a link" "$dir/tmp/err" ||
    { cat "$dir/tmp/err"; job_fail "a link in the lock's place"; }
rm -f "$cache/aws.lock"
ok "six processes at once with one cache: one session; a link in the lock's place is refused"

# ---- a full disk ----
full() { # full FOLDER: in a mount namespace of its own
    local folder=$1 code
    mount -t tmpfs -o size=16k,mode=700,uid=$user tmpfs "$folder" || return 77
    dd if=/dev/zero of="$folder/fill" bs=4k > /dev/null 2>&1 || true
    for _ in 1 2; do
        code=0
        (as $user alpha --cache "$folder/aws") > "$dir/tmp/out" 2> "$dir/tmp/err" || code=$?
        [ $code = 0 ] && jq -e '.Version == 1' "$dir/tmp/out" > /dev/null && grep -q "cacheWrite: .*No space left" "$dir/tmp/err" &&
            [ ! -e "$folder/aws" ] && [ "$(ls -A "$folder")" = "$(printf 'aws.lock\nfill')" ] ||
            { cat "$dir/tmp/err"; ls -la "$folder"; return 1; }
    done
    rm "$folder/fill"
    (as $user alpha --cache "$folder/aws") > "$dir/tmp/one" 2> "$dir/tmp/err" || return 1
    [ ! -s "$dir/tmp/err" ] || { cat "$dir/tmp/err"; return 1; }
    dd if=/dev/zero of="$folder/fill" bs=4k > /dev/null 2>&1 || true
    cp "$folder/aws" "$dir/tmp/before"
    profile "session_duration: 45m"
    (as $user alpha --cache "$folder/aws") > "$dir/tmp/two" 2> "$dir/tmp/err" || return 1
    jq -e '.Version == 1' "$dir/tmp/two" > /dev/null && grep -q "cacheWrite:" "$dir/tmp/err" && cmp -s "$folder/aws" "$dir/tmp/before"
}
code=0
mkdir -p "$dir/full"
export -f full as profile
export dir bin user aws_port
if unshare -m --propagation private true 2> /dev/null; then
    # shellcheck disable=SC2016 # of the other shell
    unshare -m --propagation private bash -euo pipefail -c 'full "$dir/full"' || code=$?
else
    code=77 # a chroot
fi
[ $code = 0 ] || [ $code = 77 ] || job_fail "a full disk: $code"
[ $code = 0 ] && ok "a full disk under the cache: credentials all the same, cacheWrite said, the file of before stays, nothing else" ||
    echo "skipped: no tmpfs of its own here"

# ---- an agent that is no more ----
profile
as_beta() { (as 62004 beta --cache "$beta_cache/aws") > "$dir/tmp/out" 2> "$dir/tmp/err"; }
beta_cache=$dir/beta-cache
install -d -o 62004 -m 700 "$beta_cache"
as_beta && [ -s "$beta_cache/aws" ] || { cat "$dir/tmp/err"; job_fail "no credentials for beta"; }
ctl entry delete beta > "$dir/tmp/delete" 2>&1 || { cat "$dir/tmp/delete"; job_fail "entry delete"; }
not_beta() { ! as_beta && [ ! -s "$dir/tmp/out" ] && [ ! -e "$beta_cache/aws" ]; }
wait_for 60 not_beta
grep -q "notAssigned\|noCertificate" "$dir/tmp/err" || { cat "$dir/tmp/err"; ls -la "$beta_cache"; job_fail "the cache of an agent that was removed"; }
ok "the cache of an agent whose entry was removed is not given and is removed"

# ---- boto3 ----
sdk=$dir/sdk
install -d -o $user -m 700 "$sdk"
cat > "$sdk/config" << END
[profile agent]
region = eu-central-1
credential_process = "$bin/attestctl" --socket /nowhere token alpha --exchange "$dir/tmp/p.yaml" --cache "$cache/sdk"
END
cat > "$sdk/whoami.py" << 'END'
import sys

import boto3

session = boto3.Session(profile_name="agent")
assert session.get_credentials().method == "custom-process", session.get_credentials().method
sts = session.client("sts", endpoint_url=sys.argv[1], verify=sys.argv[2])
for _ in range(2):
    me = sts.get_caller_identity()
print(me["Arn"], me["UserId"])
END
chmod -R a+rX "$sdk"
whoami() {
    (exec env AWS_CONFIG_FILE="$sdk/config" HOME="$sdk" setpriv --reuid "$1" --regid "$1" --clear-groups /usr/bin/python3 \
        "$sdk/whoami.py" "https://127.0.0.1:$aws_port" "$dir/tmp/aws.pem")
}
chmod 755 "$sdk"
profile "session_name: trader@alpha"
before=$(requests sessions)
for _ in 1 2; do
    whoami $user > "$dir/tmp/out" 2> "$dir/tmp/err" || { cat "$dir/tmp/err"; job_fail "boto3"; }
    [ "$(cat "$dir/tmp/out")" = "arn:aws:sts::111122223333:assumed-role/agents/trader@alpha spiffe://bank.example/agent/alpha" ] ||
        { cat "$dir/tmp/out"; job_fail "boto3: another"; }
done
[ "$(requests sessions)" = $((before + 1)) ] || job_fail "$(($(requests sessions) - before)) sessions for two processes"
! whoami $stranger > "$dir/tmp/out" 2> "$dir/tmp/err" || job_fail "boto3 as a stranger"
grep -q "notAssigned\|cacheFile\|Permission denied" "$dir/tmp/err" || { cat "$dir/tmp/err"; job_fail "boto3 as a stranger"; }
ok "boto3 gets them by credential_process, calls GetCallerIdentity with them and is the agent; a stranger's is not"

# ---- kept fresh in a file ----
profile "endpoint: \"https://127.0.0.1:$aws_port/short/sessions\""
job_start keeper setpriv --reuid $user --regid $user --clear-groups "$bin/attestctl" --socket /nowhere token alpha \
    --exchange "$dir/tmp/p.yaml" --out "$cache/out" --refresh
wait_for 30 test -s "$cache/out"
cp "$cache/out" "$dir/tmp/one"
renewed() { ! cmp -s "$cache/out" "$dir/tmp/one" && jq -e '.Version == 1' "$cache/out"; }
wait_for 30 renewed
job_stop keeper
ok "--refresh keeps the document in a file fresh, too"

secret=$(jq -r .SecretAccessKey "$cache/out")
for where in "$dir"/log/*.log; do
    ! grep -qaF "$secret" "$where" || job_fail "a secret in $where"
done
job_stop spiffed
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "aws: all held"
