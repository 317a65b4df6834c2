#!/usr/bin/env bash
# Every documented command of attestctl and of the daemons' command lines against real processes, as
# an operator uses them: wrong configurations, tickets, inventory, entries, policies, an operator's
# quote and what is refused of it, freeze, ban, permissions, reload, a tampered audit log.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin, port and job_vectors come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
for tool in sqlite3 setpriv tpm2_nvread; do
    command -v "$tool" > /dev/null || job_skip "no $tool"
done
began=$(date +%s%3N)
ok() { printf 'ok %5d ms: %s\n' $(($(date +%s%3N) - began)) "$*"; }

# expect STATUS PATTERN COMMAND...: exit status, and a pattern in what it said
expect() {
    local want=$1 pattern=$2 got=0
    shift 2
    "$@" > "$dir/tmp/out" 2>&1 < /dev/null || got=$?
    [ "$got" = "$want" ] || { cat "$dir/tmp/out"; job_fail "exit $got, expected $want: $*"; }
    [ -z "$pattern" ] || grep -qE -- "$pattern" "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "no /$pattern/ in the answer to: $*"; }
}
# sum_of DIR: changes when any file in it does
sum_of() { find "$1" -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum; }

job_make_tpm
job_write_conf
cat >> "$dir/issuer.yaml" << END
  - name: lab
    description: agents on hosts whose boot nobody looks at
    lifetime: 30m
    keys: [tpm]
    boot: none
    pcrs: "sha256:7"
    logs: []
END

# ---- users -----------------------------------------------------------------------------------------
expect 1 'exporter: expected the user that attestd-spiffed runs as, found root' "$bin/attestd-keyd" --config "$dir/attestd.yaml" --exporter root --check
expect 1 'exporter: .*nobody-such' "$bin/attestd-keyd" --config "$dir/attestd.yaml" --exporter nobody-such --check

# ---- --check: each mistake with file and line -----------------------------------------------------
# wrong PROGRAM BASE SED LINE WORD: BASE changed by SED; the error names LINE and WORD
wrong() {
    sed "$3" "$2" > "$dir/wrong.yaml"
    ! cmp -s "$2" "$dir/wrong.yaml" || job_fail "sed changed nothing: $3"
    expect 1 "wrong.yaml:$4: .*$5" "$bin/$1" --config "$dir/wrong.yaml" --check
}
line_of() { grep -n -m1 -- "$2" "$1" | cut -d: -f1; }
check_configurations() {
    local a=$dir/attestd.yaml i=$dir/issuer.yaml program
    for program in attestd attestd-keyd; do
        wrong $program "$a" '1i colour: blue' 1 'colour.*unknown'
        wrong $program "$a" 's/^state_dir: .*/state_dir: [a, b]/' "$(line_of "$a" ^state_dir)" state_dir
        wrong $program "$a" 's/^run_dir: .*/run_dir: run/' "$(line_of "$a" ^run_dir)" 'run_dir.*absolute'
        wrong $program "$a" '/ca_file/d' "$(line_of "$a" acme)" 'ca_file or ca_sha256'
        wrong $program "$a" "\$a run_dir: /run/twice" '[0-9]+' 'run_dir.*(twice|already|duplicate)'
        wrong $program "$a" 's/tcti: .*/tcti: "usb:1"/' "$(line_of "$a" tcti)" 'tpm.tcti: expected device'
        expect 0 ': ok$' "$bin/$program" --config "$a" --check
        expect 1 'No such file' "$bin/$program" --config "$dir/absent.yaml" --check
        expect 2 [uU]sage "$bin/$program" --frobnicate
        expect 0 [uU]sage "$bin/$program" --help
        expect 0 "$program [0-9]" "$bin/$program" --version
    done
    # Two mistakes are two lines.
    sed -e '1i colour: blue' -e 's/^run_dir: .*/run_dir: run/' "$a" > "$dir/wrong.yaml"
    expect 1 'wrong.yaml:1: ' "$bin/attestd" --config "$dir/wrong.yaml" --check

    wrong attest-issuerd "$i" '1i colour: blue' 1 'colour.*unknown'
    wrong attest-issuerd "$i" 's/^ek:.*/ek: 7/; /roots_dir/d' "$(line_of "$i" ^ek:)" ek
    wrong attest-issuerd "$i" 's/lifetime: 30m/lifetime: half-an-hour/' "$(line_of "$i" 30m)" 'lifetime.*half-an-hour'
    wrong attest-issuerd "$i" '/roots_dir/s/: .*/:/' '[0-9]+' roots_dir
    wrong attest-issuerd "$i" 's/name: lab/name: trading/' "$(line_of "$i" 'name: lab')" 'trading'
    wrong attest-issuerd "$i" 's/^trust_domain:.*/&\n&/' 2 'trust_domain.*(twice|already|duplicate)'
    wrong attest-issuerd "$i" 's/"sha256:7"/"sha256:7,3"/' "$(line_of "$i" sha256:7)" 'sha256:7,3'
    expect 2 [uU]sage "$bin/attest-issuerd" --frobnicate
    expect 2 [uU]sage "$bin/attest-issuerd" --config "$i" frobnicate
    expect 0 [uU]sage "$bin/attest-issuerd" --help
    expect 0 'attest-issuerd [0-9]' "$bin/attest-issuerd" --version
}
check_configurations
ok "--check of both configurations: each mistake with file:line; usage, help, version"

