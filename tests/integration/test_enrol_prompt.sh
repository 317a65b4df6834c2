#!/usr/bin/env bash
# attestctl enrol: the ticket comes from a pipe or from a terminal without echo, never from a file or
# argv. What is refused, what a second use gets, and that the ticket is in no file afterwards.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and port come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
command -v python3 > /dev/null || job_skip "no python3"
ok() { echo "ok: $*"; }

# enrol STATUS PATTERN: standard input goes to attestctl enrol
enrol() {
    local want=$1 pattern=$2 got=0
    shift 2
    ctl enrol "$@" > "$dir/tmp/enrol" 2>&1 || got=$?
    [ "$got" = "$want" ] || { cat "$dir/tmp/enrol"; job_fail "enrol: exit $got, expected $want"; }
    grep -qE -- "$pattern" "$dir/tmp/enrol" || { cat "$dir/tmp/enrol"; job_fail "no /$pattern/"; }
}

restart() {
    job_stop attestd
    job_stop keyd
    job_start_keyd
    job_start_attestd
    wait_for 30 ready
}
ready() { ctl --json status | jq -e '.tpm.state == "ready" and .enrolment.state == "enrolled"'; }

job_make_tpm
job_write_conf
sed -i '/^ticket_file/d' "$dir/attestd.yaml"
enrol 3 'connect to' <<< '{}'
enrol 1 'no ticket was given' < /dev/null
enrol 1 'longer than 16384 bytes' < <(head -c 20000 /dev/zero | tr '\0' x)
enrol 1 'expected UTF-8' < <(printf '\377')
enrol 2 'unexpected argument' '{"url":"x"}' < /dev/null
ok "no daemon, nothing, too much, not text, on the command line"

"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1
job_start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
# ticket FILE [OPTIONS]: outside of what the daemons know
ticket() { ctl ticket create --out "$@" > /dev/null; }
ticket "$dir/good.json" --host job
ticket "$dir/other.json"
job_start_keyd
job_start_attestd

# ---- refused, each by its own reason ----
no_ticket() { [ "$(ctl --json status | jq -r .lastError.reason)" = ticketMissing ]; }
wait_for 60 no_ticket || job_fail "without a ticket: $(ctl --json status | jq -c .lastError)"
[ "$(ctl --json status | jq -r .enrolment.account)" = null ] || job_fail "an account without a ticket"
ok "refused: ticketMissing"
enrol 1 '^attestctl: ticketMalformed: ticket: expected one JSON object' <<< 'hello'
enrol 1 '^attestctl: ticketMalformed: .*unknown member "colour"' < <(jq -c '.colour = "blue"' "$dir/good.json")
enrol 1 '^attestctl: ticketMalformed: .*macKey' < <(jq -c 'del(.macKey)' "$dir/good.json")
secret=$(jq -r .macKey "$dir/good.json")
# Cut in the middle of the key: the answer does not repeat what it stumbled over.
enrol 1 ticketMalformed < <(jq -c '{macKey, url}' "$dir/good.json" | head -c 40)
! grep -qF -e "${secret:0:12}" "$dir/tmp/enrol" || job_fail "a broken ticket's key is repeated"
enrol 1 '^attestctl: issuerOther: .*other.example' < <(jq -c '.url = "https://other.example/acme"' "$dir/good.json")
enrol 1 '^attestctl: ticketInvalid: the issuer refused .*not known' < <(jq -c '.kid = "nobody"' "$dir/good.json")
enrol 1 '^attestctl: .*refused' < <(jq -c '.macKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"' "$dir/good.json")
[ "$(ctl --json status | jq -r .enrolment.account)" = null ] || job_fail "an account by a refused ticket"
ok "refused: form, issuer, ticket id, key"

# ---- enrolled by a pipe; twice is refused ----
enrol 0 '^pending' < "$dir/good.json"
grep -q "host approve $(job_host_id)" "$dir/tmp/enrol" || job_fail "no word on the approval"
enrol 1 '^attestctl: alreadyEnrolled: ' < "$dir/good.json"
enrol 1 '^attestctl: alreadyEnrolled: ' < "$dir/other.json"
job_enrolled_with by-prompt
job_check_chain by-prompt
ok "enrolled by a pipe; a second ticket is refused"

# ---- no trace of it on the host's disk, in logs, in attestd's environment and arguments ----
if grep -rlF -e "$secret" "$dir/state" "$dir/run" "$dir/log" "/proc/$(job_pid attestd)/cmdline" "/proc/$(job_pid attestd)/environ"; then
    job_fail "the ticket's key was written down"
