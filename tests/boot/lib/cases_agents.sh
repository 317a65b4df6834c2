# shellcheck shell=bash
# shellcheck disable=SC2154 # work, bin and records come from the script
# The cases in which what an agent is made of is judged: files under fs-verity whose measurements IMA repeats (level 2), and
# files of a dm-verity image whose root hash the command line has (level 3).

agent_dir=/state/agent image_uuid=6d2b3b0e-7f3c-4c5e-9d0a-3b1f5a7c9e11

# measured_make NAME MANIFEST LEVEL: a machine whose agent is demanded to be measured; IMA's rules, from standard input, on its disk
measured_make() {
    [ -e "$work/operator.pem" ] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/operator.pem" 2> /dev/null
    local signer
    signer=$(openssl pkey -in "$work/operator.pem" -pubout -outform DER | sha256sum | cut -d' ' -f1)
    cat > "$work/ima-policy"
    machine_make "$1"
    machine_put "$1" /ima-policy "$work/ima-policy"
    issuer_knows "$1" "{ manifest: $2, signers: [ \"$signer\" ], level: $3, reread_s: 0 }"
}
# agent_refused NAME REASON WORD...: on the machine that runs, by attestd or by the issuer; every word stands in the message
agent_refused() {
    local name=$1 reason=$2 word
    shift 2
    wait_for 300 agent_reason "$name" "$reason" || fail "$name: $(jq -c .lastError "$work/agent.json")"
    for word in "$@"; do
        jq -r .lastError.message "$work/agent.json" > "$work/message"
        grep -qF -- "$word" "$work/message" || fail "$name: $word is not in: $(cat "$work/message")"
    done
}
agent_reason() { guest "attestctl --json agent show $1" > "$work/agent.json" && jq -e --arg r "$2" '.lastError.reason == $r' "$work/agent.json"; }
# agent_level NAME LEVEL: the newest certificate states it
agent_level() {
    guest "attestctl --json cert show $1" > "$work/cert.json" || fail "$1: $(cat "$work/cert.json")"
    jq -e --argjson level "$2" '.measuredLevel == $level' "$work/cert.json" > /dev/null || fail "$1: level: $(cat "$work/cert.json")"
}
# agent_mark NAME, agent_unmoved NAME: no certificate of it in between (the host's own enrolment goes on)
agent_mark() { mark_serial=$(newest "$1"); }
agent_unmoved() { [ "$(newest "$1")" = "$mark_serial" ] || fail "$1: a certificate was issued"; }
withdrawn() { guest "test ! -e /var/lib/attestd/host/agents/$1/chain.pem"; }
# manifest_make FILE ARGUMENT...: in the guest, signed by the operator, whose key is there for that long
manifest_make() {
    local out=$1
    shift
    guest "umask 077; echo $(base64 -w0 "$work/operator.pem") | base64 -d > /run/operator.pem
        umask 022; attestctl manifest create $* --key /run/operator.pem --out $out; status=\$?; rm /run/operator.pem; chmod 644 $out; sync; exit \$status" \
        > "$work/manifest" || fail "manifest create: $(cat "$work/manifest")"
}
disk_take() { # disk_take NAME PATH FILE: off the disk of a machine that is off
    debugfs -R "dump $2 $3" "$work/vm/$1/disk" > "$work/debugfs" 2>&1
    [ -s "$3" ] || fail "$2 of $1: $(cat "$work/debugfs")"
}
disk_put() { # disk_put NAME PATH FILE UID MODE
    machine_put "$1" "$2" "$3"
    printf 'sif %s uid %s\nsif %s mode 0100%s\n' "$2" "$4" "$2" "$5" | debugfs -w -f - "$work/vm/$1/disk" > "$work/debugfs" 2>&1
}
sum() { sha256sum "$1" | cut -d' ' -f1; }
# byte_flip FILE OFFSET
byte_flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf '%b' "\\x$(printf %02x $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# The machine "agents": an executable and a model, both under fs-verity; IMA measures the one in SHA-256, the other by fs-verity.
agents_good() {
    [ ! -e "$work/vm/agents" ] || return 0
    measured_make agents $agent_dir/manifest.json 2 << 'END'
measure func=FILE_CHECK mask=MAY_READ fowner=1002 digest_type=verity
measure func=FILE_CHECK mask=MAY_READ fowner=1001
measure func=BPRM_CHECK fowner=1001
END
    machine_on agents "$work/good.esp"
    machine_up
    agent_refused agents manifestMissing $agent_dir/manifest.json
    guest "mkdir $agent_dir && cp /bin/busybox $agent_dir/busybox && seq 1 200000 > $agent_dir/weights.bin &&
        chown 1001 $agent_dir/busybox && chown 1002 $agent_dir/weights.bin" > "$work/answer" || fail "$(cat "$work/answer")"
    manifest_make $agent_dir/manifest.json executable=$agent_dir/busybox model=$agent_dir/weights.bin
    guest_off
    # IMA's list of another boot, in which nothing was written.
    machine_on agents "$work/good.esp"
    wait_for 900 newer agents none || fail "no certificate for a measured agent"
    machine_up
    wait_for 300 guest 'test -e /var/lib/attestd/host/agents/agents/chain.pem'
    agent_level agents 2
    chain_good agents
    guest_off
    disk_take agents /agent/busybox "$work/busybox.good"
    disk_take agents /agent/weights.bin "$work/weights.good"
    cp "$work/vm/agents/disk" "$work/agents.disk"
    ok "an agent of two files under fs-verity, which IMA saw, too: certificate of level 2; before its manifest was there, manifestMissing"
}
agents_fresh() { # as it was after that; what the issuer knows of it stays
    agents_good
    cp "$work/agents.disk" "$work/vm/agents/disk"
}
# agents_file_refused PATH GOOD UID MODE: that file altered while the machine was off
agents_file_refused() {
    cp "$2" "$work/altered"
    byte_flip "$work/altered" 100000
    disk_put agents "$1" "$work/altered" "$3" "$4"
    agent_mark agents
    machine_on agents "$work/good.esp"
    machine_up
    agent_refused agents modelDigest "/state$1" "$(sum "$2")" "$(sum "$work/altered")"
    wait_for 60 withdrawn agents
    agent_unmoved agents
    machine_cut
}
case_agent() {
    agents_fresh
    agents_file_refused /agent/busybox "$work/busybox.good" 1001 755
    ok "the agent's executable altered on the disk: modelDigest, the file and both digests named; certificate taken away"
}
case_model() {
    local block before
    agents_fresh
    agents_file_refused /agent/weights.bin "$work/weights.good" 1002 644
    ok "the model replaced by an altered one: modelDigest, the file and both digests named; certificate taken away"
    # Its bytes changed below the file system: the file is the one that was measured, and the kernel hands out no other byte.
    agents_fresh
    block=$(debugfs -R 'bmap /agent/weights.bin 24' "$work/vm/agents/disk" 2> /dev/null)
    byte_flip "$work/vm/agents/disk" $((block * 4096 + 1696))
    before=$(newest agents)
    machine_on agents "$work/good.esp"
    wait_for 900 newer agents "$before" || fail "no certificate"
    machine_up
    ! guest "dd if=$agent_dir/weights.bin of=/tmp/read bs=4096 skip=24 count=1" > "$work/answer" || fail "the changed block was read"
    grep -q 'Input/output error\|I/O error' "$work/answer" || fail "$(cat "$work/answer")"
    guest "dd if=$agent_dir/weights.bin bs=4096 count=24 2> /dev/null | sha256sum" > "$work/answer"
    [ "$(cut -d' ' -f1 "$work/answer")" = "$(head -c 98304 "$work/weights.good" | sha256sum | cut -d' ' -f1)" ] || fail "before the block: $(cat "$work/answer")"
    machine_cut
    ok "the model's bytes changed below fs-verity: no process reads them (I/O error), the rest is as it was"
}
case_ima() {
    local altered before
    agents_fresh
    before=$(newest agents)
    mark_record=$(last_record)
    machine_on agents "$work/good.esp"
    wait_for 900 newer agents "$before" || fail "no certificate"
    machine_up
    agent_mark agents
    # Root of this host replaces the agent, runs that, and puts everything back.
    altered=$(guest "cd $agent_dir && { cat busybox; echo more; } > other && chown 1001 other && chmod 755 other && mv busybox kept && mv other busybox &&
        ./busybox true && sha256sum busybox && mv busybox other && mv kept busybox && rm other && sync") || fail "$altered"
    altered=${altered%% *}
    ! guest 'attestctl agent rotate agents' > "$work/answer" || fail "renewed after an executable that is not listed"
    agent_refused agents modelDigest $agent_dir/busybox "$(sum "$work/busybox.good")" "$altered"
    ictl --json audit list --after "$mark_record" > "$work/records"
    jq -e --arg digest "$altered" '[.records[].record | select(.reason == "modelDigest") | tostring | select(contains($digest))] | length > 0' "$work/records" > /dev/null ||
        fail "the issuer's record: $(jq -c '.records[].record | {kind, reason, message}' "$work/records")"
    agent_unmoved agents
    machine_cut
    ok "IMA's list has another executable under the agent's path, and it is put back: modelDigest by the issuer, both digests named"
}

# ---- level 3 ----
# image_agents NAME FILE...: a dm-verity image, $work/NAME.image, hash tree behind the data; its table in $work/NAME.table, its root hash in image_root
image_agents() {
    local name=$1 stage=$work/image-stage blocks=2048
    shift
    rm -rf "$stage"
    mkdir "$stage"
    cp "$@" "$stage/"
    chmod 755 "$stage" "$stage/busybox"
    truncate -s $((blocks * 4096)) "$work/$name.image"
    mkfs.ext4 -q -O ^has_journal -b 4096 -m 0 -U $image_uuid -d "$stage" "$work/$name.image"
    veritysetup format --salt=0a0b0c0d --uuid=$image_uuid --data-blocks=$blocks --hash-offset=$((blocks * 4096)) \
        "$work/$name.image" "$work/$name.image" > "$work/format" 2>&1 || fail "veritysetup: $(cat "$work/format")"
    image_root=$(sed -n 's/^Root hash:[[:space:]]*//p' "$work/format")
    echo "0 $((blocks * 8)) verity 1 /dev/vdc /dev/vdc 4096 4096 $blocks $((blocks + 1)) sha256 $image_root 0a0b0c0d" > "$work/$name.table"
}
verity_on() { # verity_on IMAGE
    machine_on verity "$work/verity.esp" -drive "if=none,id=image,format=raw,readonly=on,file=$work/$1.image" -device virtio-blk-pci,drive=image
    machine_up
}
case_verity() {
    local root
    cp "$(command -v busybox)" "$work/busybox"
    seq 1 200000 > "$work/weights.bin"
    image_agents good "$work/busybox" "$work/weights.bin"
    root=$image_root
    image_esp "$work/verity.esp" "$work/kernel.efi" "$work/initrd" "$boot_options roothash=$root"
    machine_on reference "$work/verity.esp"
    machine_up
    policy_draft "$work/verity.json"
    machine_cut
    policy_apply "$work/verity.json"
    measured_make verity /state/manifest.json 3 << END
measure func=CRITICAL_DATA label=device-mapper
measure func=FILE_CHECK mask=MAY_READ fsuuid=$image_uuid
measure func=BPRM_CHECK fsuuid=$image_uuid
END
    # As systemd-veritysetup-generator reads it: the table's root hash is the command line's.
    sed "s/ $root / ROOT /" "$work/good.table" > "$work/table"
    machine_put verity /verity.table "$work/table"
    verity_on good
    agent_refused verity manifestMissing /state/manifest.json
    manifest_make /state/manifest.json executable=/opt/agents/busybox model=/opt/agents/weights.bin --no-verity
    wait_for 300 guest 'attestctl agent rotate verity'
    newer verity none || fail "no certificate"
    agent_level verity 3
    chain_good verity
    ictl --json audit list --limit 20 > "$work/records"
    jq -e --arg root "$root" '[.records[].record | tostring | select(contains("\"verityRoot\":\"" + $root))] | length > 0' "$work/records" > /dev/null || fail "no record names the image's root hash"
    guest_off
    ok "an image whose root hash the command line has: certificate of level 3, the record names the root hash"

    # A byte of the model in the image.
    cp "$work/good.image" "$work/flipped.image"
    byte_flip "$work/flipped.image" $(($(debugfs -R 'bmap /weights.bin 24' "$work/good.image" 2> /dev/null) * 4096 + 1696))
    agent_mark verity
    verity_on flipped
    agent_refused verity notMeasured /opt/agents/weights.bin
    ! guest 'cat /opt/agents/weights.bin > /dev/null' > "$work/answer" || fail "the changed block was read"
    agent_unmoved verity
    machine_cut
    ok "a byte of the image changed: no process reads it (I/O error), notMeasured, nothing issued"

    # Another image, all listed files in it as they were, under a table that root wrote: only the boot does not name it.
    echo "not listed" > "$work/extra"
    image_agents other "$work/busybox" "$work/weights.bin" "$work/extra"
    machine_put verity /verity.table "$work/other.table"
    agent_mark verity
    verity_on other
    agent_refused verity measuredLevel "level 3 is demanded, level 2 is reached" "$image_root"
    agent_unmoved verity
    machine_cut
    ok "another image, the listed files in it unchanged: measuredLevel by the issuer, since the boot does not name its root hash"
    policy_apply "$work/good.json"
}
