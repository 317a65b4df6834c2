#!/usr/bin/env bash
# libattest-client and the examples as an author of an agent has them: the tree installed into a folder, programs built
# from what is there alone (pkg-config, header, signer.proto), against the real stack: signatures verified by openssl, a
# watch over a rotation, each refusal by its status, the daemon away and back, a process that forks.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin, stubs and socket come from job.sh and spiffe.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
for tool in cc pkg-config cmake; do command -v $tool > /dev/null || job_skip "no $tool"; done
spiffe_setup client.py cryptography workload.proto signer.proto health.proto
user=62001 stranger=62003

# ---- installed, and nothing else ----
DESTDIR=$dir/root cmake --install "$bin/.." > "$dir/tmp/install" 2>&1 || { tail -n 5 "$dir/tmp/install"; job_fail "cmake --install"; }
pc=$(find "$dir/root" -name libattest-client.pc)
lib=$(dirname "$(dirname "$pc")")
# As it would lie in the system, seen from outside of it.
pkg() { PKG_CONFIG_SYSROOT_DIR=$dir/root PKG_CONFIG_PATH=$(dirname "$pc") pkg-config "$@" libattest-client; }
prefix=$dir/root$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --variable=prefix libattest-client)
flags=$(pkg --cflags --libs)
[ "$(pkg --modversion)" = "$("$bin/attestctl" --version | awk '{print $NF}')" ] || job_fail "pkg-config's version"
examples=$prefix/share/doc/attestd/examples
[ -f "$prefix/share/man/man3/libattest-client.3" ] || job_fail "no manual"
# shellcheck disable=SC2086,SC2046 # words
cc -std=c11 -Wall -Wextra -Werror -pedantic "$examples/c/sign.c" -o "$dir/sign" $flags $(pkg-config --cflags --libs libcrypto) \
    -Wl,-rpath,"$lib" > "$dir/tmp/cc" 2>&1 || { cat "$dir/tmp/cc"; job_fail "the example in C"; }
if command -v c++ > /dev/null; then
    printf '#include <attest-client.h>\nint main() { return attest_client_new(nullptr) ? 0 : 1; }\n' > "$dir/tmp/a.cc"
    # shellcheck disable=SC2086
    c++ "$dir/tmp/a.cc" -o "$dir/tmp/a" $flags || job_fail "the header in C++"
fi
[ "$(nm -D --defined-only "$lib/libattest-client.so.0" | awk '$2 ~ /[TDB]/ {print $3}' | grep -vc '^attest_client_')" = 0 ] ||
    job_fail "it exports more than its own names"
mkdir "$dir/python"
protoc -I "$prefix/share/attestd/proto" --python_out "$dir/python" --grpc_out "$dir/python" \
    --plugin=protoc-gen-grpc="$(command -v grpc_python_plugin)" signer.proto
cp "$examples/python/sign.py" "$dir/python/"
chmod -R a+rX "$dir/python" "$dir/root" "$dir/sign"
ok "installed into a folder: pkg-config, header, manual, examples; a program in C and the modules for Python are made of these alone"

job_make_tpm
job_write_conf
status=0
trap 'status=$?; for one in watch watch-py holds; do job_stop $one KILL; done; set +e; (exit $status); job_cleanup' EXIT
as_user() { # as_user USER COMMAND…
    local uid=$1
    shift
    PYTHONDONTWRITEBYTECODE=1 timeout 60 env SPIFFE_ENDPOINT_SOCKET="unix://$socket" \
        setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
}
install -d -o $user "$dir/work"
echo "a trade" > "$dir/work/trade"
refused() { # refused STATUS WORDS USER COMMAND…
    local code=$1 words=$2 got=0
    shift 2
    as_user "$@" > "$dir/tmp/out" 2> "$dir/tmp/err" || got=$?
    if [ "$got" != "$code" ] || ! grep -qE "$words" "$dir/tmp/err"; then
        cat "$dir/tmp/err"
        job_fail "$*: status $got, expected $code and \"$words\""
    fi
}
refused 6 '^chain: unreachable: .*api.sock' $user "$dir/sign" "$dir/work/trade"
spiffe_start_all
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: alpha, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: $user}, key: tpm, profile: trading}
END
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
wait_for 60 job_settled alpha

# ---- signatures, by stock tools ----
verified() { # verified WHAT
    openssl x509 -in "$dir/work/trade.chain.pem" -noout -pubkey > "$dir/tmp/pub"
    openssl dgst -sha256 -verify "$dir/tmp/pub" -signature "$dir/work/$1.sig" "$dir/work/trade" > "$dir/tmp/dgst" 2>&1 ||
        { cat "$dir/tmp/dgst"; job_fail "$1"; }
    openssl verify -CAfile "$dir/issuer/ca/bundle.pem" -untrusted "$dir/work/trade.chain.pem" "$dir/work/trade.chain.pem" \
        > "$dir/tmp/verify" 2>&1 || { cat "$dir/tmp/verify"; job_fail "$1: the chain"; }
    rm "$dir/work/trade.chain.pem"
}
as_c() { as_user $user "$dir/sign" "$dir/work/trade" > "$dir/work/c.sig" 2> "$dir/tmp/err"; }
wait_for 30 as_c
verified c
as_user $user /usr/bin/python3 "$dir/python/sign.py" "$dir/work/trade" > "$dir/work/python.sig"
verified python
ok "C and Python: a signature by the TPM's key over a file, verified by openssl with the chain that came along"

