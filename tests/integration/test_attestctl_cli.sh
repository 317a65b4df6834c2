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
