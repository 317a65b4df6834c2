#!/usr/bin/env bash
# The main job with keys in an HSM: SoftHSM2 behind attestd-hsmd.
set -euo pipefail
export JOB_KEY=hsm
exec "$ATT_SOURCE_DIR/tests/integration/test_main_job.sh"
