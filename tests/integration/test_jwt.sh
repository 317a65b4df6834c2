#!/usr/bin/env bash
# JWT-SVIDs with real processes: an agent gets one by gRPC and by attestctl, python3-jwt verifies it by what the issuer
# publishes, spiffed judges those of others; what is refused and why, keys replaced, the issuer away.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin, port and id_port come from job.sh and port_into
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
spiffe_setup client.py "cryptography, hpack, jwt" workload.proto signer.proto health.proto
user=62001 stranger=62003
got() { jq -r "$1" "$dir/tmp/got"; }
must() { # must CODE PATTERN USER COMMAND…: the answer's code, and what its message has in it
    local code=$1 pattern=$2
    shift 2
    as "$@" > "$dir/tmp/got" 2> "$dir/tmp/got.err" || { cat "$dir/tmp/got.err"; job_fail "$*"; }
    # shellcheck disable=SC2053 # a pattern
    if [ "$(got .code)" != "$code" ] || [[ "$(got '.message // ""')" != *$pattern* ]]; then
        cat "$dir/tmp/got"
        job_fail "$*: expected $code $pattern"
    fi
}
job_make_tpm
job_write_conf
id_port=
port_into id_port
api=https://api.example sts=sts.example
cat >> "$dir/issuer.yaml" << END
jwt:
  issuer: "https://127.0.0.1:$id_port"
  listen: "127.0.0.1:$id_port"
END
status=0
trap 'status=$?; job_stop bundles KILL; job_stop late KILL; set +e; (exit $status); job_cleanup' EXIT
spiffe_start_all
entry() { # entry AUDIENCES
    cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: alpha, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: $user}, key: tpm,
     profile: trading$1}
END
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
}
entry ", audiences: [ \"$api\", $sts, third.example ]"
wait_for 60 job_settled alpha
told() { as $user token $api > "$dir/tmp/got" 2>&1 && [ "$(got .code)" = OK ]; }
wait_for 30 told

