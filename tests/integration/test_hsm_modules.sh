#!/usr/bin/env bash
# Several HSM modules on one host, the real daemons: SoftHSM2 as the section hsm, a second token behind a module that
# misbehaves, and with ATT_LONG=1 tpm2-pkcs11 as a third, each in an attestd-hsmd of its own. Agents in each get certificates
# and sign by stock clients; one that hangs, dies or loses its login delays nobody else; keys stay with their module
# over restarts and over a configuration that does not name it for a while.
set -euo pipefail
export JOB_KEY=hsm
# shellcheck disable=SC2154 # dir, bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
# shellcheck source=../support/hsm.sh
. "$ATT_SOURCE_DIR/tests/support/hsm.sh"
module=$(find /usr/lib -name p11-kit-client.so -print -quit 2> /dev/null || true)
[ -n "$module" ] || job_skip "no p11-kit-client.so (package p11-kit-modules)"
command -v pkcs11-tool > /dev/null || job_skip "no pkcs11-tool (package opensc)"
[ "$(id -u)" = 0 ] || job_skip "processes of several users need root"
client=$ATT_BIN_DIR/../tests-bin/token-client
job_setup
chmod 755 "$dir"
job_make_tpm
job_write_conf
cp "$dir/attestd.yaml" "$dir/one.yaml" # the section hsm alone

# ---- the second module, and a third -----------------------------------------------------------------------
hsm_bad_module
job_hsm_serial=
job_make_token shaky
cat > "$dir/list.yaml" << END
hsms:
  - name: shaky
    module: $dir/bad/bad-hsm.so
    token: "pkcs11:token=shaky;serial=$job_hsm_serial?pin-source=file:$dir/hsm.pin"
    files: [ $SOFTHSM2_CONF, $dir/tokens, $dir/bad ]
END
third=()
tpm2=$(find /usr/lib -name libtpm2_pkcs11.so -print -quit 2> /dev/null || true)
if [ -n "${ATT_LONG:-}" ] && [ -n "$tpm2" ] && command -v tpm2_ptool > /dev/null; then
    third=(in-third)
    # shellcheck source=../support/tpm2_pkcs11.sh
    . "$ATT_SOURCE_DIR/tests/support/tpm2_pkcs11.sh"
    tpm2_pkcs11_make "$dir/third" "$tpm2"
    cat >> "$dir/list.yaml" << END
  - name: third
    module: $tpm2
    token: "pkcs11:token=third;serial=$tpm2_pkcs11_serial?pin-source=file:$dir/hsm.pin"
    files: [ $dir/third ]
    sessions: 1
END
else
    echo "not tried: tpm2-pkcs11 as a third module (ATT_LONG=1, packages libtpm2-pkcs11-1 and libtpm2-pkcs11-tools)"
fi
cat "$dir/one.yaml" "$dir/list.yaml" > "$dir/attestd.yaml"

# ---- what the configuration may not say ---------------------------------------------------------------------
hsmd_check() { "$bin/attestd-hsmd" --config "$1" --check "${@:2}"; }
hsmd_check "$dir/attestd.yaml" --module shaky > /dev/null
hsmd_check "$dir/attestd.yaml" > /dev/null
fault_refused 'no HSM module "cards": expected one of: default, shaky' "$bin/attestd-hsmd" --config "$dir/attestd.yaml" --check --module cards
line=$(grep -n 'name: shaky' "$dir/attestd.yaml" | cut -d: -f1)
sed 's/name: shaky/name: default/' "$dir/attestd.yaml" > "$dir/wrong.yaml"
for program in attestd attestd-keyd attestd-hsmd; do
    fault_refused "wrong.yaml:$line: hsms\[0\].name: expected another name than that of hsm" "$bin/$program" --config "$dir/wrong.yaml" --check
done
sed "s/token=shaky;serial=[^?]*/slot-id=1/" "$dir/attestd.yaml" > "$dir/wrong.yaml"
fault_refused "wrong.yaml:$((line + 2)): hsms\[0\].token: slot-id" "$bin/attestd" --config "$dir/wrong.yaml" --check
{ cat "$dir/attestd.yaml"; echo "default_hsm: cards"; } > "$dir/wrong.yaml"
fault_refused "wrong.yaml:$(wc -l < "$dir/wrong.yaml"): default_hsm: expected the name of a module" "$bin/attestd" --config "$dir/wrong.yaml" --check
ok "--check: a name twice, one that is none, a URI with a slot, by file and line"

