#!/usr/bin/env bash
# The caller matrix with real processes: user × executable × script × unit × namespaces × socket. One cell of each socket's
# column is the agent, whatever namespaces it is in; every other one is nobody's, and says what does not fit.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin, socket, support and stubs come from job.sh and spiffe.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
spiffe_setup streams.py hpack health.proto
cells=$dir/cells
mkdir -p "$cells/right" "$cells/wrong"
cp "$ATT_SOURCE_DIR/tests/support/token/rpc.py" "$support/streams.py" "$cells/"
python=$(readlink -f /usr/bin/python3)
name=$(basename "$python")
for exe in right wrong; do
    cp "$python" "$cells/$exe/$name"
    cp "$ATT_SOURCE_DIR/tests/support/token/cell.py" "$cells/$exe.py"
done
printf '\n' >> "$cells/wrong/$name"
printf '\n# another one\n' >> "$cells/wrong.py"
chmod -R a+rX "$cells"
sha() { sha256sum "$1" | cut -d' ' -f1; }
declare -A uid=([right]=62001 [wrong]=62009)

# A cgroup is a unit to whod by its path, whoever made it; here the test does, where systemd would.
hierarchy=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
units=(right wrong)
declare -A unit=([right]=att-matrix-$$.service [wrong]=att-other-$$.service)
for one in right wrong; do
    if [ -z "$hierarchy" ] || ! mkdir "$hierarchy/${unit[$one]}" 2> /dev/null; then
        echo "not tried: units (no cgroup v2 to write to)"
        units=(right)
    fi
done
spaces=(host own)
unshare --pid --mount --fork --mount-proc true 2> /dev/null || { echo "not tried: namespaces"; spaces=(host); }

job_make_tpm
job_write_conf
end_matrix() {
    job_stop tokend KILL
    for one in right wrong; do
        [ ! -d "$hierarchy/${unit[$one]}" ] || rmdir "$hierarchy/${unit[$one]}"
    done
}
status=0
trap 'status=$?; set +e; end_matrix; (exit $status); job_cleanup' EXIT
spiffe_start_all
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
workload="uid: ${uid[right]}, exe_sha256: [$(sha "$cells/right/$name")], script_sha256: [$(sha "$cells/right.py")]"
[ ${#units[@]} = 1 ] || workload+=", unit: ${unit[right]}"
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: alpha, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {$workload}, key: tpm, profile: trading}
END
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
wait_for 60 job_settled alpha

# cell UID EXE SCRIPT UNIT SPACE: its two lines
cell() {
    local apart=()
    [ "$5" = host ] || apart=(unshare --pid --mount --ipc --uts --fork --mount-proc)
    (
        [ ${#units[@]} = 1 ] || echo $BASHPID > "$hierarchy/${unit[$4]}/cgroup.procs"
        exec timeout 60 "${apart[@]}" setpriv --reuid "${uid[$1]}" --regid "${uid[$1]}" --clear-groups \
            "$cells/$2/$name" "$cells/$3.py" "$cells" "$dir/run/public/pkcs11.sock" "$socket"
    ) < /dev/null
}
serves() { cell right right right right host > "$dir/tmp/cell" 2>&1 && [ "$(grep -c ' served$' "$dir/tmp/cell")" = 2 ]; }
wait_for 60 serves || { cat "$dir/tmp/cell"; job_fail "the agent itself"; }

tried=0
for space in "${spaces[@]}"; do
    for u in right wrong; do
        for exe in right wrong; do
            for script in right wrong; do
                for in_unit in "${units[@]}"; do
                    what="user $u, executable $exe, script $script, unit $in_unit, namespaces $space"
                    cell $u $exe $script "$in_unit" "$space" > "$dir/tmp/cell" 2>&1 || { cat "$dir/tmp/cell"; job_fail "$what"; }
                    expected=$'pkcs11 no key\nspiffe status 7' # PERMISSION_DENIED
                    [[ "$u $exe $script $in_unit" == *wrong* ]] || expected=$'pkcs11 served\nspiffe served'
                    [ "$(cat "$dir/tmp/cell")" = "$expected" ] || { cat "$dir/tmp/cell"; job_fail "$what: expected ${expected//$'\n'/, }"; }
                    tried=$((tried + 2))
                done
            done
        done
    done
done
# ---- two agents of one user, told apart by their units alone ----
if [ ${#units[@]} = 2 ]; then
    line="$(grep 'name: alpha' "$dir/agents.yaml")"
    line=${line/name: alpha/name: beta}
    echo "${line/${unit[right]}/${unit[wrong]}}" >> "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
    wait_for 60 job_settled beta
    granted() { grep -c "event=workload.granted agent=$1 .*unit=${unit[$2]} " "$dir/log/attestd.log" || true; }
    other() { cell right right right wrong host > "$dir/tmp/cell" 2>&1 && [ "$(grep -c ' served$' "$dir/tmp/cell")" = 2 ]; }
    wait_for 60 other || { cat "$dir/tmp/cell"; job_fail "the agent of the other unit"; }
    serves || { cat "$dir/tmp/cell"; job_fail "the agent of the first unit, beside another one"; }
    [ "$(granted alpha wrong)" = 0 ] && [ "$(granted beta right)" = 0 ] && [ "$(granted beta wrong)" -ge 2 ] ||
        { grep event=workload.granted "$dir/log/attestd.log"; job_fail "a unit's process was taken for the other agent"; }
    ok "two agents of one user and program, told apart by unit, at both sockets"
fi

# What does not fit is said, of each selector alone.
said() { grep -q "event=workload.refused reason=notAssigned .*$1" "$dir/log/attestd.log" || job_fail "no line says: $1"; }
said "wants user ${uid[right]}"
said "is not listed"
said "its script"
[ ${#units[@]} = 1 ] || said "wants unit ${unit[right]}"
fault='ERROR: AddressSanitizer|runtime error'
! grep -lE "$fault" "$dir"/log/*.log || job_fail "sanitizer"
job_stop tokend
ok "$tried cells: the agent's are served, nobody else's"
