#!/usr/bin/env bash
# Running an issuer and a host: metrics and health on their own listeners, one id for a request in answer, log and decision,
# SIGHUP, and an end that cuts off nobody who had begun.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
command -v curl > /dev/null || job_skip "no curl"
job_setup
ok() { echo "ok: $*"; }
job_make_tpm
job_write_conf
cat >> "$dir/issuer.yaml" << END
drain_notice: 2s
drain_timeout: 4s
END
echo "metrics_listen: unix:$dir/run/metrics.sock" >> "$dir/attestd.yaml"
job_start_all
job_enrolled_with a
sock=$dir/issuer-run/metrics.sock
ca=$dir/issuer/ca/tls-root.pem
url=https://127.0.0.1:$port/acme
health() { curl -sS --unix-socket "$sock" -o "$dir/tmp/health" -w '%{http_code}' "http://issuer/$1"; }
says() { [ "$(health "$1")" = "$2" ] && [ "$(cat "$dir/tmp/health")" = "$3" ]; }
issuer_log=$dir/log/issuerd.log

# ---- health and metrics ---------------------------------------------------------------------------------------------
wait_for 10 says ready 200 ready
says live 200 live || job_fail "not live"
[ "$(health nothing)" = 404 ] || job_fail "another path is there"
[ "$(curl -sS --unix-socket "$sock" -o "$dir/tmp/health" -w '%{http_code}' -d x http://issuer/ready)" = 405 ] || job_fail "POST"
cat > "$dir/tmp/read.py" << 'END'
# The two text formats, read as strictly as this needs: every sample belongs to the family that was announced, histograms
# are cumulative and end in their count.
import re, sys
text, form = open(sys.argv[1]).read(), sys.argv[2]
sample = re.compile(r'^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+\})? (-?[0-9.]+)$')
values, family, kind = {}, None, None
lines = text.split("\n")
assert lines.pop() == "", "no newline at the end"
if form == "open":
    assert lines.pop() == "# EOF", "no EOF"
