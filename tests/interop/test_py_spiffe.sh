#!/usr/bin/env bash
# The Python SPIFFE library ("spiffe" of PyPI) with real processes (swtpm, keyd, whod, attestd, issuer, spiffed): X.509
# contexts, X509Source over two rotations, JWT-SVIDs and bundles; who is refused is told why by the library, too.
# It is fetched by pip with ATT_LONG=1 (ATT_PY_SPIFFE_VERSION for another version); ATT_PY_SPIFFE: the python of a venv
# that has it.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir and others come from job.sh and clients.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
# shellcheck source=../support/spiffe/clients.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe/clients.sh"
[ -n "${ATT_PY_SPIFFE:-}${ATT_LONG:-}" ] || job_skip "pip fetches the library with ATT_LONG=1 only, or ATT_PY_SPIFFE names a python that has it"
clients_setup
python=${ATT_PY_SPIFFE:-$dir/venv/bin/python}
if [ -z "${ATT_PY_SPIFFE:-}" ]; then
    /usr/bin/python3 -m venv "$dir/venv" > "$dir/tmp/pip" 2>&1 || job_skip "no python3-venv"
    timeout 600 "$dir/venv/bin/pip" install -q "spiffe==${ATT_PY_SPIFFE_VERSION:-0.3.2}" >> "$dir/tmp/pip" 2>&1 ||
        { tail -n 5 "$dir/tmp/pip"; job_skip "pip cannot fetch the library"; }
    chmod -R a+rX "$dir/venv"
fi
version=$("$python" -c 'import importlib.metadata as m; print("spiffe", m.version("spiffe") + ",", "grpcio", m.version("grpcio"))')
cp "$ATT_SOURCE_DIR/tests/support/spiffe/python/client.py" "$dir/client.py"
chmod 644 "$dir/client.py"
# shellcheck disable=SC2034 # for clients.sh
client=(env PYTHONDONTWRITEBYTECODE=1 "$python" "$dir/client.py")
status=0
trap 'status=$?; job_stop watch KILL; set +e; (exit $status); job_cleanup' EXIT
clients_world
clients_refused
# Its source tries again for ever, as other libraries' do: it ends by its timeout, and the reason is not in its words.
must error "*Timeout waiting for the first update*" $tpm_user refused
ok "X509Source of who is given no key ends by its timeout"
clients_watched 2
clients_tokens
clients_end
echo "py-spiffe ($version): all held"
