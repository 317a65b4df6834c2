# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034,SC2120 # from and for job.sh; hsm_tell without a line: nothing is wrong
# What the fault tests with an HSM share: source this after fault.sh, with JOB_KEY=hsm.

hsm_pin=47110815

# hsm_bad_module: the next job_make_hsm takes the module that misbehaves as hsm_tell says
hsm_bad_module() {
    local made=$ATT_BIN_DIR/../tests-bin/bad-hsm.so
    [ -r "$made" ] || job_skip "no $made"
    mkdir -p "$dir/bad"
    cp "$made" "$dir/bad/"
    job_hsm_module=$dir/bad/bad-hsm.so job_hsm_files=", $dir/bad"
    export ATT_TEST_HSM=$dir/bad/control
    hsm_tell
}
hsm_tell() { # LINE...: tests/support/hsm/module.c
    printf '%s\n' "$@" > "$dir/bad/control.new"
    mv "$dir/bad/control.new" "$dir/bad/control"
}

hsm_objects() { # privkey|pubkey [TOKEN]: their CKA_IDs, one a line
    pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --token-label "${2:-agents}" --login --pin $hsm_pin --list-objects --type "$1" 2> /dev/null |
        sed -n 's/^ *ID: *//p' | sort
}
# hsm_whole [MODULE TOKEN]: what the token has is what keyd's files speak of, private and public keys, and nobody's waste is left.
hsm_whole() {
    python3 - "$dir/state/keyd/agents" "${1:-default}" << 'END' > "$dir/tmp/hsm-files"
import glob, json, sys
for path in glob.glob(sys.argv[1] + "/*.hsm"):
    record = json.load(open(path, encoding="ascii"))
    if record.get("module", "default") == sys.argv[2]: # before version 2 hosts had one
        assert record["state"] in ("new", "active", "retired"), path + ": " + record["state"]
        print(record["ckaId"])
END
    sort -o "$dir/tmp/hsm-files" "$dir/tmp/hsm-files"
    hsm_objects privkey "${2:-agents}" > "$dir/tmp/hsm-private"
    hsm_objects pubkey "${2:-agents}" > "$dir/tmp/hsm-public"
    [ -s "$dir/tmp/hsm-files" ] && diff "$dir/tmp/hsm-files" "$dir/tmp/hsm-private" && diff "$dir/tmp/hsm-files" "$dir/tmp/hsm-public"
}
hsm_status() { ctl --json status | jq -er ".hsm.$1"; }
hsm_is() { [ "$(hsm_status state)" = "$1" ]; }