# ---- init: once -----------------------------------------------------------------------------------
# Without a CA there is nothing to serve with, and that is said.
expect 1 'init' "$bin/attest-issuerd" --config "$dir/issuer.yaml" --check
expect 0 'hosts pin .*/ca/tls-root.pem' "$bin/attest-issuerd" --config "$dir/issuer.yaml" init
before=$(sum_of "$dir/issuer")
expect 1 'exist' "$bin/attest-issuerd" --config "$dir/issuer.yaml" init
[ "$before" = "$(sum_of "$dir/issuer")" ] || job_fail "the second init changed something"
expect 0 '' "$bin/attest-issuerd" --config "$dir/issuer.yaml" --check
[ -z "$(find "$dir/issuer/ca" -name '*.key' ! -perm 600)" ] || job_fail "a CA key that others may read"
ok "init once; the second is refused and overwrites nothing"

# ---- no daemon: 3 -----------------------------------------------------------------------------------
expect 3 'admin.sock' ctl host list
expect 3 'control.sock' ctl status
job_start_issuer

# ---- policy ----------------------------------------------------------------------------------------
expect 0 '' ctl policy apply -f "$job_vectors/policy.json" --dry-run
[ "$(ctl --json policy list | jq '.policies | length')" = 0 ] || job_fail "a dry run applied a policy"
expect 0 '' ctl policy apply -f "$job_vectors/policy.json"
[ "$(ctl --json policy apply -f "$job_vectors/policy.json" | jq .changed)" = false ] || job_fail "policy apply twice"
jq '.version = 3' "$job_vectors/policy.json" > "$dir/policy3.json"
jq '.version = 2' "$job_vectors/policy.json" > "$dir/policy2.json"
expect 0 '' ctl policy apply -f "$dir/policy3.json"
expect 1 'policy2.json.*version' ctl policy apply -f "$dir/policy2.json"
jq '.pcrs["0"] = ["00"]' "$dir/policy3.json" > "$dir/policy-bad.json"
expect 1 'policy-bad.json.*pcrs' ctl policy apply -f "$dir/policy-bad.json"
jq '. + {colour: "blue"}' "$dir/policy3.json" > "$dir/policy-bad.json"
expect 1 'policy-bad.json.*colour' ctl policy apply -f "$dir/policy-bad.json"
head -c 100 "$dir/policy3.json" > "$dir/policy-bad.json"
expect 1 'policy-bad.json' ctl policy apply -f "$dir/policy-bad.json"
jq '.version = 3 | .pcrs["0"] = [("0" * 64)]' "$job_vectors/policy.json" > "$dir/policy-bad.json"
expect 1 'policy-bad.json.*version' ctl policy apply -f "$dir/policy-bad.json"
[ "$(ctl --json policy show ovmf-guest | jq -c '[.version, .policy.version]')" = '[3,3]' ] || job_fail "policy show"
expect 0 'ovmf-guest +3' ctl policy list
expect 1 'nothing' ctl policy show nothing
ok "policy: dry run, idempotent, rollback and malformed refused"

# ---- tickets and inventory -----------------------------------------------------------------------
# The EK id as a pipeline computes it from the maker's certificate: SHA-256 of the SPKI's DER.
for index in 0x1c0000a 0x1c00016 0x1c00002; do
    if TPM2TOOLS_TCTI=$(cat "$dir/tpm/tcti") tpm2_nvread "$index" -o "$dir/ek.der" > "$dir/tmp/out" 2>&1; then
        openssl x509 -inform DER -in "$dir/ek.der" -noout -pubkey | openssl pkey -pubin -outform DER |
            sha256sum | cut -d' ' -f1 >> "$dir/eks"
    fi
done
ek=$(head -n 1 "$dir/eks")

# host_anew: a host without any state; the configuration names no issuer, the ticket does, and it comes
# as a systemd credential.
sed -e '/^issuer:/,/ca_file/d' -e '/^ticket_file/d' "$dir/attestd.yaml" > "$dir/bare.yaml"
mkdir -p "$dir/credentials"
conf=$dir/bare.yaml
host_start() {
    job_start keyd env "CREDENTIALS_DIRECTORY=$dir/credentials" "$bin/attestd-keyd" --config "$conf"
    job_start attestd env "CREDENTIALS_DIRECTORY=$dir/credentials" "$bin/attestd" --config "$conf"
    wait_for 30 ctl status
}
host_stop() {
    job_stop attestd
    job_stop keyd
}
host_anew() {
    host_stop
    rm -rf "$dir/state"
    host_start
}
enrolment() { ctl --json status | jq -r .enrolment.state; }
enrolled_as() { [ "$(enrolment)" = "$1" ]; }
last_reason() { ctl --json status | jq -r .lastError.reason; }
failed_with() { [ "$(last_reason)" = "$1" ]; }
hosts() { ctl --json host list | jq '.hosts | length'; }

expect 2 'whole number' ctl ticket create --uses two
expect 1 'uses' ctl ticket create --uses 0
expect 1 'lifetime' ctl ticket create --for soon
expect 1 '90 days' ctl ticket create --for 91d
expect 1 'ek: expected 64' ctl ticket create --ek abc
expect 1 'host: expected' ctl ticket create --host 'a b'

