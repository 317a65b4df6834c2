#!/usr/bin/env bash
# The main job with keys in keyd's memory.
set -euo pipefail
export JOB_KEY=memory
exec "$ATT_SOURCE_DIR/tests/integration/test_main_job.sh"
