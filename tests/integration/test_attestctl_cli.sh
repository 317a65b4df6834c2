#!/usr/bin/env bash
# attestctl's command line: exit codes, wrong input, and what needs no daemon.
set -euo pipefail
bin=$ATT_BIN_DIR
vectors=$ATT_SOURCE_DIR/tests/vectors/boot
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failures=0
expect() { # expect STATUS PATTERN COMMAND...
    local want=$1 pattern=$2 got=0
    shift 2
    "$@" > "$dir/out" 2>&1 < /dev/null || got=$?
    if [ "$got" -ne "$want" ] || ! grep -qE -- "$pattern" "$dir/out"; then
        printf 'FAIL: %s\n  exit %s, wanted %s and /%s/; it said:\n' "$*" "$got" "$want" "$pattern"
        sed 's/^/  /' "$dir/out"
        failures=$((failures + 1))
    fi
}
ctl() { "$bin/attestctl" --socket "$dir/none.sock" --issuer "$dir/none.sock" "$@"; }

expect 2 'usage: attestctl' ctl
expect 0 'attestctl host approve id' ctl --help
expect 0 'attestctl [0-9]' ctl --version
expect 2 'no command "frobnicate"' ctl frobnicate
expect 2 'no command "host frobnicate".*' ctl host frobnicate
expect 2 'id is missing' ctl host show
expect 2 'unexpected argument "extra"' ctl host show abc extra
expect 2 '--uses: expected a whole number, found "many"' ctl ticket create --uses many
expect 2 '--out: expected a value' ctl ticket create --out
expect 2 'reason is missing' ctl host ban abc
expect 1 'no-such-file.*No such file' ctl entry apply -f "$dir/no-such-file"
expect 3 'connect to .*none.sock' ctl status
expect 3 'connect to .*none.sock' ctl host list
printf '\377\376' > "$dir/binary"
expect 1 'expected UTF-8' ctl entry apply -f "$dir/binary"
expect 2 '--timeout: expected 1 to 3600' ctl --timeout soon status
expect 2 '--timeout: expected 1 to 3600' ctl --timeout 0 status
expect 2 '--timeout: expected 1 to 3600' ctl --timeout 99999999999999999999 status
expect 2 '--timeout: expected a value' ctl status --timeout
expect 2 '--socket: expected a value' ctl status --socket
for command in 'status x' 'agent' 'agent show' 'agent rotate' 'agent freeze' 'agent thaw' 'cert show' 'quote' \
    'quote --nonce 00' 'verify' 'eventlog show' 'doctor x' 'host approve' 'host ban' 'host evict' 'host rebind' \
    'host import' 'entry apply' 'entry show' 'entry delete' 'policy apply' 'policy show' 'audit why' 'audit prove' 'audit check' 'audit erase --seq 1' \
    'policy sign' 'policy sign a.json --out b' 'policy test' 'policy test a.json' 'policy diff a.json' 'policy mode' \
    'policy mode a' 'policy dryrun' 'measure' 'measure --name x' 'migrate' 'migrate find' 'migrate scan --frob'; do
    # shellcheck disable=SC2086
    expect 2 'missing|unexpected|no command' ctl $command
done