ctl ticket create --for 1s --out "$dir/credentials/attestd.ticket" > /dev/null
[ "$(stat -c %a "$dir/credentials/attestd.ticket")" = 600 ] || job_fail "mode of a ticket file"
sleep 1.1
host_anew
wait_for 30 failed_with ticketInvalid
[ "$(hosts)" = 0 ] || job_fail "an expired ticket made a host"
ok "an expired ticket is refused"

ctl ticket create --ek "$(printf '%064d' 7)" --out "$dir/credentials/attestd.ticket" > /dev/null
host_anew
wait_for 30 failed_with ticketInvalid
[ "$(hosts)" = 0 ] || job_fail "another EK's ticket made a host"
expect 0 'refused.*ticketInvalid' ctl audit list
ok "a ticket for another EK is refused"

ctl --json ticket create --ek "$ek" --host pipeline --for 10m > "$dir/tmp/ticket"
jq -e .expires "$dir/tmp/ticket" > /dev/null
jq -c .ticket "$dir/tmp/ticket" > "$dir/credentials/attestd.ticket"
host_anew
wait_for 30 enrolled_as enrolled
[ "$(ctl --json status | jq -r .enrolment.ekId)" = "$ek" ] || job_fail "EK id is not what openssl makes of the EK certificate"
[ "$(ctl --json host list | jq -c '.hosts[] | [.state, .label]')" = '["approved","pipeline"]' ] || job_fail "host list"
ok "a ticket with --ek: approved at once; the issuer comes from the ticket alone (systemd credential)"

expect 0 '' ctl host evict "$ek"
[ "$(hosts)" = 0 ] || job_fail "evicted, yet listed"
host_anew
wait_for 30 failed_with ticketInvalid
[ "$(hosts)" = 0 ] || job_fail "a used ticket made a host"
ok "a used ticket is refused"

printf 'ek,label,labels\n%s,web-17,zone=trading;rack=7\n' "$ek" > "$dir/hosts.csv"
printf 'ek,label,labels\n%s,web-17,zone\n' "$ek" > "$dir/bad.csv"
expect 1 'bad.csv:2: labels' ctl host import "$dir/bad.csv"
printf 'ek,label,labels\n%s,web-17,\nabc,x,\n' "$ek" > "$dir/bad.csv"
expect 1 'bad.csv:3: ek' ctl host import "$dir/bad.csv"
printf 'serial\n' > "$dir/bad.csv"
expect 1 'bad.csv:1: .*header' ctl host import "$dir/bad.csv"
[ "$(hosts)" = 0 ] || job_fail "a wrong CSV file was applied in part"
expect 0 "$ek" ctl host import "$dir/hosts.csv" --dry-run
[ "$(hosts)" = 0 ] || job_fail "a dry run imported a host"
expect 0 "$ek" ctl host import "$dir/hosts.csv"
[ "$(ctl --json host import "$dir/hosts.csv" | jq -c '[.added, .changed, .unchanged]')" = '[[],[],1]' ] || job_fail "import twice"
ctl ticket create --uses 5 --out "$dir/ticket.json" > /dev/null
rm "$dir/credentials/attestd.ticket"
# Now as a file, with the issuer pinned by its root's digest.
sed "s|ca_file: .*|ca_sha256: $(openssl x509 -in "$dir/issuer/ca/tls-root.pem" -outform DER | sha256sum | cut -d' ' -f1)|" \
    "$dir/attestd.yaml" > "$dir/pinned.yaml"
conf=$dir/pinned.yaml
host_anew
wait_for 30 enrolled_as enrolled
[ "$(ctl --json host show web-17 | jq -c '[.state, .labels.zone, .id]')" = "[\"approved\",\"trading\",\"$ek\"]" ] ||
    job_fail "host show: $(ctl --json host show web-17)"
ok "CSV import: wrong lines named, twice is no change, the host enrols without approval; ca_sha256"

# ---- entries --------------------------------------------------------------------------------------
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - name: rebalancer
    owner: trading-platform@bank.example
    hosts: [ "label:zone=trading" ]
    workload:
      uid: 1001
    key: tpm
    profile: trading
  - name: notebook
    owner: lab@bank.example
    hosts: [ "ek:$ek" ]
    workload:
      - uid: 1002
      - unit: notebook.service
    key: tpm
    profile: lab
END
entries() { ctl --json entry list | jq -r '.entries[].name' | sort | tr '\n' ' '; }
[ "$(ctl --json entry apply -f "$dir/agents.yaml" --dry-run | jq -c '[.added, .dryRun]')" = '[["rebalancer","notebook"],true]' ] ||
    job_fail "dry run"