# ---- a token, and a verifier that is not ours ----
token=$(got .token)
[ "$(got .id)" = spiffe://bank.example/agent/alpha ] || job_fail "$(cat "$dir/tmp/got")"
verify() { /usr/bin/python3 "$support/tokens.py" check "https://127.0.0.1:$id_port" "$dir/issuer/ca/tls-root.pem" "$@"; }
verify $api "$token" > "$dir/tmp/claims" || job_fail "python3-jwt does not take it"
[ "$(jq -r .sub "$dir/tmp/claims")" = spiffe://bank.example/agent/alpha ] || job_fail "$(cat "$dir/tmp/claims")"
[ "$(jq '.exp - .iat' "$dir/tmp/claims")" = 300 ] || job_fail "$(cat "$dir/tmp/claims")"
must OK "" $user token $api
[ "$(got .token)" = "$token" ] || job_fail "it was not kept"
must OK "" $user token id=spiffe://bank.example/agent/alpha $sts $api
verify $sts "$(got .token)" > "$dir/tmp/claims" || job_fail "two audiences"
[ "$(jq -c .aud "$dir/tmp/claims")" = "[\"$api\",\"$sts\"]" ] || job_fail "$(cat "$dir/tmp/claims")"
ok "FetchJWTSVID: verified by python3-jwt through discovery; kept; two audiences"
must PERMISSION_DENIED audienceDenied $user token https://other.example
must PERMISSION_DENIED spiffe_id $user token id=spiffe://bank.example/agent/beta $api
must INVALID_ARGUMENT audience $user token
must PERMISSION_DENIED notAssigned $stranger token $api
must PERMISSION_DENIED notAssigned $stranger validate $api "$token"
ok "an audience that the entry does not allow, another's id, no audience, no identity: refused"

# attestd is slow to give a token, and the program executes another one meanwhile, which keeps the connection.
late_is() { [ "$(tail -n 1 "$dir/log/late.log")" = "$1" ]; }
executed() { tr '\0' ' ' < "/proc/$(job_pid late)/cmdline" > "$dir/tmp/cmdline" && grep -q ' after ' "$dir/tmp/cmdline"; }
mkfifo "$dir/tmp/go"
PYTHONDONTWRITEBYTECODE=1 setpriv --reuid $user --regid $user --clear-groups \
    /usr/bin/python3 "$stubs/streams.py" late "$socket" $api < "$dir/tmp/go" > "$dir/log/late.log" 2>&1 &
echo $! > "$dir/late.pid"
exec 8> "$dir/tmp/go"
wait_for 30 late_is known
halt attestd
echo >&8
wait_for 30 late_is asked
sleep 2 # until attestd is asked, on a laden machine, too
echo >&8
exec 8>&-
wait_for 30 executed
sleep 1.2 # for so long who it was is believed
kill -s CONT "$(job_pid attestd)"
over() { tail -n 1 "$dir/log/late.log" | grep -q '"after"'; }
wait_for 60 over
[ "$(tail -n 1 "$dir/log/late.log" | jq .after)" = 0 ] || { cat "$dir/log/late.log"; job_fail "exec"; }
ok "a token that came late is not given to the program that took the connection over by exec"

# ---- attestctl ----
ctl token alpha --audience $api --out "$dir/tmp/token" > /dev/null
[ "$(stat -c %a "$dir/tmp/token")" = 600 ] && [ "$(cat "$dir/tmp/token")" = "$token" ] || job_fail "token --out"
! ctl token alpha --audience https://other.example > "$dir/tmp/out" 2>&1 || job_fail "another audience"
grep -q audienceDenied "$dir/tmp/out" || job_fail "$(cat "$dir/tmp/out")"
ok "attestctl token: a file of mode 600; a refusal with its reason"

# ---- judging ----
must OK "" $user validate $api "$token"
[ "$(got .claims.aud)" = $api ] || job_fail "$(cat "$dir/tmp/got")"
kid=$(ctl --json ca jwt | jq -r '.keys[0].kid')
key=$(find "$dir/issuer/ca/jwt" -name '*.key')
/usr/bin/python3 "$support/tokens.py" forge "$key" "$kid" $api > "$dir/tmp/forged" || job_fail "forge"
while read -r reason forged; do
    if [ "$reason" = OK ]; then
        must OK "" $user validate $api "$forged"
    else
        must INVALID_ARGUMENT "$reason" $user validate $api "$forged"
    fi
done < "$dir/tmp/forged"
ok "ValidateJWTSVID: $(wc -l < "$dir/tmp/forged") tokens, each that is wrong in one thing refused for that"

# ---- a key that is replaced ----
PYTHONDONTWRITEBYTECODE=1 job_start bundles setpriv --reuid $user --regid $user --clear-groups \
    /usr/bin/python3 "$stubs/client.py" "$stubs" "$socket" jwt-bundles
kids() { tail -n 1 "$dir/log/bundles.log" | jq -r '.kids["spiffe://bank.example"] | join(" ")'; }
kids_are() { [ "$(kids)" = "$1" ]; }
wait_for 30 kids_are "$kid"
ctl ca jwt-replace --withdraw > /dev/null
new=$(ctl --json ca jwt | jq -r '.keys[0].kid')
[ "$new" != "$kid" ] || job_fail "the same key"
wait_for 30 kids_are "$new"
must INVALID_ARGUMENT tokenKid $user validate $api "$token"
must OK "" $user token $api
[ "$(got .token)" != "$token" ] || job_fail "a token of a key that is withdrawn"
token=$(got .token)
verify $api "$token" > /dev/null || job_fail "by the new key"
! test -e "$key" || job_fail "the key's file is there"
ok "a key that is replaced: pushed to FetchJWTBundles, its tokens refused and not given any more"

# ---- new ones, two at once ----
/usr/bin/python3 - "$dir/run/control.sock" $api > "$dir/tmp/at-once" << 'END' || job_fail "$(cat "$dir/tmp/at-once")"
import json, socket, struct, sys, threading
answers, start = [], threading.Barrier(3)
def ask():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sys.argv[1])
        body = json.dumps({"op": "token", "args": {"name": "alpha", "audience": sys.argv[2], "fresh": True}}).encode()
        start.wait()
        s.sendall(struct.pack(">I", len(body)) + body)
        f = s.makefile("rb")
        answers.append(json.loads(f.read(struct.unpack(">I", f.read(4))[0])))
threads = [threading.Thread(target=ask) for _ in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
if any(not a["ok"] or a["result"]["kept"] for a in answers) or len({a["result"]["token"] for a in answers}) != 3:
    print([(a["ok"], a.get("error"), a.get("result", {}).get("kept")) for a in answers])
    sys.exit(1)
END
must OK "" $user token $api
token=$(got .token)
ok "three new tokens at once: nobody is given a kept one because another's question is on its way"

# ---- frozen, and the issuer away ----
ctl agent freeze alpha > /dev/null
must PERMISSION_DENIED frozen $user token $api
ctl agent thaw alpha > /dev/null
wait_for 30 told
token=$(got .token)
job_stop issuerd
must OK "" $user token $api
[ "$(got .token)" = "$token" ] || job_fail "another token, without the issuer"
must UNAVAILABLE "" $user token third.example
ok "frozen: none; the issuer away: what is kept, while it lives"

# ---- the issuer takes connections and answers nobody ----
/usr/bin/python3 -c '
import socket, sys, time
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
time.sleep(600)' "$port" > "$dir/log/hanging.log" 2>&1 &
hanging=$!
wait_for 30 grep -q ready "$dir/log/hanging.log"
sleep 2 # the pause after the refused connections is over
misses=()
for n in 1 2 3; do
    as $user token third.example > "$dir/tmp/missed.$n" 2>&1 &
    misses+=($!)
done
sleep 1
# Of the same agent: neither what is kept nor a known refusal waits for its questions to the issuer (8 s).
as $user token $api > "$dir/tmp/kept" 2>&1 || { cat "$dir/tmp/kept"; job_fail "what is kept"; }
as $user token https://other.example > "$dir/tmp/denied" 2>&1 || { cat "$dir/tmp/denied"; job_fail "what is refused"; }
began=$(date +%s%N)
ctl token alpha --audience $api --out "$dir/tmp/token" > /dev/null || job_fail "what is kept is not given"
told_ms=$((($(date +%s%N) - began) / 1000000))
[ "$(jq -r .token "$dir/tmp/kept")" = "$token" ] || { cat "$dir/tmp/kept"; job_fail "what is kept is not given"; }
[ "$(jq -r .code "$dir/tmp/denied")" = PERMISSION_DENIED ] || { cat "$dir/tmp/denied"; job_fail "not refused"; }
[ "$(cat "$dir/tmp/token")" = "$token" ] || job_fail "another token, without the issuer"
[ "$told_ms" -lt 6000 ] || job_fail "attestctl token: $told_ms ms"
for name in kept denied; do
    [ "$(jq -r .took "$dir/tmp/$name")" -lt 5000 ] || { cat "$dir/tmp/$name"; job_fail "$name: $(jq -r .took "$dir/tmp/$name") ms"; }
done
wait "${misses[@]}" || true
waited=0
for n in 1 2 3; do
    [ "$(jq -r .code "$dir/tmp/missed.$n")" = UNAVAILABLE ] || { cat "$dir/tmp/missed.$n"; job_fail "a token of an issuer that hangs"; }
    if jq -e '(.message | startswith("tokenWait")) and .took < 6500' "$dir/tmp/missed.$n" > /dev/null; then
        waited=$((waited + 1))
    fi
done
# One asked, and waited for the issuer; one that was slow to begin may have come after it, and heard that it is away.
[ $waited -ge 1 ] || { cat "$dir"/tmp/missed.*; job_fail "all waited for the first"; }
kill $hanging
ok "the issuer hangs: what is kept does not wait ($(jq -r .took "$dir/tmp/kept") ms), one question of an agent does ($(jq -r .took "$dir"/tmp/missed.? | sort -n | tr '\n' ' ')ms)"

# ---- what the issuer takes back ----
job_start_issuer
wait_for 30 told
entry ""
gone() { as $user token $api > "$dir/tmp/got" 2>&1 && [ "$(got .code)" = PERMISSION_DENIED ]; }
wait_for 30 gone
ctl --json audit list --kind token --limit 100 > "$dir/tmp/audit"
[ "$(jq '[.records[].record | select(.outcome == "granted") | .jti] | length' "$dir/tmp/audit")" -ge 3 ] || job_fail "$(cat "$dir/tmp/audit")"
for where in "$dir/tmp/audit" "$dir"/log/{issuerd,attestd,spiffed,keyd}.log "$dir/issuer/issuer.db"; do
    ! grep -qaF "${token##*.}" "$where" || job_fail "a token in $where"
done
ok "an audience that is allowed no more is refused; records of each token, and no token in records and logs"
