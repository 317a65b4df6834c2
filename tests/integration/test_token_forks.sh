#!/usr/bin/env bash
# Programs that fork: Python's multiprocessing (a child is nobody on its parent's connection, and attested for itself on
# one of its own), a stock library that is used before and after a fork, a prefork server (gunicorn), a storm of forks.
# The processes that tokend asks are small real servers (tests/support/token); whod is the product's own.
set -euo pipefail
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || { echo "skipped: no p11-kit-client.so (package p11-kit-modules)"; exit 77; }
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
# shellcheck source=../support/token/clients.sh
. "$ATT_SOURCE_DIR/tests/support/token/clients.sh"
server=''
end_all() {
    [ -z "$server" ] || kill "$server" 2> /dev/null || true
    rig_end
}
trap end_all EXIT
client=$RIG_BIN/../tests-bin/token-client
rig_store market-data
rig_server attestd
rig_server keyd
rig_tokend
"$RIG_BIN/attestd-whod" --config "$RIG/attestd.yaml" 2> "$RIG/whod.log" &
rig_pids+=($!)
rig_wait test -S "$RIG/run/whod.sock"
touch "$RIG/store/real-whod"
clients_setup
rpc() { timeout 120 /usr/bin/python3 "$support/rpc.py" "$1" "$RIG_SOCKET" "${@:2}"; }
connected() { grep -q "event=tokend.connected pid=$1 " "$RIG/tokend.log"; }
no_tokens() { [ "$(pgrep -c -P "$RIG_TOKEND" || true)" = 0 ]; }

# ---- multiprocessing ----
rpc fork > "$RIG/out" 2>&1 || { cat "$RIG/out"; fail "fork"; }
grep -qx 'inherited lost' "$RIG/out" || { cat "$RIG/out"; fail "a child was served on its parent's connection"; }
grep -qx 'parent lost' "$RIG/out" || { cat "$RIG/out"; fail "two processes wrote to one connection, and it goes on"; }
rig_wait grep -q 'event=tokend.connection-refused .*another process wrote' "$RIG/tokend.log" || fail "no line about the child"
[ "$(grep -c '^child [0-9]* 0x0$' "$RIG/out")" = 4 ] || { cat "$RIG/out"; fail "children with connections of their own"; }
grep -qx 'parent again [0-9]* 0x0' "$RIG/out" || { cat "$RIG/out"; fail "the parent with a new connection"; }
for pid in $(sed -n 's/^child \([0-9]*\) .*/\1/p' "$RIG/out"); do
    connected "$pid" || fail "child $pid was not attested for itself"
done
ok "multiprocessing: a child on its parent's connection is refused; on its own it is attested for what it is"
if /usr/bin/python3 -c 'import pycurl; assert "GnuTLS" in pycurl.version' 2> /dev/null; then
    drop_in
    as_user /usr/bin/python3 "$support/forks_client.py" "$port" "$RIG/ca.pem" "$cert" "$key" > "$RIG/out" 2> "$RIG/err" ||
        { cat "$RIG/out" "$RIG/err"; fail "pycurl before and after a fork"; }
    [ "$(grep -c ' 200$' "$RIG/out")" = 8 ] || { cat "$RIG/out"; fail "pycurl before and after a fork"; }
    [ "$(cut -d' ' -f1 "$RIG/out" | sort -u | wc -l)" -ge 3 ] || { cat "$RIG/out"; fail "no children: the test is no test"; }
    for pid in $(cut -d' ' -f1 "$RIG/out" | sort -u); do
        connected "$pid" || { cat "$RIG/out"; fail "process $pid was not attested for itself"; }
    done
    ok "multiprocessing with pycurl: $(cut -d' ' -f1 "$RIG/out" | sort -u | wc -l) processes, each on a connection of its own"
else
    skipped "pycurl (package python3-pycurl, linked with GnuTLS)"
fi

# ---- gunicorn: the master makes a request before it forks its workers ----
if /usr/bin/python3 -c 'import gunicorn, pycurl; assert "GnuTLS" in pycurl.version' 2> /dev/null; then
    cat > "$RIG/app.py" << END
import os, sys
sys.argv = ["app", "$port", "$RIG/ca.pem", "$cert", "$key"]
sys.path.insert(0, "$support")
from forks_client import get
print("master", *get(0), file=sys.stderr, flush=True)
def app(environ, start_response):
    pid, code = get(0)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{pid} {code}\n".encode()]