[ "$(entries)" = "" ] || job_fail "a dry run applied entries"
# wrong_entry SED LINE WORD
wrong_entry() {
    sed "$1" "$dir/agents.yaml" > "$dir/wrong-agents.yaml"
    expect 1 "wrong-agents.yaml(:$2)?: .*$3" ctl entry apply -f "$dir/wrong-agents.yaml"
    [ -z "$2" ] || grep -q "wrong-agents.yaml:$2: " "$dir/tmp/out" || { cat "$dir/tmp/out"; job_fail "no line $2"; }
    [ "$(entries)" = "" ] || job_fail "half applied"
}
wrong_entry 's/^    key: tpm/    keys: tpm/' 8 keys
wrong_entry 's/uid: 1001/uid: minus-one/' 7 uid
wrong_entry 's/name: notebook/name: rebalancer/' 10 rebalancer
wrong_entry 's/label:zone=trading/zone=trading/' 5 hosts
wrong_entry '/profile: lab/d' 10 profile
wrong_entry 's/name: rebalancer/name: Re Balancer/' 3 name
expect 1 'bank.example' ctl entry apply -f <(sed 's/bank.example$/other.example/' "$dir/agents.yaml")
sed 's/profile: lab/profile: nowhere/' "$dir/agents.yaml" > "$dir/wrong-agents.yaml"
expect 1 'nowhere' ctl entry apply -f "$dir/wrong-agents.yaml"
[ "$(entries)" = "" ] || job_fail "half applied"
expect 0 rebalancer ctl entry apply -f "$dir/agents.yaml"
[ "$(ctl --json entry apply -f "$dir/agents.yaml" | jq -c '[.added, .changed, (.unchanged | length)]')" = '[[],[],2]' ] ||
    job_fail "apply twice"
sed 's/trading-platform/desk/' "$dir/agents.yaml" > "$dir/agents2.yaml"
[ "$(ctl --json entry apply -f "$dir/agents2.yaml" --dry-run | jq -r '.changed[0] | .from.owner, .to.owner' | cut -d@ -f1 | tr '\n' ' ')" = "trading-platform desk " ] ||
    job_fail "the dry run does not show the difference"
[ "$(ctl --json entry show rebalancer | jq -r '.selectedHosts[].label')" = web-17 ] || job_fail "entry show"
wait_for 60 job_settled rebalancer
wait_for 60 job_settled notebook
job_check_chain rebalancer
job_check_chain notebook
ok "entries: dry run, wrong lines named and nothing half applied, idempotent; both agents have certificates"

[ "$(ctl --json cert show notebook | jq -r .boot)" = none ] || job_fail "cert show does not say boot: none"
[ "$(ctl --json agent show notebook | jq -r .boot)" = none ] || job_fail "agent show does not say boot: none"
expect 0 'notebook .* none ' ctl status
expect 0 'rebalancer .* ovmf-guest ' ctl status
ok "a profile that looks at no boot says so: certificate and status"

# ---- every command, for people and as JSON -------------------------------------------------------
serial=$(job_serial rebalancer)
both() { # both WORD COMMAND...: WORD is in the table; the JSON is JSON
    local word=$1
    shift
    expect 0 "$word" ctl "$@"
    ctl --json "$@" > "$dir/tmp/json" || job_fail "--json $*"
    jq -e 'type == "object"' "$dir/tmp/json" > /dev/null || { cat "$dir/tmp/json"; job_fail "--json $*: no object"; }
}
both enrolled status
both rebalancer agent list
both valid agent show rebalancer
both spiffe://bank.example/agent/rebalancer cert show rebalancer
both EV_SEPARATOR eventlog show "$dir/firmware.log"
both web-17 host list
both web-17 host list --state approved
both "$ek" host show "$ek"
both "$ek" host show "${ek:0:8}"
both notebook entry list
both notebook entry show notebook
both ovmf-guest policy list
both ovmf-guest policy show ovmf-guest
both "$serial" cert list
both "$serial" cert list --name rebalancer --status issued --kind agent --host web-17 --limit 5
both workload ca status
both bank.example issuer status
both granted audit list --limit 200
both issue audit list --kind issue --after 1 --limit 5 --subject spiffe://bank.example/agent/rebalancer
both quoteNonce audit why "$serial"
both ticketInvalid audit why "$ek"
both rebalancer audit why rebalancer
both records audit verify
expect 1 'state: expected' ctl host list --state odd
expect 1 'hostUnknown' ctl host show "$(printf '%064d' 9)"
expect 2 'unexpected' ctl audit verify --sinze 3
expect 2 'timeout' ctl --timeout soon status
expect 2 'timeout' ctl --timeout 0 status
got=0
ctl --json doctor > "$dir/tmp/doctor" || got=$?
jq -e '[.checks[].name] | index("tpm") and index("issuer") and index("ekCertificate") and index("firmwareLog")' "$dir/tmp/doctor" > /dev/null
want=$(jq 'if [.checks[] | select((.ok or .optional) | not)] == [] then 0 else 1 end' "$dir/tmp/doctor")
[ "$got" = "$want" ] || job_fail "doctor: exit $got, checks say $want"
jq -e '[.checks[] | select((.ok | not) and ((.mend // "") == ""))] == []' "$dir/tmp/doctor" > /dev/null ||
    job_fail "doctor names something missing without saying how to mend it: $(cat "$dir/tmp/doctor")"
ctl doctor > "$dir/tmp/out" || [ "$want" = 1 ]
grep -q '^ok .*ekCertificate' "$dir/tmp/out" || job_fail "doctor: $(cat "$dir/tmp/out")"
ok "every list and show, for people and as JSON; doctor"