# ---- agents in each -----------------------------------------------------------------------------------------
job_start_hsmd shaky
for name in "${third[@]}"; do
    job_start_hsmd third
done
job_start_all
job_start whod "$bin/attestd-whod" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/whod.sock"
job_start tokend "$bin/attestd-tokend" --config "$dir/attestd.yaml"
wait_for 10 test -S "$dir/run/public/pkcs11.sock"
chmod -R a+rX "$dir/run"
chmod a+x "$dir/state" "$dir/state/host" "$dir/state/host/agents" # as the units have it
export P11_KIT_SERVER_ADDRESS=unix:path=$dir/run/public/pkcs11.sock P11_KIT_STRICT=1
wait_for 60 job_host_known
ctl host approve "$(job_host_id)" --label job > /dev/null
declare -A uid_of=([in-tpm]=1101 [plain]=1102 [shaky-a]=1103 [shaky-b]=1104 [lost]=1105 [in-third]=1106)
declare -A key_of=([in-tpm]=tpm [plain]=hsm [shaky-a]="hsm, hsm: shaky" [shaky-b]="hsm, hsm: shaky" [lost]="hsm, hsm: cards" [in-third]="hsm, hsm: third")
entries() { # NAME...
    {
        printf 'trust_domain: bank.example\nagents:\n'
        for name in "$@"; do
            echo "  - { name: $name, owner: x@bank.example, hosts: [ \"ek:$(job_host_id)\" ], workload: { uid: ${uid_of[$name]} },"
            echo "      key: ${key_of[$name]}, profile: trading }"
        done
    } > "$dir/agents.yaml"
    ctl entry apply -f "$dir/agents.yaml" > /dev/null
}
agents=(in-tpm plain shaky-a shaky-b "${third[@]}")
entries "${agents[@]}" lost
for name in "${agents[@]}"; do
    wait_for 60 job_settled "$name"
done
module_of_key() { jq -r '.module // "default"' "$dir/state/keyd/agents/$(ctl --json agent show "$1" | jq -r .keyId).hsm"; }
[ "$(module_of_key plain)" = default ] || job_fail "plain: a key in $(module_of_key plain)"
[ "$(module_of_key shaky-a)" = shaky ] || job_fail "shaky-a: a key in $(module_of_key shaky-a)"
as() { # NAME COMMAND...
    local uid=${uid_of[$1]}
    shift
    timeout 120 setpriv --reuid="$uid" --regid="$uid" --clear-groups env HOME=/nonexistent "$@" < /dev/null
}
cert_key() { openssl x509 -in "$dir/state/host/agents/$1/chain.pem" -noout -pubkey; }
signs() { as "$1" "$client" "$module" sign "${2:-1}" > "$dir/tmp/$1.out" 2>&1; }
verified() { # NAME: by its program, and its certificate's key agrees
    openssl rand 32 > "$dir/tmp/digest"
    chmod 644 "$dir/tmp/digest"
    as "$1" pkcs11-tool --module "$module" -s -m ECDSA --signature-format openssl --label agent -i "$dir/tmp/digest" \
        > "$dir/tmp/sig" 2> "$dir/tmp/err" || return 1
    cert_key "$1" > "$dir/tmp/pub.pem"
    openssl pkeyutl -verify -pubin -inkey "$dir/tmp/pub.pem" -in "$dir/tmp/digest" -sigfile "$dir/tmp/sig" > "$dir/tmp/out"
}
for name in "${agents[@]}"; do
    verified "$name" || { cat "$dir/tmp/err"; job_fail "$name: no signature that its certificate verifies"; }
done
lost_says() { ctl --json agent show lost | jq -e '.lastError | .reason == "hsmModule" and (.message | test("\"cards\".*default, shaky"))'; }
wait_for 30 lost_says
! [ -e "$dir/state/host/agents/lost" ] || job_fail "lost has a certificate"
modules_are() { ctl --json status | jq -e --arg want "$1" '[.hsm.modules[] | "\(.name)=\(.state)"] | join(" ") == $want'; }
rest=${third:+ third=ready}
wait_for 20 modules_are "default=ready shaky=ready$rest"
ok "${#agents[@]} agents in TPM and $((2 + ${#third[@]})) modules sign; one whose module the host has not is refused by name"