# Policies: from files, without a daemon.
pcrs=(--values "$vectors/pcrs.json" --pcrs "sha256:0,1,2,3,4,5,6,7,8,9,14")
expect 0 'held against this boot' ctl measure --out "$dir/p.json" --from "$vectors/eventlog.bin" "${pcrs[@]}"
expect 0 'bootPolicy +boot policy .*allows this boot' ctl policy test "$dir/p.json" "$vectors/eventlog.bin" "${pcrs[@]}"
expect 0 'PCR values are those of the log' ctl policy test "$dir/p.json" "$vectors/eventlog.bin" --pcrs sha256:0,1,2,3,4,5,6,7,8,9,14
expect 0 '11 PCR values' ctl policy test "$vectors/policy.json" "$vectors/eventlog.bin" "${pcrs[@]}"
expect 1 'no such file or folder' ctl policy test "$dir/p.json" "$dir/nothing"
expect 1 'quote: not there' ctl policy test "$dir/p.json" "$dir"
expect 1 'a folder of evidence has its PCR values' ctl policy test "$dir/p.json" "$dir" "${pcrs[@]}"
expect 1 '--at: ' ctl policy test "$dir/p.json" "$vectors/eventlog.bin" "${pcrs[@]}" --at tomorrow
expect 1 'expected 64 hex digits' ctl policy test "$dir/p.json" "$vectors/eventlog.bin" "${pcrs[@]}" --policy-signer 00
expect 1 'name: expected 1-64' ctl measure --out "$dir/q.json" --name A --from "$vectors/eventlog.bin" "${pcrs[@]}"
expect 1 'no private key in PEM' ctl policy sign "$dir/p.json" --key "$vectors/policy.json" --out "$dir/s.json"
expect 1 'expected the PCRs|not all of the PCRs' ctl measure --out "$dir/q.json" --from "$vectors/eventlog.bin" --values "$vectors/pcrs.json" --pcrs sha384:0
[ ! -e "$dir/q.json" ] && [ ! -e "$dir/s.json" ] || { echo 'FAIL: written though refused'; failures=$((failures + 1)); }
expect 3 'connect to .*none.sock' ctl measure --out "$dir/q.json"
expect 3 'connect to .*none.sock' ctl policy show by-name
expect 0 'components|"policy"' ctl --json policy show "$dir/p.json"
expect 0 '^0 changes' ctl policy diff "$dir/p.json" "$dir/p.json"

# run: an environment, and nothing else.
mkdir -p "$dir/state/host/agents/alpha" "$dir/run/public"
touch "$dir/state/host/agents/alpha/chain.pem" "$dir/run/public/api.sock"
printf '#!/bin/sh\n' > "$dir/not-executable"
run() { ctl run "$@"; }
dirs=(--run-dir "$dir/run" --state-dir "$dir/state")
expect 2 'NAME is missing' run -- true
expect 2 'expected "-- CMD' run alpha
expect 2 'expected "-- CMD' run alpha --
expect 2 'unexpected argument "--json=x"' ctl run alpha --json=x -- true
expect 2 'expected an agent' run ../alpha "${dirs[@]}" -- true
expect 2 '--run-dir: expected an absolute path, found "here"' run alpha --run-dir here -- true
expect 2 '--wait: expected 0 to 3600 seconds, found -1' run alpha --wait -1 -- true
expect 1 'agent beta has no certificate here: .*/beta/chain.pem: No such file' run beta "${dirs[@]}" -- true
expect 127 'no-such-command: No such file' run alpha "${dirs[@]}" -- no-such-command
expect 126 'not-executable: Permission denied' run alpha "${dirs[@]}" -- "$dir/not-executable"
expect 7 '^out$' run alpha "${dirs[@]}" -- sh -c 'echo out; exit 7'
expect 0 "^ATTESTD_CHAIN_FILE=$dir/state/host/agents/alpha/chain.pem$" run alpha "${dirs[@]}" -- env
expect 0 "^P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock$" run alpha "${dirs[@]}" -- env
expect 0 "^SPIFFE_ENDPOINT_SOCKET=unix://$dir/run/public/api.sock$" run alpha "${dirs[@]}" -- env
expect 0 '^PKCS11_PROVIDER_MODULE=/.*/p11-kit-client.so$' run alpha "${dirs[@]}" -- env
expect 0 '^--json --timeout -- x$' run alpha "${dirs[@]}" -- echo --json --timeout -- x
expect 0 '^OPENSSL_CONF=/mine$' env OPENSSL_CONF=/mine "$bin/attestctl" run alpha "${dirs[@]}" -- env
(sleep 1; mkdir -p "$dir/state/host/agents/late"; touch "$dir/state/host/agents/late/chain.pem") &
expect 0 '^came$' run late --wait 30 "${dirs[@]}" -- echo came
wait

# A hostile daemon: nothing it says steers the terminal or forges a line, in no form of output.
cat > "$dir/hostile.py" << 'PY'
import json, os, socket, struct, sys
path, answers = sys.argv[1], 0
s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(8)
evil = "a\x1b]0;owned\x07\x1b[31m\u009b31m\u202e\nok      forged\r\x7f"
bad = {k: evil for k in ("name", "state", "reason", "detail", "mend", "url", "operations", "extraData", "message", "code")}
result = {**bad, "issuer": {**bad, "tls": bad}, "tpm": bad, "enrolment": bad, "lastError": bad, "agents": [bad],
          evil: evil, "list": [evil, evil], "deep": {evil: {evil: [evil]}}, "pem": evil, "files": {}, "expires": evil,
          "ticket": {"kid": evil}, "records": [{**bad, "record": {**bad, "subject": evil, "verdict": {"checks": [bad]}}}],
          "checks": [{**bad, "ok": False}], "hosts": [bad], "entries": [bad], "certificates": [bad], "policies": [bad]}