ctl cert show rebalancer --pem > "$dir/chain.pem"
openssl verify -x509_strict -CAfile "$dir/issuer/ca/bundle.pem" -untrusted "$dir/chain.pem" "$dir/chain.pem" > /dev/null
expect 1 'no agent|nothing|nobody' ctl cert show nobody
both "$(job_host_id)" host approve web-17
both "$(job_host_id)" host approve web-17 --labels 'zone=trading;rack=8'
[ "$(ctl --json host show web-17 | jq -r .labels.rack)" = 8 ] || job_fail "host approve --labels"
expect 2 'labels' ctl host approve web-17 --labels 'zone'
expect 1 'labels' ctl host approve web-17 --labels 'zone=a b'
ok "cert show --pem satisfies openssl; host approve"

# ---- an operator's quote --------------------------------------------------------------------------
nonce=00112233445566778899aabbccddeeff
q=$dir/quote
roots=(--ak-roots "$dir/issuer/ca/ak-roots.pem" --ek-roots "$dir/tpm/ek-roots.pem")
expect 0 "^tpm2_checkquote -u $q/ak.pem" ctl quote --nonce $nonce --out "$q"
TPM2TOOLS_TCTI=none bash -c "$(cat "$dir/tmp/out")" > /dev/null || job_fail "the printed tpm2_checkquote line"
expect 0 'quoteNonce' ctl verify "$q" --nonce $nonce "${roots[@]}"
# A PEM of somebody else's making must not have whoever verifies it asked for a pass phrase.
cp -r "$q" "$dir/asks"
sed -i '1a Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n' "$dir/asks/ak.pem"
expect 1 'akCertificate.*ak.pem is not the key of ak.pub' setsid "$bin/attestctl" verify "$dir/asks" --nonce $nonce "${roots[@]}"
! grep -qi 'pass phrase' "$dir/tmp/out" || job_fail "verify asks for a pass phrase"
expect 1 'bootPolicy: .*does not cover' ctl verify "$q" --nonce $nonce "${roots[@]}" --policy "$job_vectors/policy.json"
expect 0 '' ctl quote --nonce $nonce --pcrs "$job_pcrs" --out "$q"
expect 0 'bootPolicy' ctl verify "$q" --nonce $nonce "${roots[@]}" --policy "$job_vectors/policy.json"
jq '.pcrs["7"] = [("a" * 64)] | .version = 9' "$job_vectors/policy.json" > "$dir/other-policy.json"
expect 1 'bootPolicy: ' ctl verify "$q" --nonce $nonce "${roots[@]}" --policy "$dir/other-policy.json"
expect 1 'quoteNonce: ' ctl verify "$q" --nonce ${nonce}00 "${roots[@]}"
expect 1 'nonce' ctl verify "$q" --nonce xyz "${roots[@]}"
expect 2 'nonce is missing' ctl verify "$q" "${roots[@]}"
# The EK roots of another maker, and another issuer's attestation root.
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$dir/tmp/key" -subj /CN=other -days 2 -out "$dir/other.pem" 2> /dev/null
expect 1 'ekChain: ' ctl verify "$q" --nonce $nonce --ak-roots "$dir/issuer/ca/ak-roots.pem" --ek-roots "$dir/other.pem"
expect 1 'akCertificate: ' ctl verify "$q" --nonce $nonce --ak-roots "$dir/other.pem" --ek-roots "$dir/tpm/ek-roots.pem"
flip() { # flip FILE OFFSET
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059 # the format is the byte
    printf "$(printf '\\%03o' $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
flips() { # flips DIR NONCE WHERE...: in each file the byte at each quarter of its length
    local from=$1 nonce=$2 file size at
    shift 2
    rm -rf "$dir/flip"
    cp -r "$from" "$dir/flip"
    for file in "$dir"/flip/*; do
        size=$(stat -c %s "$file")
        for at in "$@"; do
            flip "$file" $(((size - 1) * at / 4))
            # Each refusal has a reason word before the message.
            expect 1 '^attestctl: [a-z][A-Za-z]+: ' ctl verify "$dir/flip" --nonce "$nonce" "${roots[@]}"
            flip "$file" $(((size - 1) * at / 4))
        done
        mv "$file" "$dir/tmp/away"
        # What is not there is refused, too; only what is optional in the statement may be absent.
        case ${file##*/} in
        srk.pub | parent.pub) ;;
        *) expect 1 "^attestctl: " ctl verify "$dir/flip" --nonce "$nonce" "${roots[@]}" ;;
        esac
        mv "$dir/tmp/away" "$file"
    done
    # Each byte was put back: this is still what was accepted before.
    expect 0 'quoteNonce' ctl verify "$dir/flip" --nonce "$nonce" "${roots[@]}"
}
flips "$q" $nonce 0 2 4
# A second quote into the same folder, with fewer PCRs: nothing of the first one is left to mislead.
expect 0 '' ctl quote --nonce $nonce --pcrs sha256:0,7 --out "$q"
expect 0 'quoteNonce' ctl verify "$q" --nonce $nonce "${roots[@]}"
expect 1 'nonce' ctl quote --nonce 0011 --out "$dir/q2"
expect 1 'pcrs' ctl quote --nonce $nonce --pcrs sha1:0 --out "$dir/q2"
expect 1 'Not a directory|exists|not a folder' ctl quote --nonce $nonce --out "$dir/hosts.csv"
expect 1 'No such file' ctl verify "$dir/q2" --nonce $nonce "${roots[@]}"
ctl --json verify "$q" --nonce $nonce "${roots[@]}" | jq -e '.checks | length > 5' > /dev/null
ok "quote: tpm2_checkquote and verify accept it; wrong nonce, roots, policy and every flipped file refused"

