#!/usr/bin/env bash
# java-spiffe, the SPIFFE project's Java library, with real processes (swtpm, keyd, whod, attestd, issuer, spiffed): X.509
# contexts, X509Source over two rotations, mutual TLS on both ends by its provider, JWT-SVIDs and bundles; who is refused is
# told why by the library, too. Maven fetches it with ATT_LONG=1 (ATT_JAVA_SPIFFE_VERSION for another version than
# pom.xml's); ATT_JAVA_SPIFFE: a folder with its jars and those that it needs.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir and others come from job.sh and clients.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
# shellcheck source=../support/spiffe/clients.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe/clients.sh"
[ -n "${ATT_JAVA_SPIFFE:-}${ATT_LONG:-}" ] || job_skip "Maven fetches the library with ATT_LONG=1 only, or ATT_JAVA_SPIFFE names a folder of jars"
command -v java > /dev/null && command -v javac > /dev/null || job_skip "no JDK (package default-jdk-headless)"
[ -n "${ATT_JAVA_SPIFFE:-}" ] || command -v mvn > /dev/null || job_skip "no Maven (package maven)"
clients_setup
cp -r "$ATT_SOURCE_DIR/tests/support/spiffe/java" "$dir/java"
mkdir "$dir/java/classes"
if [ -n "${ATT_JAVA_SPIFFE:-}" ]; then
    cp -r "$ATT_JAVA_SPIFFE" "$dir/java/lib"
else
    [ -z "${ATT_JAVA_SPIFFE_VERSION:-}" ] || sed -i "s|<version>0\..*</version></dependency>|<version>$ATT_JAVA_SPIFFE_VERSION</version></dependency>|" "$dir/java/pom.xml"
    (cd "$dir/java" && timeout 900 nice mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DoutputDirectory="$dir/java/lib") > "$dir/tmp/mvn" 2>&1 || { tail -n 5 "$dir/tmp/mvn"; job_skip "Maven cannot fetch the library"; }
fi
nice javac -cp "$dir/java/lib/*" -d "$dir/java/classes" "$dir/java/SpiffeClient.java" > "$dir/tmp/javac" 2>&1 ||
    { cat "$dir/tmp/javac"; job_fail "javac"; }
chmod -R a+rX "$dir/java"
version=$(basename "$dir"/java/lib/java-spiffe-core-*.jar .jar)
# Its gRPC (netty) unpacks a library of machine code to a folder that each user may write to.
install -d -m 1777 "$dir/java/tmp"
# shellcheck disable=SC2034 # for clients.sh
client=(java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.io.tmpdir="$dir/java/tmp" -cp "$dir/java/classes:$dir/java/lib/*" SpiffeClient)
status=0
trap 'status=$?; job_stop watch KILL; job_stop serve KILL; set +e; (exit $status); job_cleanup' EXIT
clients_world
clients_refused
must error "*imeout*" $tpm_user refused
ok "X509Source of who is given no key ends by its timeout"
clients_watched 2

# ---- mutual TLS, by the library's security provider ----
client_follow serve $peer serve $domain/agent/alpha
wait_for 60 lines serve 1
at=127.0.0.1:$(grep -m 1 '"port"' "$dir/log/serve.log" | jq -r .port)
last_has() { tail -n 1 "$dir/log/serve.log" | jq -r "$1 // \"\"" | grep -q -- "$2"; }
must OK "" $user call "$at" $domain/agent/peer
[ "$(got .answer)" = "to $(serial_of alpha): a trade" ] && [ "$(got .server)" = "$(serial_of peer)" ] || job_fail "$(cat "$dir/tmp/got")"
for n in 1 2; do # both are rotated; the server goes on
    before=$(serial_of peer)
    ctl agent rotate peer > /dev/null
    ctl agent rotate alpha > /dev/null
    served() { answer $user call "$at" $domain/agent/peer && [ "$(got .server)" != "$(printf %s "$before")" ] && [ "$(got .server)" = "$(serial_of peer)" ]; }
    wait_for 60 served || { cat "$dir/tmp/got"; job_fail "after rotation $n"; }
done
ok "mutual TLS with java-spiffe on both ends, before and after two rotations of both, without a restart"
must error "*agent/peer*" $user call "$at" $domain/agent/other
answer $other call "$at" $domain/agent/peer
[ "$(got .code)" = error ] || { cat "$dir/tmp/got"; job_fail "another agent is served"; }
wait_for 30 last_has .refused 'agent/other'
must OK "" $user call "$at" $domain/agent/peer
ok "a server, and a client, with another SPIFFE ID are refused by the other end"
job_stop serve KILL

clients_tokens
clients_end
echo "java-spiffe ($version, Java $(java -version 2>&1 | sed -n 's/.*version "\([^"]*\)".*/\1/p')): all held"
