#!/usr/bin/env bash
# Go's golang.org/x/mod/sumdb (Debian's package) reads the audit log: note, tiles, entries, inclusion and consistency.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/auditlog.sh
. "$ATT_SOURCE_DIR/tests/support/auditlog.sh"
go=/usr/bin/go
[ -x $go ] || go=$(command -v go) || job_skip "no Go (package golang-go)"
[ -d /usr/share/gocode/src/golang.org/x/mod/sumdb/tlog ] || job_skip "no golang.org/x/mod (package golang-golang-x-mod-dev)"
log_setup

(cd "$ATT_SOURCE_DIR/tests/support/tlog" && GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$dir/go GOTOOLCHAIN=local \
    GOFLAGS='' CGO_ENABLED=0 nice "$go" build -o "$dir/tlog" main.go) > "$dir/tmp/build" 2>&1 ||
    { cat "$dir/tmp/build"; job_fail "go build"; }
for n in 1 2 300; do
    log_decide "$n"
    "$dir/tlog" "$log" "$key" > "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "Go refuses the log"; }
    grep -q ": $(log_size "$log") entries" "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "Go sees another log"; }
done
[ "$(log_size "$log")" -gt 256 ] || job_fail "a log of more than a tile"
ok "Go ($($go version | cut -d' ' -f3)): $(cat "$dir/tmp/out")"

# It would see what is wrong.
cp -r "$log" "$dir/copy"
sed -i '0,/ticket/s//tacket/' "$dir/copy/tile/entries/000"
! "$dir/tlog" "$dir/copy" "$key" > "$dir/tmp/out" || job_fail "Go takes an edited entry"
rm -rf "$dir/copy" && cp -r "$log" "$dir/copy"
sed -i '2s/.*/3/' "$dir/copy/checkpoint"
! "$dir/tlog" "$dir/copy" "$key" > "$dir/tmp/out" || job_fail "Go takes a forged checkpoint"
ok "Go refuses an edited entry and a forged checkpoint"

# With a TPM: a line more in the text, a signature more. Go knows nothing of them, and takes the rest.
# shellcheck source=../support/logtpm.sh
. "$ATT_SOURCE_DIR/tests/support/logtpm.sh"
if ! command -v swtpm > /dev/null || ! command -v swtpm_setup > /dev/null; then
    echo "left out: no swtpm"
    exit 0
fi
job_stop issuerd
logtpm_make "$dir/tpm"
logtpm_conf "$dir/tpm" "$dir/tpm-state" >> "$dir/issuer.yaml"
logtpm_start
job_start_issuer
log_decide 3
[ "$(grep -c '^— ' "$log/checkpoint")" = 2 ] && [ -n "$(log_counter "$log")" ] || job_fail "no second signature"
"$dir/tlog" "$log" "$key" > "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "Go refuses a log with a TPM's signature"; }
grep -q ": $(log_size "$log") entries" "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "Go sees another log"; }
! "$dir/tlog" "$log" "$(cat "$dir/issuer/audit.tpm.vkey")" > "$dir/tmp/out" 2>&1 || job_fail "Go takes the TPM's key"
ok "Go takes a checkpoint with a TPM's signature and counter"