# ---- the evidence of an issuance ---------------------------------------------------------------------
cp -rL "$dir/state/host/evidence/rebalancer" "$dir/evidence"
cp -L "$dir/state/host/agents/notebook/chain.pem" "$dir/notebook.pem"
e=$dir/evidence
expect 0 'csrKey' ctl verify "$e" --nonce "$(cat "$e/nonce")" "${roots[@]}" --cert "$dir/chain.pem" \
    --id spiffe://bank.example/agent/rebalancer
expect 1 'csrKey: ' ctl verify "$e" --nonce "$(cat "$e/nonce")" "${roots[@]}" --cert "$dir/notebook.pem"
expect 1 'evidenceMismatch: ' ctl verify "$e" --nonce "$(cat "$e/nonce")" "${roots[@]}" --id spiffe://bank.example/agent/other
expect 1 'quoteNonce: ' ctl verify "$e" --nonce $nonce "${roots[@]}"
flips "$e" "$(cat "$e/nonce")" 2
expect 1 "holds an agent's evidence" ctl quote --nonce $nonce --out "$e"
ok "stored evidence: own certificate and name accepted, another's refused"

# ---- freeze -----------------------------------------------------------------------------------------
ctl agent freeze rebalancer > /dev/null
# At once: refused by the request itself, which was not even handed to a worker.
asked=$(grep -c agent.rotateAsked "$dir/log/attestd.log" || true)
expect 1 'agent rebalancer is frozen' ctl agent rotate rebalancer
[ "$(grep -c agent.rotateAsked "$dir/log/attestd.log" || true)" = "$asked" ] || job_fail "a frozen agent's rotation was handed to a worker"
expect 0 'frozen' ctl agent show rebalancer
expect 0 'rebalancer +frozen' ctl status
both rebalancer agent thaw rebalancer
both rebalancer agent rotate rebalancer
[ "$(job_serial rebalancer)" != "$serial" ] || job_fail "rotated, yet the same serial"
expect 1 'no agent' ctl agent freeze nobody
expect 1 'no agent' ctl agent thaw nobody
ok "freeze refuses at once, thaw ends it, rotate gives a new serial"

# ---- another user: 4 ----------------------------------------------------------------------------------
chmod 711 "$dir" "$dir/run" "$dir/issuer-run"
as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$dir/attestctl" --socket "$dir/run/control.sock" --issuer "$dir/issuer-run/admin.sock" "$@"; }
cp "$bin/attestctl" "$dir/attestctl"
chmod 755 "$dir/attestctl"
expect 4 'control.sock' as_nobody status
expect 4 'admin.sock' as_nobody host list
# Even where the file's mode would let anybody in, the daemon looks at who it is.
chmod 666 "$dir/run/control.sock" "$dir/issuer-run/admin.sock"
expect 4 '' as_nobody status
expect 4 '' as_nobody host ban web-17 --reason no
chmod 600 "$dir/run/control.sock" "$dir/issuer-run/admin.sock"
ok "another user is not permitted: exit 4"

# ---- SIGHUP --------------------------------------------------------------------------------------------
cp "$dir/issuer.yaml" "$dir/issuer.good"
sed -i 's/name: lab/name: laboratory/; s/lifetime: 30m/lifetime: 20m/' "$dir/issuer.yaml"
profile_is() { ctl --json issuer status | jq -e --arg n "$1" '.profiles | map(.name) | index($n)' > /dev/null; }
kill -HUP "$(job_pid issuerd)"
wait_for 10 profile_is laboratory
echo 'colour: blue' >> "$dir/issuer.yaml"
kill -HUP "$(job_pid issuerd)"
complained() { grep -q "issuer.yaml:[0-9]*: .*colour" "$dir/log/issuerd.log"; }
wait_for 10 complained
profile_is laboratory || job_fail "a wrong configuration took the good one away"
cp "$dir/issuer.good" "$dir/issuer.yaml"
kill -HUP "$(job_pid issuerd)"
wait_for 10 profile_is lab
serial=$(job_serial rebalancer)
echo 'log_level: debug' >> "$conf"
kill -HUP "$(job_pid attestd)"
reloaded() { grep -q 'event=conf.reloaded' "$dir/log/attestd.log"; }
wait_for 10 reloaded
[ "$(job_serial rebalancer)" = "$serial" ] || job_fail "a reload changed a certificate"
ctl agent rotate rebalancer > /dev/null
sed -i '$a colour: blue' "$conf" # as editors do it: another file under that name
kill -HUP "$(job_pid attestd)"
host_complained() { grep -q "pinned.yaml:[0-9]*: .*colour" "$dir/log/attestd.log"; }
wait_for 10 host_complained
ctl agent rotate rebalancer > /dev/null
sed -i '/colour/d' "$conf"
kill -HUP "$(job_pid attestd)"
twice() { [ "$(grep -c 'event=conf.reloaded' "$dir/log/attestd.log")" -ge 2 ]; }
wait_for 10 twice
# What the sandbox has closed for good is refused, by both, with the word that helps.
elsewhere=$(mktemp -d "${TMPDIR:-/tmp}/att-elsewhere.XXXXXX") # not below a folder that they may read
cp "$dir/issuer/ca/tls-root.pem" "$elsewhere/root.pem"
cp "$conf" "$dir/pinned.good"
# refused_reload PROCESS PATTERN SED
refused_reload() {
    sed -i "$3" "$conf"
    ! cmp -s "$conf" "$dir/pinned.good" || job_fail "the test changed nothing: $3"
    kill -HUP "$(job_pid "$1")"
    said() { grep -qE "$2.*restart" "$dir/log/$1.log"; }
    wait_for 10 said "$1" "$2"
    cp "$dir/pinned.good" "$conf"
}
refused_reload attestd 'conf.notReloaded.*logs.firmware: .*elsewhere' "s|firmware: .*|firmware: $elsewhere/log|"
refused_reload attestd 'conf.notReloaded.*ticket_file: .*elsewhere' "/^ticket_file/d; \$a ticket_file: $elsewhere/ticket.json"
refused_reload keyd 'reload-refused.*ticket_file: .*elsewhere' "/^ticket_file/d; \$a ticket_file: $elsewhere/ticket.json"
refused_reload keyd 'reload-refused.*tpm.tcti' 's|tcti: .*|tcti: "device:/dev/tpm7"|'
rm -r "$elsewhere"
kill -HUP "$(job_pid keyd)"
keyd_reloaded() { grep -q 'keyd.reloaded' "$dir/log/keyd.log"; }
wait_for 10 keyd_reloaded
ctl agent rotate rebalancer > /dev/null
ok "SIGHUP: both go on serving, a wrong file is reported and the old one stays"

