#!/usr/bin/env bash
# Hostile peers: another uid at the three local sockets, garbage, slow peers and floods at each, and the same
# at the issuer's TLS port with oversized bodies and request smuggling. Afterwards everything works.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
job_make_tpm
job_write_conf
job_start_all
agents=(alpha)
job_enrolled_with "${agents[@]}"
peers=$ATT_SOURCE_DIR/tests/support/peers.py
# The folders let everybody through: what keeps others out is the socket.
chmod 755 "$dir" "$dir/run" "$dir/issuer-run"
if [ "$(id -u)" -eq 0 ]; then
    python3 "$peers" denied "$dir/run/control.sock" "$dir/run/keyd/keyd.sock" "$dir/issuer-run/admin.sock"
fi
python3 "$peers" unix ctl "$dir/run/control.sock"
python3 "$peers" unix ctl "$dir/issuer-run/admin.sock"
python3 "$peers" unix keyd "$dir/run/keyd/keyd.sock"
fault_rotates "${agents[@]}"
python3 "$peers" tls "$port" "$bin/attestctl" --issuer "$dir/issuer-run/admin.sock" issuer status
fault_rotates "${agents[@]}"
for name in attestd keyd issuerd; do
    job_alive "$name" || job_fail "$name ended"
done
fault_whole "${agents[@]}"
echo "hostile peers: all held"
