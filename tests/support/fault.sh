# shellcheck shell=bash
# shellcheck disable=SC2154 # dir and bin come from job.sh
# What the fault tests share, beside tests/support/job.sh: source this instead of it.
# shellcheck source=job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"

ok() { echo "ok: $*"; }

fault_sanitizers() {
    ! grep -aE 'ERROR: AddressSanitizer|runtime error|LeakSanitizer|SUMMARY: ' "$dir"/log/*.log ||
        job_fail "a sanitizer spoke"
}

# fault_idle AGENT...: all have certificates and a next key made ahead, nothing is under way, and keyd has
# just the keys that they speak of: in force, next, retired
fault_idle() {
    ctl --json status > "$dir/tmp/idle"
    jq -e --argjson want $# '([.agents[] | select(.state == "valid" and .busy == false and .nextKeyId != null)] | length) == $want
        and .tpm.keys == ([.agents[] | 2 + (.retired | length)] | add)' "$dir/tmp/idle"
}

# fault_whole AGENT...: everything that must hold when the accident is over
fault_whole() {
    local name
    wait_for 90 fault_idle "$@" || job_fail "not settled: $(ctl --json agent list | jq -c .)"
    for name in "$@"; do
        job_check_chain "$name"
    done
    python3 "$ATT_SOURCE_DIR/tests/support/state_check.py" "$dir" "$@"
    ctl audit verify > "$dir/tmp/audit" || { cat "$dir/tmp/audit"; job_fail "audit verify"; }
    fault_sanitizers
}

# Rotates, at latest within 90 s (back-off), and looks at the chain.
fault_rotates() {
    local name before
    for name in "$@"; do
        before=$(fault_serial_on_disk "$name")
        wait_for 90 ctl agent rotate "$name" || job_fail "$name does not rotate"
        [ "$before" != "$(fault_serial_on_disk "$name")" ] || job_fail "rotation of $name kept $before"
        job_check_chain "$name"
    done
}

fault_serial_on_disk() {
    [ -e "$dir/state/host/agents/$1/chain.pem" ] || { echo none; return 0; }
    openssl x509 -in "$dir/state/host/agents/$1/chain.pem" -noout -serial
}

fault_log_has() { grep -aqE "$2" "$dir/log/$1.log"; }
# Occurrences so far; fault_log_more NAME PATTERN COUNT: there are more than that
fault_log_count() { grep -acE "$2" "$dir/log/$1.log" || true; }
fault_log_more() { [ "$(fault_log_count "$1" "$2")" -gt "$3" ]; }

# fault_refused PATTERN COMMAND...: exit code 1, and the message
fault_refused() {
    local pattern=$1 code=0
    shift
    timeout 300 "$@" < /dev/null > "$dir/tmp/refused" 2>&1 || code=$?
    if [ "$code" -ne 1 ] || ! grep -aqE "$pattern" "$dir/tmp/refused"; then
        cat "$dir/tmp/refused"
        job_fail "exit $code, expected 1 and /$pattern/: $*"
    fi
    ! grep -aE 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir/tmp/refused" || job_fail "a sanitizer spoke: $*"
}

# ---- clocks that a test can move (tests/support/preload/clock.c) ----
# fault_clock FILE WALL_S BOOT_S
fault_clock() {
    python3 - "$@" << 'END'
import os, struct, sys
# In place: the file is mapped.
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.pwrite(fd, struct.pack("=qq", int(sys.argv[2]), int(sys.argv[3])), 0)
END
}

# fault_clock_preload: makes the library; $clock_env runs a program with it
fault_clock_make() {
    command -v cc > /dev/null || job_skip "no C compiler for the clock that tests can move"
    cc -shared -fPIC -O1 -o "$dir/clock.so" "$ATT_SOURCE_DIR/tests/support/preload/clock.c" -ldl ||
        job_fail "tests/support/preload/clock.c"
    local first
    first=$(ldd "$bin/attest-issuerd" | sed -n 's/.*libasan[^ ]* => \([^ ]*\) .*/\1/p')
    clock_preload="${first:+$first }$dir/clock.so"
}

# fault_clocked NAME FILE: the next job_start NAME runs by that clock
fault_start_clocked() { # NAME FILE COMMAND...
    local name=$1 file=$2
    shift 2
    job_start "$name" env LD_PRELOAD="$clock_preload" ATT_TEST_CLOCK="$file" "$@"
}
