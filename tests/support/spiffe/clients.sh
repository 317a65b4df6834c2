# shellcheck shell=bash
# shellcheck disable=SC2154 # from job.sh, spiffe.sh and who sources this
# What SPIFFE libraries of others are tried with: four agents of the real stack (alpha, peer and other "exportable", hard
# with its key in the TPM), a user who is nobody's agent, and the checks that are the same for each library. The program
# that uses the library takes commands and answers in lines of JSON (tests/support/spiffe/go/main.go says which); a
# refusal is {"code", "message", "said"}: gRPC's code and message, and what the library itself makes of it.
# Source this after spiffe.sh; set $client, the program's words, and JOB_KEY=exportable before job.sh.

user=62001 peer=62002 other=62003 tpm_user=62004 stranger=62005
domain=spiffe://bank.example api=https://api.example

clients_setup() {
    [ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
    command -v setpriv > /dev/null || job_skip "no setpriv"
    job_setup
    chmod 755 "$dir" "$dir/tmp" "$dir/run"
    socket=$dir/run/public/api.sock
    export SPIFFE_ENDPOINT_SOCKET=unix://$socket
}

# The stack, with what it needs for tokens and exports, and the agents' certificates.
clients_world() {
    job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service --exporter $service; }
    job_make_tpm
    job_write_conf
    id_port=
    port_into id_port
    printf 'jwt:\n  issuer: "https://127.0.0.1:%s"\n  listen: "127.0.0.1:%s"\n' "$id_port" "$id_port" >> "$dir/issuer.yaml"
    spiffe_start_all
    {
        printf 'trust_domain: bank.example\nagents:\n'
        printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:'"$(job_host_id)"'"], workload: {uid: %s}, key: %s, profile: trading, audiences: ["'$api'"]}\n' \
            alpha $user exportable peer $peer exportable other $other exportable hard $tpm_user tpm
    } > "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
    local name
    for name in alpha peer other hard; do wait_for 60 job_settled $name; done
}

serial_of() { openssl x509 -in "$dir/state/host/agents/$1/chain.pem" -noout -serial | sed 's/serial=0*//' | tr A-F a-f; }
got() { tail -n 1 "$dir/tmp/got" | jq -r "$1"; }
answer() { # answer USER COMMAND…: what it says
    timeout 120 setpriv --reuid "$1" --regid "$1" --clear-groups "${client[@]}" "${@:2}" > "$dir/tmp/got" 2> "$dir/tmp/got.err" ||
        { cat "$dir/tmp/got" "$dir/tmp/got.err"; job_fail "$*"; }
}
must() { # must CODE MESSAGE-PATTERN USER COMMAND…: it ends so
    local code=$1 message=$2
    shift 2
    answer "$@"
    # shellcheck disable=SC2053 # a pattern
    [[ "$(got '(.code // "none") + " " + (.message // "")')" == "$code "$message ]] ||
        { cat "$dir/tmp/got"; job_fail "$*: expected $code $message"; }
}
client_follow() { job_start "$1" setpriv --reuid "$2" --regid "$2" --clear-groups "${client[@]}" "${@:3}"; }

# clients_refused: who is given no key, and that the program's user can read why.
clients_refused() {
    must PERMISSION_DENIED "*never leaves its store*PKCS#11*attestd.v1.Signer*" $tpm_user svid
    [[ "$(got .said)" == *"never leaves its store"* ]] || { cat "$dir/tmp/got"; job_fail "the library hides the reason"; }
    must PERMISSION_DENIED "no agent's entry fits this process (notAssigned)" $stranger svid
    [[ "$(got .said)" == *notAssigned* ]] || { cat "$dir/tmp/got"; job_fail "the library hides the reason"; }
    must PERMISSION_DENIED "*notAssigned*" $stranger bundles
    must PERMISSION_DENIED "*notAssigned*" $stranger token $api
    must PERMISSION_DENIED "*notAssigned*" $stranger validate $api a.b.c
    ok "an agent whose key is in the TPM is given none, nobody's agent nothing: PERMISSION_DENIED, and the library tells the reason"
}

# clients_watched N: FetchX509SVID, and a source that has each of N rotations, and the one after a restart of spiffed.
clients_watched() {
    local n before
    answered() { answer $user svid && [ "$(got .serial)" = "$(serial_of alpha)" ]; }
    wait_for 30 answered
    [ "$(got '[.id, .chain >= 2, .minutes <= 11] | @json')" = "[\"$domain/agent/alpha\",true,true]" ] || job_fail "$(cat "$dir/tmp/got")"
    client_follow watch $user watch
    wait_for 60 lines watch 1
    for n in $(seq "$1"); do
        before=$(serial_of alpha)
        ctl agent rotate alpha > /dev/null
        other_one() { [ "$(serial_of alpha)" != "$before" ] && last_is watch .serial "$(serial_of alpha)"; }
        wait_for 60 other_one || { cat "$dir/log/watch.log"; job_fail "rotation $n"; }
        last_is watch .verified true || { cat "$dir/log/watch.log"; job_fail "rotation $n: does not verify"; }
    done
    [ "$(jq -r .serial "$dir/log/watch.log" | sort -u | wc -l)" -gt "$1" ] || { cat "$dir/log/watch.log"; job_fail "$1 rotations"; }
    job_stop spiffed
    job_start_spiffed
    before=$(serial_of alpha)
    ctl agent rotate alpha > /dev/null
    wait_for 90 other_one || { cat "$dir/log/watch.log"; job_fail "after a restart of spiffed"; }
    job_stop watch KILL
    ok "X509-SVID once and by a source, which had each of $1 rotations, and the next one after spiffed's restart; it verifies them by its own roots"
}

# clients_tokens: JWT-SVIDs minted, judged here and there, refused; bundles of both kinds.
clients_tokens() {
    local jwt
    token() { answer $user token $api && [ "$(got .code)" = OK ]; }
    wait_for 30 token || { cat "$dir/tmp/got"; job_fail "token"; }
    [ "$(got '[.id, .remote, .local] | unique | join(" ")')" = $domain/agent/alpha ] || job_fail "$(cat "$dir/tmp/got")"
    jwt=$(got .token)
    must OK "" $tpm_user validate $api "$jwt" # an agent that has no key of its own to show
    must OK "" $tpm_user token $api
    [ "$(got .id)" = $domain/agent/hard ] || job_fail "$(cat "$dir/tmp/got")"
    must INVALID_ARGUMENT "*tokenAudience*" $user validate https://other.example "$jwt"
    must INVALID_ARGUMENT "*tokenSignature*" $user validate $api "${jwt%.*}.$(printf 'x%.0s' $(seq 64) | openssl base64 -A | tr '+/' '-_' | tr -d =)"
    must PERMISSION_DENIED "*audienceDenied*" $user token https://other.example
    local kid root
    kid=$(ctl --json ca jwt | jq -r '.keys[0].kid')
    root=$(openssl x509 -in "$dir/issuer/ca/bundle.pem" -noout -serial | sed 's/serial=0*//' | tr A-F a-f)
    for uid in $user $tpm_user; do
        answer "$uid" bundles
        [ "$(got '[.domain, .serials[0], .kids[0]] | @json')" = "[\"bank.example\",\"$root\",\"$kid\"]" ] || job_fail "$(cat "$dir/tmp/got")"
    done
    ok "JWT-SVIDs minted, judged by ValidateJWTSVID and by the library's own copy of the keys, refused by name; both kinds of bundles, for an agent with its key in the TPM, too"
}

clients_end() {
    job_stop spiffed
    ! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
}