doctor_says() { # NAME OK PATTERN
    ctl --json doctor > "$dir/tmp/doctor" || true
    jq -e --arg n "$1" --argjson ok "$2" --arg p "$3" '.checks[] | select(.name == $n) | .ok == $ok and (.detail | test($p))' "$dir/tmp/doctor"
}
# What has nothing to do with the module shaky works: signatures, and a certificate with a new key.
others_work() {
    local name before
    for name in in-tpm plain "${third[@]}"; do
        signs "$name" 20 || { cat "$dir/tmp/$name.out"; job_fail "$name does not sign" || return 1; }
    done
    before=$(fault_serial_on_disk plain)
    ctl agent rotate plain > /dev/null || job_fail "plain does not rotate" || return 1
    [ "$before" != "$(fault_serial_on_disk plain)" ] || job_fail "plain keeps its certificate"
}

# ---- it hangs, with more programs waiting than it has links ---------------------------------------------------
hsm_tell "C_Sign hang"
pids=()
for name in shaky-a shaky-b; do
    for i in 1 2 3; do
        as "$name" "$client" "$module" loop 5 17000 > "$dir/tmp/loop.$name.$i" 2>&1 &
        pids+=($!)
    done
done
stuck() { ctl --json status | jq -e '.hsm.modules[] | select(.name == "shaky") | .state == "silent"'; }
others_work
wait_for 40 stuck
others_work
doctor_says hsm true ready
doctor_says hsm:shaky false 'silent'
hsm_tell
for pid in "${pids[@]}"; do
    wait "$pid" || { cat "$dir"/tmp/loop.*; job_fail "a program did not get over it"; }
done
wait_for 30 signs shaky-a
ok "a module that hangs: agents of the other one and of the TPM sign and rotate; its own work again afterwards"

# ---- it dies -----------------------------------------------------------------------------------------------
before=$(cert_key shaky-a)
job_stop hsmd-shaky KILL
! signs shaky-a || job_fail "signed without its module"
wait_for 20 modules_are "default=ready shaky=hsmdAway$rest"
others_work
fault_refused 'HSM module shaky' "$bin/attestctl" --socket "$dir/run/control.sock" agent rotate shaky-b
job_start_hsmd shaky
wait_for 30 verified shaky-a
[ "$before" = "$(cert_key shaky-a)" ] || job_fail "another key after a restart"
ok "a module whose process is gone: the others go on; back again it has its keys"

# ---- it loses its login ---------------------------------------------------------------------------------------
hsm_tell "C_Sign rv 0x101"
! signs shaky-a || job_fail "signed without a login"
others_work
hsm_tell
wait_for 30 signs shaky-a
ok "a module that lost its login: the others go on"

# ---- a module is not configured for a while ---------------------------------------------------------------------
job_stop keyd
cp "$dir/attestd.yaml" "$dir/all.yaml"
cp "$dir/one.yaml" "$dir/attestd.yaml"
job_start_keyd
wait_for 30 signs plain
! signs shaky-a || job_fail "signed by a module that is not configured"
fault_log_has keyd 'no HSM module .*shaky' || job_fail "keyd does not name the module"
elsewhere() { ctl --json status | jq -e '[.hsm.modules[].name] == ["default"] and (.hsm.elsewhere[] | select(.name == "shaky") | .keys >= 2)'; }
wait_for 10 elsewhere
doctor_says hsmModule:shaky false 'shaky, which this host.s configuration does not name'
ctl status | grep 'HSM shaky: not configured' > /dev/null
plain_key=$(cert_key plain)
jq -e '.version == 3 and .module == "default" and .tokenLabel == "agents" and .tokenSerial != ""' "$dir/state/keyd/agents/$(ctl --json agent show plain | jq -r .keyId).hsm" > /dev/null || job_fail "the file of a key of the module default does not name module and token"
job_stop keyd
cp "$dir/all.yaml" "$dir/attestd.yaml"
job_start_keyd
wait_for 30 verified plain
wait_for 30 verified shaky-a
wait_for 30 verified shaky-b
[ "$plain_key" = "$(cert_key plain)" ] || job_fail "plain has another key"
[ "$before" = "$(cert_key shaky-a)" ] || job_fail "shaky-a has another key"
ok "keys stay with their module: kept while it is not configured, and there again afterwards"

