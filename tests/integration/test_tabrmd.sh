#!/usr/bin/env bash
# The main job through tpm2-abrmd: a resource manager on a private D-Bus in front of the swtpm.
# Enrolment, an agent's certificate, a rotation, an operator's quote, a restart of keyd.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
for tool in dbus-daemon tpm2-abrmd; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
ldconfig -p | grep -q libtss2-tcti-tabrmd || job_skip "no libtss2-tcti-tabrmd"
job_setup
ok() { echo "ok: $*"; }
job_make_tpm
job_write_conf

# ---- a bus of our own, and the resource manager on it ----
cat > "$dir/bus.conf" << END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=$dir/bus.sock</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
END
job_start dbus dbus-daemon --config-file="$dir/bus.conf" --nofork --nopidfile
export DBUS_SESSION_BUS_ADDRESS=unix:path=$dir/bus.sock
wait_for 30 test -S "$dir/bus.sock"
tcti=$(cat "$dir/tpm/tcti")
job_start abrmd tpm2-abrmd --session --allow-root --tcti="$tcti"
rm_up() { TPM2TOOLS_TCTI=tabrmd:bus_type=session tpm2_getrandom --hex 8; }
wait_for 30 rm_up
ok "tpm2-abrmd answers"

# ---- the main job over it ----
sed -i "s|tcti: .*|tcti: \"tabrmd:bus_type=session\"|" "$dir/attestd.yaml"
job_start_all
job_enrolled_with through-abrmd
job_check_chain through-abrmd
serial=$(job_serial through-abrmd)
ctl agent rotate through-abrmd > /dev/null
[ "$(job_serial through-abrmd)" != "$serial" ] || job_fail "the same certificate after a rotation"
job_check_chain through-abrmd
ok "enrolled, certificate, rotation"

ctl quote --nonce 00112233445566778899aabbccddeeff --out "$dir/quote" > "$dir/tmp/check"
TPM2TOOLS_TCTI=none sh "$dir/tmp/check" > "$dir/tmp/out" 2>&1 || { cat "$dir/tmp/out"; job_fail "tpm2_checkquote"; }
ok "an operator's quote, by tpm2_checkquote"

sandbox=$(ctl --json status | jq -r .tpm.sandbox.seccomp)
[ -n "$sandbox" ] && [ "$sandbox" != null ] || job_fail "keyd's sandbox: $sandbox"
job_stop keyd
job_start_keyd
ready() { [ "$(ctl --json status | jq -r .tpm.state)" = ready ]; }
wait_for 30 ready
serial=$(job_serial through-abrmd)
wait_for 60 ctl agent rotate through-abrmd
[ "$(job_serial through-abrmd)" != "$serial" ] || job_fail "no rotation after keyd's restart"
ok "keyd restarted inside its sandbox ($sandbox)"

# ---- the resource manager goes away and comes back ----
job_stop abrmd KILL
away() { [ "$(ctl --json status | jq -r .tpm.state)" != ready ]; }
if ctl --timeout 60 agent rotate through-abrmd > "$dir/tmp/out" 2>&1; then
    job_fail "a rotation without a resource manager"
fi
wait_for 30 away
job_start abrmd tpm2-abrmd --session --allow-root --tcti="$tcti"
wait_for 30 rm_up
wait_for 90 ready
serial=$(job_serial through-abrmd)
wait_for 60 ctl agent rotate through-abrmd
[ "$(job_serial through-abrmd)" != "$serial" ] || job_fail "no rotation after the resource manager's restart"
ok "the resource manager was killed and came back"
