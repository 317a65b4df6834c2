#!/usr/bin/env bash
# The main job with an issuer whose store is a PostgreSQL.
set -euo pipefail
export JOB_STORE=postgres
exec "$ATT_SOURCE_DIR/tests/integration/test_main_job.sh"