# ---- the entry names another module -----------------------------------------------------------------------------
key_of[shaky-b]=hsm
entries "${agents[@]}"
moved() { job_settled shaky-b && [ "$(module_of_key shaky-b)" = default ]; }
wait_for 60 moved
wait_for 30 verified shaky-b
retired=$(ctl --json agent show shaky-b | jq -r '.retired[-1].keyId')
[ "$(jq -r .module "$dir/state/keyd/agents/$retired.hsm")" = shaky ] || job_fail "the key of before is not kept until its certificate ends"
ok "an entry that names another module: the next certificate is at once for a key there"

# ---- a key of one module is not used with the other one ----------------------------------------------------------
job_stop issuerd # attestd would replace a key in a module that the entry does not name
key=$dir/state/keyd/agents/$(ctl --json agent show shaky-a | jq -r .keyId).hsm
job_stop keyd
cp -p "$key" "$dir/kept.hsm"
sed -i 's/"module":"shaky"/"module":"default"/' "$key"
job_start_keyd
wait_for 30 signs plain
! signs shaky-a || job_fail "signed by a key of another module"
fault_log_has keyd 'keyGone.*HSM module default' || job_fail "keyd does not say that the key is not there"
job_stop keyd
cp -p "$dir/kept.hsm" "$key"
job_start_keyd
job_start_issuer
wait_for 60 verified shaky-a
ok "a key is not used in another module than its own"

# ---- the names of two tokens are swapped: what was destroyed meanwhile goes when they are put right -----------------
for name in "${agents[@]}"; do
    wait_for 60 job_settled "$name"
done
job_stop attestd
job_stop keyd
job_stop hsmd
job_stop hsmd-shaky
cp -p "$key" "$dir/kept.hsm"
cka=$(jq -r .ckaId "$key")
jq -c '.state = "gone"' "$dir/kept.hsm" > "$key"
sed -e 's/token=agents;/token=SWAP;/; s/token=shaky;/token=agents;/; s/token=SWAP;/token=shaky;/' "$dir/all.yaml" > "$dir/attestd.yaml"
serials=$(grep -o 'token=[a-z]*;serial=[^?]*' "$dir/all.yaml" | tr '\n' ' ')
s1=$(sed 's/.*token=agents;serial=\([^ ]*\).*/\1/' <<< "$serials") s2=$(sed 's/.*token=shaky;serial=\([^ ]*\).*/\1/' <<< "$serials")
sed -i "s/serial=$s1/serial=SWAP/; s/serial=$s2/serial=$s1/; s/serial=SWAP/serial=$s2/" "$dir/attestd.yaml"
job_start_hsmd
job_start_hsmd shaky
job_start_keyd # not attestd: what it makes now would be in the wrong token
other_token() { grep -q 'DESTROY_IN.*tokenOther' "$dir/log/hsmd-shaky.log"; }
wait_for 60 other_token
[ -e "$key" ] || job_fail "the file of a key in the other token is gone"
hsm_objects privkey shaky > "$dir/tmp/objects"
grep -x "$cka" "$dir/tmp/objects" > /dev/null || job_fail "the key is gone from its token"
job_stop keyd
job_stop hsmd
job_stop hsmd-shaky
cp "$dir/all.yaml" "$dir/attestd.yaml"
job_start_hsmd
job_start_hsmd shaky
job_start_keyd
job_start_attestd
gone() { [ ! -e "$key" ] && hsm_objects privkey shaky > "$dir/tmp/objects" && ! grep -x "$cka" "$dir/tmp/objects" > /dev/null; }
wait_for 60 gone
ok "two tokens under each other's names: no key is called gone; put right, what was destroyed goes"

for name in "${agents[@]}"; do
    wait_for 60 job_settled "$name"
done
job_stop attestd # nothing is made or destroyed any more
wait_for 60 hsm_whole default agents
wait_for 60 hsm_whole shaky shaky
fault_sanitizers
echo "several HSM modules: all held"