# ---- an entry is deleted ---------------------------------------------------------------------------------
[ -s "$dir/state/host/agents/notebook/chain.pem" ] || job_fail "notebook has no certificate to take away"
both_deleted=$(ctl --json entry delete notebook | jq -c '[.name, .revoked]')
[ "$both_deleted" = '["notebook",1]' ] || job_fail "entry delete: $both_deleted"
gone() { [ ! -e "$dir/state/host/agents/notebook" ] && ! ctl agent show notebook; }
wait_for 30 gone
expect 1 'notebook' ctl entry delete notebook
expect 1 'notebook' ctl agent show notebook
[ "$(ctl --json cert list --name notebook --status revoked | jq '.certificates | length')" = 1 ] || job_fail "not revoked"
ok "entry delete: revoked at the issuer, removed on the host"

# ---- ban ---------------------------------------------------------------------------------------------------
expect 2 'reason is missing' ctl host ban web-17
both web-17 host list
revoked=$(ctl --json host ban web-17 --reason 'stolen laptop' | jq .revoked)
[ "$revoked" -ge 1 ] || job_fail "a ban revoked nothing"
expect 1 'hostBanned' ctl agent rotate rebalancer
banned() { ctl --json agent show rebalancer | jq -e '.lastError.reason == "hostBanned"' > /dev/null; }
wait_for 20 banned
expect 0 'hostBanned' ctl status
expect 0 'hostBanned' ctl audit why web-17
expect 0 'stolen laptop' ctl audit why "$ek"
expect 1 'hostBanned' ctl host evict web-17
expect 1 'hostBanned' ctl host import "$dir/hosts.csv"
[ "$(ctl --json host show web-17 | jq -c '[.state, .reason]')" = '["banned","stolen laptop"]' ] || job_fail "host show of a banned one"
both banned host list --state banned
# A new account of the same TPM fares no better.
host_anew
wait_for 30 failed_with hostBanned
expect 0 hostBanned ctl status
ok "ban: renewals and a new enrolment refused, hostBanned in status and audit"

both approved host approve web-17
both "$ek" host rebind web-17
host_anew
wait_for 60 job_serial rebalancer
ok "approve and rebind: the host enrols again"

# ---- backup, restore, a new TLS certificate: as docs/OPERATIONS.md says --------------------------------------
db=$(cd "$dir/issuer" && ls -- *.db)
[ "$db" = issuer.db ] || job_fail "databases: $db"
mkdir "$dir/backup"
cp "$dir/issuer/audit.head" "$dir/issuer/audit.checkpoint" "$dir/backup/"
sqlite3 "$dir/issuer/issuer.db" ".backup '$dir/backup/issuer.db'"
view_of_host() { ctl --json status | jq .enrolment.viewVersion; }
view_of_issuer() { ctl --json issuer status | jq .viewVersion; }
views_agree() { [ "$(view_of_host)" = "$(view_of_issuer)" ]; }
ctl host approve web-17 > /dev/null
ctl host approve web-17 --labels 'zone=lost' > /dev/null
wait_for 20 views_agree
job_stop issuerd
cp "$dir/backup/audit.head" "$dir/backup/issuer.db" "$dir/issuer/"
rm -f "$dir"/issuer/issuer.db-wal "$dir"/issuer/issuer.db-shm
expect 1 logRolledBack timeout 60 "$bin/attest-issuerd" --config "$dir/issuer.yaml" # others may hold what came after
mkdir "$dir/issuer/log.1"
mv "$dir"/issuer/audit-log "$dir"/issuer/audit.checkpoint "$dir"/issuer/ca/log.* "$dir/issuer/log.1/"
leaf=$(openssl x509 -in "$dir/issuer/ca/tls.crt" -noout -serial)
rm "$dir/issuer/ca/tls.crt" "$dir/issuer/ca/tls.key"
job_start_issuer
expect 0 '' ctl audit verify
[ "$(ctl --json host show web-17 | jq -r .labels.zone)" = trading ] || job_fail "the backup is not what runs"
[ "$(openssl x509 -in "$dir/issuer/ca/tls.crt" -noout -serial)" != "$leaf" ] || job_fail "the TLS certificate is still the old one"
# A host that has seen a later view says so rather than wait in silence; so does the issuer.
wait_for 30 failed_with hostViewVersion
wait_for 30 grep -q 'event=view.older' "$dir/log/issuerd.log" || job_fail "the issuer does not say that a host has a later view"
seen=$(view_of_host) # as soon as the issuer is past it, the host follows each step at once
until [ "$(view_of_issuer)" -gt "$seen" ]; do
    ctl host approve web-17 > /dev/null