# ---- refusals ----
refused 2 '^chain: denied: no agent.s entry fits this process .*\(notAssigned\)' $stranger "$dir/sign" "$dir/work/trade"
refused 1 '^PERMISSION_DENIED: ' $stranger /usr/bin/python3 "$dir/python/sign.py" "$dir/work/trade"
refused 64 '^usage' $user "$dir/sign"
refused 1 'nothing: No such file' $user "$dir/sign" "$dir/work/nothing"
refused 1 '^chain: invalid: .*expected a path.*tcp://127.0.0.1:1' $user env SPIFFE_ENDPOINT_SOCKET=tcp://127.0.0.1:1 "$dir/sign" "$dir/work/trade"
ctl agent freeze alpha > /dev/null
refused 2 '^(chain|sign): denied: .*\(frozen\)' $user "$dir/sign" "$dir/work/trade"
ctl agent thaw alpha > /dev/null
cat > "$dir/tmp/calls.c" << 'END'
#include <attest-client.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
/* Calls the example does not make: a line each; then one after each line of standard input, on the same client. */
int main(void)
{
    struct attest_client *client = attest_client_new(NULL);
    uint8_t digest[32] = {1}, sig[ATTEST_CLIENT_SIGNATURE_MAX];
    char line[16];
    size_t len = sizeof sig;
    int status = attest_client_sign(client, ATTEST_CLIENT_RSA_PSS, digest, 32, NULL, sig, &len);
    printf("rsa %s\n", attest_client_status_name(status));
    len = sizeof sig;
    status = attest_client_sign(client, ATTEST_CLIENT_ECDSA, digest, 32, "0123456789abcdef0123456789abcdef", sig, &len);
    printf("key %s %s\n", attest_client_status_name(status), len == sizeof sig ? "untouched" : "written");
    len = sizeof sig;
    status = attest_client_sign(client, ATTEST_CLIENT_ECDSA, digest, 32, NULL, sig, &len);
    printf("parent %s\n", attest_client_status_name(status));
    fflush(stdout);
    if (fork() == 0) {
        len = sizeof sig;
        status = attest_client_sign(client, ATTEST_CLIENT_ECDSA, digest, 32, NULL, sig, &len);
        printf("child %s\n", attest_client_status_name(status));
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    while (fgets(line, sizeof line, stdin)) {
        len = sizeof sig;
        status = attest_client_sign(client, ATTEST_CLIENT_ECDSA, digest, 32, NULL, sig, &len);
        printf("again %s\n", attest_client_status_name(status));
        fflush(stdout);
    }
    attest_client_free(client);
    return 0;
}
END
# shellcheck disable=SC2086
cc -D_GNU_SOURCE "$dir/tmp/calls.c" -o "$dir/calls" $flags -Wl,-rpath,"$lib"
chmod a+rx "$dir/calls"
mkfifo "$dir/tmp/lines"
sleep 600 > "$dir/tmp/lines" &
echo $! > "$dir/holds.pid"
disown $!
SPIFFE_ENDPOINT_SOCKET=unix://$socket setpriv --reuid $user --regid $user --clear-groups "$dir/calls" \
    < "$dir/tmp/lines" > "$dir/log/calls.log" 2>&1 &
echo $! > "$dir/calls.pid"
disown $!
said() { [ "$(tail -n 1 "$dir/log/calls.log")" = "$1" ] && [ "$(wc -l < "$dir/log/calls.log")" = "$2" ]; }
wait_for 60 said "child ok" 4
[ "$(head -n 3 "$dir/log/calls.log" | tr '\n' ';')" = "rsa wrong key;key not found untouched;parent ok;" ] || { cat "$dir/log/calls.log"; job_fail "calls"; }
ok "nobody's agent, frozen, a socket that is none, another algorithm, an unknown key: each its status; a child signs on its own connection"

# ---- rotation, and spiffed that goes and comes ----
job_start watch env SPIFFE_ENDPOINT_SOCKET="unix://$socket" setpriv --reuid $user --regid $user --clear-groups "$dir/sign" --watch
job_start watch-py env PYTHONDONTWRITEBYTECODE=1 SPIFFE_ENDPOINT_SOCKET="unix://$socket" setpriv --reuid $user --regid $user --clear-groups \
    /usr/bin/python3 "$dir/python/sign.py" --watch
seen() { [ "$(grep -c "^spiffe://bank.example/agent/alpha key .* in tpm until " "$dir/log/$1.log")" = "$2" ]; }
wait_for 30 seen watch 1
wait_for 30 seen watch-py 1
ctl agent rotate alpha > /dev/null
wait_for 60 seen watch 2
wait_for 30 seen watch-py 2
[ "$(awk '{print $3}' "$dir/log/watch.log" | sort -u | wc -l)" = 2 ] || { cat "$dir/log/watch.log"; job_fail "the same key twice"; }
job_stop spiffed
over() { ! job_alive watch && grep -q '^watch: ended: ' "$dir/log/watch.log"; }
wait_for 30 over || { cat "$dir/log/watch.log"; job_fail "a watch whose daemon ended"; }
echo > "$dir/tmp/lines"
wait_for 30 said "again unreachable" 5
job_start_spiffed
listens() { [ "$(grep -c ' event=spiffed.ready ' "$dir/log/spiffed.log")" = 2 ]; } # the socket is there a moment before
wait_for 30 listens
echo > "$dir/tmp/lines"
wait_for 30 said "again ok" 6
ok "a watch is told each rotation in C and Python, and its daemon's end; a client whose daemon is back signs on"
fault=$(grep -lE 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || true)
[ -z "$fault" ] || job_fail "sanitizer: $fault"
echo "libattest-client: all held"
