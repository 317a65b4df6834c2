#!/usr/bin/env bash
# attestctl's lists over several pages: every host once, as a table and as JSON, whatever comes and goes meanwhile; a client
# from before there were pages; limits and cursors that are none; a reader that leaves.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/auditlog.sh
. "$ATT_SOURCE_DIR/tests/support/auditlog.sh"
log_setup
expect() { # expect EXIT PATTERN COMMAND...
    local want=$1 pattern=$2 got=0
    shift 2
    "$@" > "$dir/tmp/out" 2>&1 || got=$?
    [ "$got" = "$want" ] && grep -qE "$pattern" "$dir/tmp/out" || { tail -n 5 "$dir/tmp/out"; job_fail "$*: exit $got, expected $want and $pattern"; }
}
csv() { # csv FROM TO: EK ids in their order
    echo ek,label,labels
    for i in $(seq "$1" "$2"); do printf '%08x%056x,host-%d,zone=trading\n' "$i" 7 "$i"; done
}
csv 1 2400 > "$dir/tmp/hosts.csv"
ctl host import "$dir/tmp/hosts.csv" > /dev/null

# ---- a table, JSON ------------------------------------------------------------------------------------------
ctl host list > "$dir/tmp/table"
[ "$(wc -l < "$dir/tmp/table")" = 2401 ] || job_fail "lines: $(wc -l < "$dir/tmp/table")"
[ "$(grep -c '^ID ' "$dir/tmp/table")" = 1 ] || job_fail "more than one title"
[ "$(tail -n +2 "$dir/tmp/table" | cut -d' ' -f1 | sort -u | wc -l)" = 2400 ] || job_fail "a host twice"
ctl --json host list > "$dir/tmp/paged"
# As attestctl asked before: no page, everything in one answer.
cat > "$dir/tmp/ask.py" << 'END'
import json, socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
text = json.dumps({"op": sys.argv[2], "args": json.loads(sys.argv[3])}).encode()
s.sendall(struct.pack(">I", len(text)) + text)
left = struct.unpack(">I", s.recv(4, socket.MSG_WAITALL))[0]
answer = json.loads(s.recv(left, socket.MSG_WAITALL))
print(json.dumps(answer["result"]) if answer["ok"] else answer["error"]["reason"] + ": " + answer["error"]["message"])
END
ask() { python3 "$dir/tmp/ask.py" "$dir/issuer-run/admin.sock" "$@"; }
ask host.list '{}' > "$dir/tmp/whole"
cmp <(jq -S . "$dir/tmp/paged") <(jq -S . "$dir/tmp/whole") || job_fail "pages and whole differ"
jq --indent 2 . "$dir/tmp/paged" | cmp - "$dir/tmp/paged" || job_fail "not the layout of one answer"
[ "$(ctl --json host list --state banned | jq -c .)" = '{"hosts":[]}' ] || job_fail "an empty list"
ctl --json entry list | jq -e '.entries == [] and (.version | type == "number")' > /dev/null || job_fail "what stands beside a list"
ok "2400 hosts: each once, one title; JSON as in one answer, which a client without pages still gets"

# ---- limits and cursors ---------------------------------------------------------------------------------------
[ "$(ctl host list --limit 1005 | wc -l)" = 1006 ] || job_fail "--limit 1005"
ctl --json host list --limit 5 > "$dir/tmp/five"
[ "$(jq '.hosts | length' "$dir/tmp/five")" = 5 ] || job_fail "--limit 5"
next=$(jq -er .next "$dir/tmp/five")
ctl --json host list --limit 1 --after "$next" | jq -e '.hosts[0].label == "host-6"' > /dev/null || job_fail "--after"
for bad in 0 -1; do expect 2 "limit: expected 1 or more, found $bad" ctl host list --limit "$bad"; done
expect 2 'limit: expected a whole number' ctl host list --limit many
expect 1 'usage: after: expected a host.s id of 64 lowercase hex digits, found "host-6"' ctl host list --after host-6
expect 1 'certUnknown: after: no certificate' ctl cert list --after 1234
expect 1 'after: expected a proposal' ctl proposal list --after 'a b'
expect 1 'after: ' ctl entry list --after 'A b'
expect 1 'limit: expected 1 to 1000, found 0' ctl audit list --limit 0
[ "$(ask host.list '{"limit": 5001}')" = 'usage: limit: expected 1 to 5000, found 5001' ] || job_fail "$(ask host.list '{"limit": 5001}')"
[ "$(ask host.list '{"limit": "5"}')" = 'usage: host.list: limit: expected a number' ] || job_fail "$(ask host.list '{"limit": "5"}')"
got=0
ctl host list | head -n 1 > "$dir/tmp/out" || got=$?
grep -q '^ID ' "$dir/tmp/out" || job_fail "the first line"
ok "--limit, --after, next; wrong ones by name; a reader that leaves"

# ---- hosts come and go while they are listed ---------------------------------------------------------------------
csv 3000 5999 > "$dir/tmp/more.csv"
(
    ctl host import "$dir/tmp/more.csv"
    for i in $(seq 2300 2330); do ctl host evict "host-$i"; done
) > /dev/null 2> "$dir/tmp/changes" &
changes=$!
rounds=0
while kill -0 "$changes" 2> /dev/null || [ "$rounds" -lt 3 ]; do
    ctl --json host list > "$dir/tmp/round"
    jq -e '([.hosts[].id] | length == (unique | length)) and ([.hosts[].label] | index("host-1") and index("host-2200"))' "$dir/tmp/round" > /dev/null ||
        job_fail "a host twice, or one that was there all the while is missing"
    rounds=$((rounds + 1))
done
wait "$changes" || { cat "$dir/tmp/changes"; job_fail "the changes"; }
[ "$(ctl --json host list | jq '.hosts | length')" = 5369 ] || job_fail "$(ctl --json host list | jq '.hosts | length') hosts at last"
[[ $(ask host.list '{}') == 'listTooLong: more than 5000 of the hosts'* ]] || job_fail "$(ask host.list '{}' | cut -c 1-200)"
ok "hosts come and go in $rounds lists: none twice, none lost; without pages more than 5000 are refused (listTooLong)"
