#!/usr/bin/env bash
# The support code of the other tests (tests/support/job.sh): a test that fails leaves no process, and tests
# beside one another get different ports, none of which the kernel gives to clients.
set -euo pipefail
# shellcheck disable=SC2154 # dir comes from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
ok() { echo "ok: $*"; }
inner() { # what a test does, then COMMAND
    cat << END
set -euo pipefail
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
job_port
job_start other sleep 600
job_start attestd sleep 600
echo "\$port \$(job_pid other) \$(job_pid attestd) \$dir"
$1
END
}

status=0
bash -c "$(inner 'false')" > "$dir/tmp/inner" || status=$?
[ "$status" = 1 ] || job_fail "exit $status, expected that of the command that failed"
read -r _ other attestd folder < "$dir/tmp/inner"
for pid in "$other" "$attestd"; do
    ! grep -qs '^State:[[:space:]]*[^Z]' "/proc/$pid/status" || job_fail "process $pid outlived its test"
done
[ ! -e "$folder" ] || job_fail "$folder outlived its test"
ok "a failed test leaves neither processes nor files"

# Twenty at once, each of which holds its port until all have one.
for i in $(seq 20); do
    bash -c "$(inner "until [ -e '$dir/go' ]; do sleep 0.05; done")" > "$dir/tmp/many.$i" &
done
all() { [ "$(cat "$dir"/tmp/many.* | wc -l)" = 20 ]; }
wait_for 60 all
cut -d' ' -f1 "$dir"/tmp/many.* | sort -n > "$dir/tmp/ports"
touch "$dir/go"
wait
[ "$(sort -u "$dir/tmp/ports" | wc -l)" = 20 ] || { cat "$dir/tmp/ports"; job_fail "a port twice"; }
[ "$(head -n 1 "$dir/tmp/ports")" -ge 20000 ] && [ "$(tail -n 1 "$dir/tmp/ports")" -lt 32768 ] ||
    { cat "$dir/tmp/ports"; job_fail "a port out of range"; }
ok "ports of tests that run beside one another"

# A port that somebody listens on is none.
python3 - "$dir/port" << 'END' &
import os, socket, sys
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen()
with open(sys.argv[1] + ".tmp", "w") as f:
    f.write(str(s.getsockname()[1]))
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
s.accept()
END
wait_for 30 test -e "$dir/port"
used=$(cat "$dir/port")
job_port_used "$used" || job_fail "port $used is taken to be free"
exec 9<> "/dev/tcp/127.0.0.1/$used"
exec 9>&-
wait
ok "a port that somebody has is not taken"