def take(c, n):
    data = b""
    while len(data) < n:
        more = c.recv(n - len(data))
        if not more: raise EOFError
        data += more
    return data
while True:
    c, _ = s.accept()
    try:
        request = json.loads(take(c, struct.unpack(">I", take(c, 4))[0]))
        if request.get("args", {}).get("name") == "refused":
            reply = {"ok": False, "error": {"code": "unreachable", "reason": evil, "message": evil}}
        else:
            reply = {"ok": True, "result": result}
        data = json.dumps(reply, ensure_ascii=False).encode()
        c.sendall(struct.pack(">I", len(data)) + data)
    except EOFError:
        pass
    c.close()
PY
python3 "$dir/hostile.py" "$dir/hostile.sock" & hostile=$!
trap 'kill "$hostile" 2> /dev/null; rm -rf "$dir"' EXIT
evil() { "$bin/attestctl" --socket "$dir/hostile.sock" --issuer "$dir/hostile.sock" "$@"; }
until_s=$(($(date +%s) + 120)) # it is there when it answers
serves() { { evil agent show refused 2>&1 || true; } | grep 'a?' > /dev/null; }
until serves; do
    [ "$(date +%s)" -lt "$until_s" ] || { echo 'FAIL: hostile.py does not serve'; exit 1; }
    sleep 0.05
done
for command in 'status' 'agent list' 'agent show a' 'agent rotate a' 'agent freeze a' 'agent thaw a' 'cert show a' \
    'cert show a --pem' "quote --nonce 0011223344556677 --out $dir/q" 'doctor' 'host list' 'host show aa' 'host approve aa' \
    'host ban aa --reason x' "ticket create --out $dir/t" 'entry list' 'entry show a' 'policy list' 'cert list' 'ca status' \
    'policy show a' 'policy mode a warn' "policy dryrun $vectors/policy.json" "measure --out $dir/m" \
    'audit list' 'audit why 1' 'audit verify' 'audit prove 1' 'audit erase --seq 1 --reason x' 'agent show refused' 'host show refused'; do
    for form in '' '--json'; do
        # shellcheck disable=SC2086
        evil $form $command > "$dir/out" 2>&1 < /dev/null || true
        if LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]' "$dir/out" ||
            grep -qE '^ok +forged' "$dir/out"; then
            echo "FAIL: attestctl $form $command lets a daemon steer the terminal:"
            cat -v "$dir/out" | head -5
            failures=$((failures + 1))
        fi
    done
done
# Reached, and refused there: not "cannot reach the daemon".
expect 1 'a\?' evil agent show refused

# eventlog: the recorded boot replays to the PCRs that its guest read from its TPM
expect 0 'EV_SEPARATOR' ctl eventlog show "$vectors/eventlog.bin"
ctl --json eventlog show "$vectors/eventlog.bin" > "$dir/log.json"
if ! jq -e --slurpfile pcrs "$vectors/pcrs.json" \
    '.pcrs.sha256 | length > 0 and (to_entries | all(.value == $pcrs[0].sha256[.key]))' "$dir/log.json" > /dev/null; then
    echo "FAIL: the log replays to other values than the guest's PCRs"
    failures=$((failures + 1))
fi
head -c 500 "$vectors/eventlog.bin" > "$dir/cut.bin"
expect 1 'cut.bin' ctl eventlog show "$dir/cut.bin"
expect 1 'No such file' ctl eventlog show "$dir/absent"

# verify: missing pieces are named
expect 2 'nonce is missing' ctl verify "$dir"
expect 1 'certinfo|quote' ctl verify "$dir" --nonce 00 --ak-roots "$dir/x" --ek-roots "$dir/x"

[ "$failures" -eq 0 ] || { echo "$failures failures"; exit 1; }
echo "attestctl's command line: all held"