fi
cat > "$dir/scan.py" << 'END'
# scan.py PID KEY: 1 if the process has the key, as text or as bytes, anywhere in its memory
import base64
import sys
pid, text = sys.argv[1:]
needles = [text.encode(), base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))]
with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
    for line in maps:
        where, mode = line.split()[:2]
        start, end = (int(x, 16) for x in where.split("-"))
        if "w" not in mode or end - start > 1 << 30:
            continue
        try:
            mem.seek(start)
            content = mem.read(end - start)
        except (OSError, ValueError, OverflowError):
            continue
        if any(n in content for n in needles):
            print("found in", line.strip())
            sys.exit(1)
END
if [ "$(id -u)" -eq 0 ]; then
    account=$(ctl --json status | jq -r .enrolment.account)
    if python3 "$dir/scan.py" "$(job_pid attestd)" "${account##*/}" > /dev/null; then
        job_fail "the account's id is not found in memory: the search is blind"
    fi
    python3 "$dir/scan.py" "$(job_pid attestd)" "$secret" || job_fail "attestd still has the ticket's key in memory"
fi
ok "the ticket's key is in no file and no longer in memory"

# ---- a restart needs no ticket ----
restart
serial=$(job_serial by-prompt)
ctl agent rotate by-prompt > /dev/null
[ "$(job_serial by-prompt)" != "$serial" ] || job_fail "no rotation after a restart"
ok "restart without a ticket"

# ---- a new host, which knows its issuer from the ticket only, typed at a terminal ----
job_stop attestd
job_stop keyd
rm -rf "$dir/state"
ctl host evict "$(job_host_id)" > /dev/null
sed -i '/^issuer:/,/ca_file/d' "$dir/attestd.yaml"
ticket "$dir/typed.json" --host typed
job_start_keyd
job_start_attestd
cat > "$dir/type.py" << 'END'
# type.py TICKET COMMAND...: types the ticket at the prompt on a terminal; prints what the terminal showed
import os
import pty
import select
import sys
import termios
import time

text = open(sys.argv[1]).read().strip()
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
shown, typed, interrupt = b"", False, os.environ.get("TYPE_INTERRUPT")
until = time.time() + 90
while time.time() < until:
    if not select.select([fd], [], [], 1)[0]:
        continue
    try:
        got = os.read(fd, 4096)
    except OSError:
        break
    if not got:
        break
    shown += got
    if b"not shown" in shown and not typed:
        typed = True
        assert not termios.tcgetattr(fd)[3] & termios.ECHO, "the terminal echoes"
        os.write(fd, b"\x03" if interrupt else text.encode() + b"\n")
        if interrupt:
            break
status = os.waitpid(pid, 0)[1]
if interrupt:
    assert termios.tcgetattr(fd)[3] & termios.ECHO, "the echo stayed off"
sys.stdout.write(shown.decode())
sys.exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
END
typed=0
TYPE_INTERRUPT=1 python3 "$dir/type.py" "$dir/typed.json" "$bin/attestctl" --socket "$dir/run/control.sock" enrol > "$dir/tmp/typed" 2>&1 || typed=$?
[ "$typed" = 130 ] || { cat "$dir/tmp/typed"; job_fail "interrupted at the prompt: $typed"; }
typed=0
python3 "$dir/type.py" "$dir/typed.json" "$bin/attestctl" --socket "$dir/run/control.sock" enrol > "$dir/tmp/typed" 2>&1 || typed=$?
[ "$typed" = 0 ] || { cat "$dir/tmp/typed"; job_fail "typed at a terminal: $typed"; }
grep -q pending "$dir/tmp/typed" || { cat "$dir/tmp/typed"; job_fail "typed, not pending"; }
! grep -qF -e "$(jq -r .macKey "$dir/typed.json")" "$dir/tmp/typed" || job_fail "the terminal showed the ticket"
[ "$(jq -r .url "$dir/state/keyd/issuer.json")" = "https://127.0.0.1:$port/acme" ] || job_fail "keyd's issuer"
job_enrolled_with typed-in
job_check_chain typed-in
restart
serial=$(job_serial typed-in)
ctl agent rotate typed-in > /dev/null
[ "$(job_serial typed-in)" != "$serial" ] || job_fail "no rotation after a restart"
ok "typed at a terminal without echo; issuer and root from the ticket alone"

# ---- the issuer is away: attestctl gives up waiting, attestd keeps the ticket and goes on ----
job_stop attestd
job_stop keyd
rm -rf "$dir/state"
ctl host evict "$(job_host_id)" > /dev/null
ticket "$dir/late.json" --host late
job_stop issuerd
job_start_keyd
job_start_attestd
wait_for 30 sh -c "\"$bin/attestctl\" --json --socket \"$dir/run/control.sock\" status | jq -e '.tpm.state == \"ready\"'"
enrol 1 'Resource temporarily unavailable|timed out|deadline' --timeout 3 < "$dir/late.json"
job_start_issuer
wait_for 60 job_host_known
pending() { ctl --json status | jq -e '.enrolment.state == "pending"'; }
wait_for 60 pending
ok "the issuer was away: enrolled when it came back"
