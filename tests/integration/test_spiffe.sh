#!/usr/bin/env bash
# api.sock with real processes (swtpm, keyd, whod, attestd, issuer, spiffed) and gRPC's own Python library: bundles with
# the revocation list, what is refused and why, signatures by a TPM's key, pushes at rotation and revocation, a caller
# whose entry changes, attestd away.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
spiffe_setup client.py "cryptography, hpack" workload.proto signer.proto health.proto
cp "$support/streams.py" "$stubs/"
chmod a+r "$stubs/streams.py"
user=62001 stranger=62003
must() { # must EXPECTED FILTER USER COMMAND…
    local expected=$1 filter=$2 got
    shift 2
    as "$@" > "$dir/tmp/must" 2> "$dir/tmp/must.err" || { cat "$dir/tmp/must.err"; job_fail "$*"; }
    got=$(jq -r "$filter" "$dir/tmp/must" | tail -n 1)
    # shellcheck disable=SC2053 # a pattern
    [[ "$got" == $expected ]] || { cat "$dir/tmp/must"; job_fail "$*: $got, expected $expected"; }
}

job_make_tpm
job_write_conf
status=0
trap 'status=$?; for one in bundles watch sign exec many health unknown; do job_stop $one KILL; done; set +e; (exit $status); job_cleanup' EXIT
spiffe_start_all
entries() { # entries NAME=WORKLOAD...
    local one
    {
        echo "trust_domain: bank.example"
        echo "agents:"
        for one in "$@"; do
            printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:%s"], workload: %s, key: tpm, profile: trading}\n' \
                "${one%%=*}" "$(job_host_id)" "${one#*=}"
        done
    } > "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
}
entries "alpha={uid: $user}"
wait_for 60 job_settled alpha
serving() { as $stranger health > "$dir/tmp/health" && [ "$(jq -r .status "$dir/tmp/health")" = SERVING ]; }
wait_for 30 serving

# ---- refusals ----
must INVALID_ARGUMENT .code $user bundles-with
must "the header workload.spiffe.io *" .message $user bundles-with
must INVALID_ARGUMENT .code $user bundles-with workload.spiffe.io=false
must INVALID_ARGUMENT .code $user bundles-with workload.spiffe.io=true workload.spiffe.io=true
must PERMISSION_DENIED .code $stranger bundles
must "no agent's entry fits this process (notAssigned)" .message $stranger bundles
must PERMISSION_DENIED .code $stranger watch
must PERMISSION_DENIED .code $user svid
must "*use PKCS#11*attestd.v1.Signer*" .message $user svid
must INVALID_ARGUMENT .code $user jwt
[ "$(jq -r .code "$dir/tmp/must" | tr '\n' ' ')" = "PERMISSION_DENIED NOT_FOUND INVALID_ARGUMENT " ] || job_fail "JWT: $(cat "$dir/tmp/must")"
grep -q tokensOff "$dir/tmp/must" || job_fail "JWT: $(cat "$dir/tmp/must")"
must NOT_FOUND .code $user health nothing
must RESOURCE_EXHAUSTED .code $user health-twice
must "UNIMPLEMENTED UNIMPLEMENTED" '[inputs.code, .code] | join(" ")' $user wit
must DEADLINE_EXCEEDED .code $user bundles-for 1
ok "no header, a doubled one, no identity, a key that stays, JWT, a deadline: refused, each with its reason"

# ---- the bundle, by stock tools ----
follow bundles $user bundles
wait_for 30 lines bundles 1
sha_of() { openssl "$1" -in "$2" -outform DER | sha256sum | cut -d' ' -f1; }
[ "$(last bundles '.bundles | keys[0]')" = spiffe://bank.example ] || job_fail "$(cat "$dir/log/bundles.log")"
[ "$(last bundles '.bundles["spiffe://bank.example"]')" = "$(sha_of x509 "$dir/issuer/ca/bundle.pem")" ] || job_fail "another root"
has_crl() { last_is bundles '.crl[0]' "$(sha_of crl "$dir/state/host/crl.pem")"; }
wait_for 30 has_crl
ok "FetchX509Bundles: the issuer's root, and this host's revocation list"

# ---- signatures ----
must true .verified $user sign
must spiffe://bank.example/agent/alpha .id $user chain
must INVALID_ARGUMENT .code $user sign-with 0 32 "" ""
must INVALID_ARGUMENT .code $user sign-with 1 19 "" ""
must INVALID_ARGUMENT .code $user sign-with 2 33 "" ""
must INVALID_ARGUMENT .code $user sign-with 1 32 xyz ""
must FAILED_PRECONDITION .code $user sign-with 2 32 "" ""
must NOT_FOUND .code $user sign-with 1 32 00000000000000000000000000000000 ""
must PERMISSION_DENIED .code $user sign-with 1 32 "" spiffe://bank.example/agent/beta
must PERMISSION_DENIED .code $stranger sign
ok "Sign: verified with the certificate of Chain; another's key, a wrong digest, algorithm, key: refused"

# ---- pushes ----
follow watch $user watch
wait_for 30 lines watch 1
# A process that executes another program keeps its descriptor: at the next push it is not who it was.
job_start exec setpriv --reuid $user --regid $user --clear-groups /usr/bin/python3 "$stubs/streams.py" exec "$socket"
wait_for 30 lines exec 1
executed() { tr '\0' ' ' < "/proc/$(job_pid exec)/cmdline" > "$dir/tmp/cmdline" && grep -q ' after ' "$dir/tmp/cmdline"; }
wait_for 30 executed
sleep 1.2 # for a second it is taken to be who it was (PROVED_MS)
key=$(last watch .key) leaf=$(last watch .leaf)
ctl agent rotate alpha > /dev/null
rotated() { lines watch 2 && [ "$(last watch .key)" != "$key" ] && [ "$(last watch .leaf)" != "$leaf" ]; }
wait_for 30 rotated
must "$key" .key $user sign "key_id=$key"
wait_for 30 lines exec 2
[ "$(tail -n 1 "$dir/log/exec.log")" = '{"after": 0, "ended": [7], "over": false}' ] || { cat "$dir/log/exec.log"; job_fail "exec"; }
grep -q 'event=spiffed.caller-changed .*agent=alpha' "$dir/log/spiffed.log" || job_fail "no line about the caller that changed"
ok "a rotation is pushed, not to a program that took the connection over by exec; the key before signs on"
before=$(last bundles '.crl[0]')
serial=$(job_serial alpha)
ctl cert revoke "$serial" --reason superseded > /dev/null
revoked() { [ "$(last bundles '.crl[0]')" != "$before" ] && has_crl; }
wait_for 60 revoked
fresh() { [ "$(job_serial alpha)" != "$serial" ] && job_settled alpha; }
wait_for 60 fresh
ok "a revocation is pushed with the new list"

# ---- many streams ----
job_start_many() { # its standard input stays open
    mkfifo "$dir/tmp/open"
    sleep 120 > "$dir/tmp/open" &
    echo $! > "$dir/many-input.pid"
    setpriv --reuid $user --regid $user --clear-groups /usr/bin/python3 "$stubs/streams.py" many "$socket" 5000 \
        < "$dir/tmp/open" > "$dir/log/many.log" 2>&1 &
    echo $! > "$dir/many.pid"
    disown -a
}
pss() { awk '$1 == "Pss:" {print $2}' "/proc/$(job_pid spiffed)/smaps_rollup"; }
before=$(pss)
job_start_many
wait_for 60 lines many 1
held=$(last many .answered)
# One is watch's and one is bundles'; those beyond 1024 of a user are told to come back.
if [ "$(last many '.answered + .ended["14"]')" != 5000 ] || [ "$held" -gt 1024 ] || [ "$held" -lt 1020 ]; then
    cat "$dir/log/many.log"
    job_fail "5000 streams"
fi
after=$(pss)
must UNAVAILABLE .code $user chain
must SERVING .status $stranger health
job_stop many KILL
job_stop many-input KILL
freed() { as $user chain > "$dir/tmp/chain" && [ "$(jq -r .store "$dir/tmp/chain")" = tpm ]; }
wait_for 30 freed
ok "5000 streams of one user: $held are served, the others told to come back; another user is not hindered; $before KiB before, $after KiB with them"

# ---- who the caller is, again ----
follow sign $user sign-forever
wait_for 30 last_is sign .code OK
entries "alpha={uid: 62009}"
wait_for 30 last_is bundles .code PERMISSION_DENIED
wait_for 30 last_is sign .code PERMISSION_DENIED
entries "alpha={uid: $user}"
wait_for 30 last_is sign .code OK
ok "an entry that does not fit any more ends streams and signatures; put right, it signs"
ctl agent freeze alpha > /dev/null
wait_for 30 last_is sign .code PERMISSION_DENIED
ctl agent thaw alpha > /dev/null
wait_for 30 last_is sign .code OK

# ---- descriptors that come along ----
mkfifo "$dir/tmp/lingers"
setpriv --reuid $stranger --regid $stranger --clear-groups /usr/bin/python3 "$stubs/streams.py" linger "$socket" \
    < "$dir/tmp/lingers" > "$dir/log/linger.log" 2>&1 &
lingers=$!
exec 7> "$dir/tmp/lingers"
wait_for 30 lines linger 1
sent=$(last linger .sent)
began=$(date +%s)
must true .verified $user sign
[ $(($(date +%s) - began)) -lt 30 ] || job_fail "a stranger's sockets hold everybody up"
exec 7>&-
wait $lingers
ok "sockets that are sent along, and whose close waits a minute, hold nobody up ($sent of 6 could be sent)"

# ---- attestd away, and back ----
: > "$dir/log/bundles.log"
follow bundles $user bundles
wait_for 30 lines bundles 1
follow health $stranger health-watch
follow unknown $stranger health-watch nothing
wait_for 30 last_is health .status SERVING
wait_for 30 last_is unknown .status SERVICE_UNKNOWN
job_stop attestd KILL
must UNAVAILABLE .code $user bundles
away() { as $stranger health > "$dir/tmp/health" && [ "$(jq -r .status "$dir/tmp/health")" = NOT_SERVING ]; }
wait_for 30 away
job_start_attestd
wait_for 30 serving
wait_for 30 last_is health .status SERVING
[ "$(jq -r .status "$dir/log/health.log" | tr '\n' ' ')" = "SERVING NOT_SERVING SERVING " ] || { cat "$dir/log/health.log"; job_fail "health's Watch"; }
[ "$(wc -l < "$dir/log/unknown.log")" = 1 ] || job_fail "health of what is not there"
[ "$(wc -l < "$dir/log/bundles.log")" = 1 ] || { cat "$dir/log/bundles.log"; job_fail "a stream noticed attestd's restart"; }
before=$(last bundles '.crl[0]')
ctl cert revoke "$(job_serial alpha)" --reason superseded > /dev/null
wait_for 60 revoked
job_stop attestd
job_start_attestd 62011
wait_for 30 away
job_stop attestd
job_start_attestd
wait_for 30 serving
must true .verified $user sign
ok "streams outlive attestd, new ones are told to try again; pushes go on after it is back; it answers only the user that it names"
for one in bundles sign watch; do job_stop $one KILL; done
job_stop spiffed
[ ! -e "$socket" ] || job_fail "the socket is still there"
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "spiffe: all held"