for line in lines:
    if line.startswith("# HELP "): continue
    if line.startswith("# TYPE "):
        family, kind = line.split(" ")[2:]
        assert kind in ("counter", "gauge", "histogram"), line
        assert family not in values, "twice: " + family
        if form == "text" and kind == "counter": assert family.endswith("_total"), line
        if form == "open": assert not family.endswith("_total"), line
        values[family] = 1
        continue
    m = sample.match(line)
    assert m, "not a sample: " + line
    name, labels, value = m.groups()
    ends = {"counter": ["_total"] if form == "open" else [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[kind]
    assert any(name == family + e for e in ends), line
    values[name + (labels or "")] = float(value)
for name in [n for n in values if "_count" in n]:
    inf = name.replace("_count", "_bucket")
    inf = inf[:-1] + ',le="+Inf"}' if inf.endswith("}") else inf + '{le="+Inf"}'
    assert values[inf] == values[name], name
for want in sys.argv[3:]:
    name, value = want.rsplit("=", 1)
    got = values.get(name)
    assert got is not None and (got >= float(value[1:]) if value[0] == ">" else got == float(value)), (want, got)
END
metrics() { # metrics FORM ACCEPT [NAME=VALUE...]
    curl -sS --fail --unix-socket "$sock" -H "Accept: $2" -D "$dir/tmp/head" -o "$dir/metrics" http://issuer/metrics
    /usr/bin/python3 "$dir/tmp/read.py" "$dir/metrics" "$1" "${@:3}"
}
metrics text text/plain 'attest_issuer_orders_total{outcome="issued"}=>1' 'attest_issuer_orders_total{outcome="ready"}=>1' \
    'attest_issuer_decisions_total{kind="enrol",outcome="granted"}=>1' 'attest_issuer_ready=1' \
    'attest_issuer_requests_total{resource="finalize",code="2xx"}=>1' 'attest_issuer_connections=>1' \
    'attest_issuer_certificate_not_after_seconds{certificate="workload-ca"}=>1800000000' \
    'attest_issuer_request_duration_seconds_count{resource="challenge"}=>1' 'attest_issuer_log_size=>1' \
    'attest_issuer_store_duration_seconds_count{op="write"}=>5' 'attest_issuer_nonces_rejected_total{reason="spent"}=0'
grep -qi '^content-type: text/plain; version=0.0.4' "$dir/tmp/head" || job_fail "type"
metrics open 'application/openmetrics-text; version=1.0.0' 'attest_issuer_ready=1'
grep -qi '^content-type: application/openmetrics-text' "$dir/tmp/head" || job_fail "type"
! grep -E "$(job_host_id)|spiffe:|job" "$dir/metrics" || job_fail "a host or an agent in the metrics"
ok "metrics in both formats, none with a host's or an agent's name; live and ready"

# ---- the host's own ----------------------------------------------------------------------------------------------------
host_sock=$dir/run/metrics.sock
host_says() { # host_says PATH STATUS TEXT
    [ "$(curl -sS --unix-socket "$host_sock" -o "$dir/tmp/health" -w '%{http_code}' "http://host/$1")" = "$2" ] && [ "$(cat "$dir/tmp/health")" = "$3" ]
}
host_metrics() { # host_metrics FORM [NAME=VALUE...]
    local accept=text/plain
    [ "$1" = text ] || accept='application/openmetrics-text; version=1.0.0'
    curl -sS --fail --unix-socket "$host_sock" -H "Accept: $accept" -o "$dir/metrics" http://host/metrics
    /usr/bin/python3 "$dir/tmp/read.py" "$dir/metrics" "$@"
}
wait_for 10 host_says ready 200 ready
host_says live 200 live || job_fail "attestd is not live"
host_metrics text attestd_ready=1 'attestd_enrolment{state="enrolled"}=1' 'attestd_enrolment{state="pending"}=0' 'attestd_agents{state="valid"}=1' \
    'attestd_agent_certificates_total{agent="a"}=1' "attestd_agent_certificate_not_after_seconds{agent=\"a\"}=>$(date +%s)" \
    'attestd_agent_attempts{agent="a"}=0' attestd_issuer_reachable=1 "attestd_attestation_key_not_after_seconds=>$(date +%s)"
host_metrics open 'attestd_agent_issuance_seconds{agent="a",stage="netChallenge"}=>0'
ctl agent freeze a > /dev/null
host_says ready 200 ready || job_fail "a frozen agent is nobody's fault"
host_metrics text 'attestd_agents{state="frozen"}=1'
ctl agent thaw a > /dev/null
sed 's/^metrics_listen:.*/metrics_listen: none/' "$dir/attestd.yaml" > "$dir/tmp/attestd.yaml"
cp "$dir/attestd.yaml" "$dir/tmp/attestd.yaml.was"
cp "$dir/tmp/attestd.yaml" "$dir/attestd.yaml"
kill -HUP "$(job_pid attestd)"
wait_for 10 grep -q 'event=conf.notReloaded.*metrics_listen cannot change' "$dir/log/attestd.log"
cp "$dir/tmp/attestd.yaml.was" "$dir/attestd.yaml"
sed 's/^metrics_listen:.*/metrics_listen: "unix:m.sock"/' "$dir/attestd.yaml" > "$dir/tmp/attestd.yaml"
"$bin/attestd" --config "$dir/tmp/attestd.yaml" --check 2> "$dir/tmp/check" && job_fail "a relative path is taken"
grep -q 'attestd.yaml:[0-9]*: metrics_listen: expected unix:/PATH' "$dir/tmp/check" || job_fail "$(cat "$dir/tmp/check")"
ok "a host's own metrics, in both formats; ready with a certificate for each agent that nobody froze"

# ---- one id for a request ----------------------------------------------------------------------------------------------
curl -sS --cacert "$ca" -D "$dir/tmp/head" -o "$dir/tmp/body" -H 'Content-Type: application/jose+json' -d '{}' "$url/newOrder"
id=$(tr -d '\r' < "$dir/tmp/head" | sed -n 's/^[Aa]ttest-[Rr]equest-[Ii]d: //p')
[[ $id =~ ^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$ ]] || job_fail "no id: $id"
[ "$(jq -r .instance "$dir/tmp/body")" = "urn:uuid:$id" ] || job_fail "the problem has another id"
grep "request.refused" "$issuer_log" > "$dir/tmp/lines"
grep -q "request=$id" "$dir/tmp/lines" || job_fail "the log has no line of it"
decision=$(ctl --json audit list --kind issue | jq -er '.records[-1].record.request')
grep "order.ready" "$issuer_log" > "$dir/tmp/lines"
grep -q "request=$decision" "$dir/tmp/lines" || job_fail "the decision's request is not in the log"
curl -sS --cacert "$ca" -D "$dir/tmp/head" -o "$dir/tmp/body" -H "Attest-Request-Id: chosen" "$url/directory"
! grep -q chosen "$dir/tmp/head" || job_fail "a client chose the id"
ok "the same id in the header, the problem document, the log and the decision record"

# ---- SIGHUP ----------------------------------------------------------------------------------------------------------------
reloads() { grep -c 'reload\.' "$issuer_log" || true; }
hup() { # hup SED: with the configuration changed like that
    cp "$dir/issuer.yaml" "$dir/issuer.yaml.good"
    sed -i "$1" "$dir/issuer.yaml"
    local before
    before=$(reloads)
    kill -HUP "$(job_pid issuerd)"
    more() { [ "$(reloads)" -gt "$before" ]; }
    wait_for 20 more
    cp "$dir/issuer.yaml.good" "$dir/issuer.yaml"
    grep 'reload\.' "$issuer_log" | tail -n 1 > "$dir/tmp/reload"
}
hup 's/description: agents.*/description: changed/'
grep -q reload.done "$dir/tmp/reload" || { cat "$dir/tmp/reload"; job_fail "no reload"; }
curl -sS --cacert "$ca" "$url/directory" | jq -e '.meta.profiles.trading == "changed"' > /dev/null || job_fail "not in force"
hup "s/^listen: .*/listen: \"127.0.0.1:1\"/; 1i threads: 7"
grep -q 'needsRestart.*listen (127.0.0.1:[0-9]*, now 127.0.0.1:1), threads (4, now 7)' "$dir/tmp/reload" || { cat "$dir/tmp/reload"; job_fail "not named"; }
hup 's,^state_dir: .*,state_dir: /nowhere,'
grep -q 'needsRestart.*state_dir (.*, now /nowhere)' "$dir/tmp/reload" || { cat "$dir/tmp/reload"; job_fail "not named"; }
hup '1i devices: { profiles: [ { name: device } ] }'
grep -q 'needsRestart.*devices (not there, now there)' "$dir/tmp/reload" || { cat "$dir/tmp/reload"; job_fail "not named"; }
curl -sS --cacert "$ca" "$url/directory" | jq -e '.meta.profiles.trading == "changed"' > /dev/null || job_fail "half in force"
says ready 200 ready || job_fail "not ready after refused reloads"
ok "SIGHUP: what can change does; what cannot is named, and nothing of that file is in force"

# ---- the end ---------------------------------------------------------------------------------------------------------------
cat > "$dir/tmp/client.py" << 'END'
# client.py PORT CA HOW: a connection that had begun when the issuer was told to end.
import socket, ssl, sys, time
port, ca, how = int(sys.argv[1]), sys.argv[2], sys.argv[3]
tls = ssl.create_default_context(cafile=ca)
tls.check_hostname = False
s = tls.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
s.settimeout(60)
ask = b"POST /acme/newOrder HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\nContent-Length: 2\r\n\r\n{}"
if how == "idle":
    s.sendall(ask)
    assert b" 400 " in s.recv(65536)
if how in ("half", "never"): s.sendall(ask[:-1])
print("begun", flush=True)
sys.stdin.readline()
if how == "half":
    s.sendall(ask[-1:])
    answer = s.recv(65536)
    assert b" 400 " in answer.split(b"\r\n")[0] and b"Connection: close" in answer, answer
while s.recv(65536): pass
print("ended", flush=True)
END
client() { # client HOW: begun; ends when $dir/tmp/go is written to
    mkfifo "$dir/tmp/go.$1"
    : > "$dir/tmp/$1"
    /usr/bin/python3 "$dir/tmp/client.py" "$port" "$ca" "$1" < "$dir/tmp/go.$1" > "$dir/tmp/$1" 2> "$dir/tmp/$1.err" &
    disown $!
    exec {go}> "$dir/tmp/go.$1"
    eval "go_$1=$go"
    begun() { grep -q begun "$dir/tmp/$1"; }
    wait_for 20 begun "$1"
}
client idle
client half
job_stop attestd
kill -TERM "$(job_pid issuerd)"
wait_for 10 says ready 503 draining
says live 200 live || job_fail "not live while it drains"
curl -sS --fail --cacert "$ca" -o "$dir/tmp/body" "$url/directory" || job_fail "not served during the notice"
refuses() { ! curl -sS --cacert "$ca" -o "$dir/tmp/body" "$url/directory" 2> "$dir/tmp/curl"; }
wait_for 10 refuses
grep -q 'refused\|connect' "$dir/tmp/curl" || { cat "$dir/tmp/curl"; job_fail "not refused"; }
# shellcheck disable=SC2154 # set by client
echo >&"$go_half"
# shellcheck disable=SC2154
echo >&"$go_idle"
ended() { grep -q ended "$dir/tmp/$1"; }
wait_for 20 ended half || { cat "$dir/tmp/half.err"; job_fail "the request that had begun"; }
wait_for 20 ended idle || { cat "$dir/tmp/idle.err"; job_fail "the idle connection"; }
gone() { [ ! -d "/proc/$(job_pid issuerd)" ]; }
wait_for 20 gone
rm "$dir/issuerd.pid"
grep -q 'issuer.drained.*cut=0' "$issuer_log" || job_fail "something was cut off"
[ ! -e "$sock" ] || job_fail "the socket is left"
ok "SIGTERM: not ready, then closed to newcomers; a request that had begun is answered, an idle connection ends"

job_start_issuer
client never
kill -TERM "$(job_pid issuerd)"
wait_for 30 gone
rm "$dir/issuerd.pid"
grep 'issuer.drained' "$issuer_log" | tail -n 1 > "$dir/tmp/drained"
grep -q 'cut=1' "$dir/tmp/drained" || { cat "$dir/tmp/drained"; job_fail "who never ends was not cut off"; }
ms=$(sed -n 's/.* ms=\([0-9]*\) .*/\1/p' "$dir/tmp/drained")
[ "$ms" -ge 6000 ] || job_fail "cut after $ms ms, before its time"
ok "who never ends is cut off after drain_timeout"
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