done
wait_for 30 views_agree
ctl agent rotate rebalancer > /dev/null
job_check_chain rebalancer
ok "restored from a backup with a new TLS certificate: the host follows once the view is newer"

# ---- a boot policy from a log: as docs/OPERATIONS.md says
ctl --json eventlog show "$dir/firmware.log" | jq '{name: "web", version: 1,
    bank: "sha256", pcrs: (.pcrs.sha256 | with_entries(.value = [.value])), logs: ["firmware"]}' > "$dir/web.json"
expect 0 web ctl policy apply -f "$dir/web.json" --dry-run

# Every reason word has its line in docs/OPERATIONS.md.
for word in $(sed -n 's/^ *X([A-Z_]*, "\([A-Za-z]*\)".*/\1/p' "$ATT_SOURCE_DIR/provision/verify/reason.h"); do
    grep -q "^|.*\`$word\`.*|.*|" "$ATT_SOURCE_DIR/docs/OPERATIONS.md" || job_fail "docs/OPERATIONS.md has no line for $word"
done
ok "docs/OPERATIONS.md knows every reason word"

# ---- the audit log, tampered with in copies --------------------------------------------------------------------
host_stop
tampered() { # tampered NAME REASON SQL...
    local name=$1 reason=$2 copy=$dir/copy-$1 got=0
    shift 2
    mkdir -p "$copy/run"
    cp -r "$dir/issuer" "$copy/state"
    rm -f "$copy"/state/*.db*
    sqlite3 "$dir/issuer/$db" ".backup '$copy/state/$db'"
    sqlite3 "$copy/state/$db" "$@" "SELECT 'changed', total_changes()" > "$dir/tmp/sql"
    sed -e "s|^state_dir: .*|state_dir: $copy/state|" -e "s|^store: .*|store: \"$copy/state/$db\"|" -e "s|^run_dir: .*|run_dir: $copy/run|" \
        -e "s|^listen: .*|listen: \"127.0.0.1:0\"|" "$dir/issuer.yaml" > "$copy/issuer.yaml"
    if [ "$reason" = logRolledBack ]; then
        expect 1 "$reason" timeout 60 "$bin/attest-issuerd" --config "$copy/issuer.yaml"
        return 0
    fi
    job_start copy "$bin/attest-issuerd" --config "$copy/issuer.yaml"
    wait_for 20 "$bin/attestctl" --issuer "$copy/run/admin.sock" issuer status
    "$bin/attestctl" --issuer "$copy/run/admin.sock" audit verify > "$dir/tmp/out" 2>&1 || got=$?
    job_stop copy
    if [ "$reason" = none ]; then
        [ "$got" = 0 ] || { cat "$dir/tmp/out"; job_fail "an untouched copy: $got"; }
    else
        [ "$got" = 1 ] && grep -qE "$reason" "$dir/tmp/out" || { cat "$dir/tmp/sql" "$dir/tmp/out"; job_fail "$name: $got"; }
    fi
}
expect 0 '' ctl audit verify
# What was not published yet cannot be missed: a checkpoint comes within seconds of a record.
published() { [ "$(sed -n 2p "$dir/issuer/audit.checkpoint")" = "$(sqlite3 "$dir/issuer/$db" 'SELECT max(seq) FROM audit')" ]; }
wait_for 30 published
tampered whole none 'SELECT 1'
tampered edit auditEdited "UPDATE audit SET record = replace(record, 'stolen laptop', 'false alarm') WHERE seq = (SELECT max(seq) FROM audit WHERE record LIKE '%stolen laptop%')"
tampered delete auditMissing 'DELETE FROM audit WHERE seq = 7'
tampered reorder 'auditReordered|auditEdited' 'UPDATE audit SET seq = -1 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = -1'
tampered cut logRolledBack 'DELETE FROM audit WHERE seq > (SELECT max(seq) - 3 FROM audit)'
tampered cutboth logRolledBack 'DELETE FROM audit WHERE seq > (SELECT max(seq) - 3 FROM audit)' \
    'DELETE FROM audit_leaves WHERE seq > (SELECT max(seq) FROM audit)'
ok "audit verify finds what was edited, deleted, reordered, cut in a copy of the database"

! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "commands: all held"