END
    chmod 644 "$RIG/app.py"
    port_into at
    user=()
    [ "$(id -u)" != 0 ] || user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    (cd "$RIG" && exec "${user[@]}" env -u P11_KIT_SERVER_ADDRESS -u OPENSSL_CONF HOME="$RIG/home" PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 -m gunicorn.app.wsgiapp --preload --workers 3 --bind "127.0.0.1:$at" --worker-tmp-dir /dev/shm \
        app:app) > "$RIG/gunicorn.log" 2>&1 &
    server=$!
    rig_wait connects "$at" || { cat "$RIG/gunicorn.log"; fail "gunicorn does not start"; }
    for _ in $(seq 30); do run curl -sS "http://127.0.0.1:$at/"; done > "$RIG/out" 2>&1
    [ "$(grep -c '^[0-9]* 200$' "$RIG/out")" = 30 ] || { cat "$RIG/out" "$RIG/gunicorn.log"; fail "gunicorn's workers"; }
    master=$(sed -n 's/^master \([0-9]*\) 200$/\1/p' "$RIG/gunicorn.log")
    [ "$master" = "$server" ] || { cat "$RIG/gunicorn.log"; fail "the master made no request before it forked"; }
    connected "$master" || fail "gunicorn's master was not attested"
    for pid in $(cut -d' ' -f1 "$RIG/out" | sort -u); do
        [ "$pid" != "$master" ] || fail "the master answers: the test is no test"
        connected "$pid" || fail "gunicorn's worker $pid was not attested for itself"
    done
    workers=$(cut -d' ' -f1 "$RIG/out" | sort -u | wc -l)
    # workers that are nobody's agent
    stranger python3 gunicorn
    pkill -KILL -P "$server" # the master forks new ones
    refused() { run curl -sS "http://127.0.0.1:$at/" > "$RIG/out" 2>&1; grep -q 'Internal Server Error' "$RIG/out"; }
    rig_wait refused || { cat "$RIG/out"; fail "a worker that is nobody's agent signs"; }
    no_stranger
    kill "$server"
    wait "$server" || true
    server=''
    ok "gunicorn --preload: the master and $workers workers, each attested for itself; new workers that are nobody's agent are refused"
else
    skipped "gunicorn (packages python3-gunicorn, python3-pycurl linked with GnuTLS)"
fi

# ---- a storm ----
user=()
[ "$(id -u)" != 0 ] || user=(setpriv --reuid=65533 --regid=65533 --clear-groups)
: > "$RIG/loop"
timeout 300 "$client" "$module" loop 10 > "$RIG/loop" 2>&1 < /dev/null &
loop=$!
rig_wait grep -q '^signs$' "$RIG/loop" || { cat "$RIG/loop"; fail "a caller"; }
cp "$support/rpc.py" "$RIG/rpc.py"
chmod 644 "$RIG/rpc.py"
before=$(grep -c event=tokend.limit "$RIG/tokend.log" || true)
timeout 300 "${user[@]}" /usr/bin/python3 "$RIG/rpc.py" storm "$RIG_SOCKET" 400 > "$RIG/storm" 2>&1 &
storm=$!
sleep 0.5
timeout 120 "$client" "$module" sign 2 > "$RIG/out" 2>&1 < /dev/null || { cat "$RIG/out"; fail "a newcomer of another user, in a storm"; }
wait $storm || { cat "$RIG/storm"; fail "storm"; }
wait $loop || { cat "$RIG/loop"; fail "a running caller, in a storm"; }
grep -q 'failed 0 ' "$RIG/loop" || { cat "$RIG/loop"; fail "a running caller, in a storm"; }
served=$(cat "$RIG/storm")
[ "$served" -ge 50 ] || fail "$served of 200 children were served"
lines=$(($(grep -c event=tokend.limit "$RIG/tokend.log" || true) - before))
[ "$lines" -le 120 ] || fail "$lines lines about limits"
rig_wait no_tokens || fail "tokens outlive their callers"
[ -d "/proc/$RIG_TOKEND" ] || fail "tokend ended"
ok "400 forks as fast as can be: $served signed, nobody else failed, $lines lines; $(tail -n 1 "$RIG/loop")"
