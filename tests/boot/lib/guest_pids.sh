# shellcheck shell=bash
# shellcheck disable=SC2154,SC2016 # from tests/boot/guest; what stands in single quotes is for the guest's shell
# tests/boot/guest: a pid that is used again between connect and check, on Debian 12's kernel, which has no SO_PEERPIDFD,
# with the daemons as packaged. pid_reuse.py says who does what. guest has its functions.

guest_pids_put() {
    local file
    for file in "$ATT_ROOT"/tests/boot/lib/pid_reuse.py "$ATT_ROOT"/tests/support/token/rpc.py "$ATT_ROOT"/tests/support/spiffe/streams.py; do
        put "/usr/local/lib/reuse/${file##*/}" < "$file"
    done
}
# pids_ask WHEN KIND SOCKET DAEMON: in one.service, as who has no entry by user; what it says is in $work/answer
pids_ask() {
    guest "systemd-run -q --wait --pipe --collect --unit=one --setenv=PATH=/usr/bin:/bin --setenv=PYTHONDONTWRITEBYTECODE=1 \
        python3 /usr/local/lib/reuse/pid_reuse.py $1 $2 $3 $(pid_of "$4") $(guest 'id -u games') < /dev/null 2>&1" > "$work/answer" ||
        fail "pid_reuse.py $1 $2: $(cat "$work/answer")"
    grep -qx 'kernel old' "$work/answer" || fail "this kernel has SO_PEERPIDFD, or asks otherwise: $(cat "$work/answer")"
    reused=$(sed -n 's/^reused \([0-9]*\)$/\1/p' "$work/answer")
    [ -n "$reused" ] || fail "no pid was used again: $(cat "$work/answer")"
    [ "$(head -n 1 "$work/answer")" = "agent served${5:+ $5}" ] || fail "the newcomer's like is not the agent: $(cat "$work/answer")"
}
pids_logged() { guest "journalctl -b --no-pager -u $1" > "$work/journal" && grep "$2" "$work/journal"; }
guest_pids_case() {
    local public=/run/attestd/public answer
    # Nobody has looked yet: the number means the newcomer, and who writes is another.
    pids_ask before token $public/pkcs11.sock attestd-tokend 0x0
    answer=$(tail -n 1 "$work/answer")
    case $answer in lost | "turned away") ;; *) fail "an agent's token by a pid that it has now: $(cat "$work/answer")" ;; esac
    wait_for 60 pids_logged attestd-tokend "event=tokend.connection-refused .*pid=$reused .*another process wrote to the connection"
    ok "pid $reused used again before tokend looked: \"another process wrote to the connection\""
    # Between look and opening: the newcomer is an agent, but it began after the connection was accepted.
    pids_ask between token $public/pkcs11.sock attestd-tokend 0x0
    grep -qx "held $reused" "$work/answer" || fail "pidfd_open was not held: $(cat "$work/answer")"
    answer=$(tail -n 1 "$work/answer")
    case $answer in lost | "turned away" | "no key") ;; *) fail "an agent's token by a pid that it has now: $(cat "$work/answer")" ;; esac
    wait_for 60 pids_logged attestd "event=workload.refused .*reason=pidReused .*pid=$reused "
    ok "pid $reused used again between tokend's look and its pidfd_open: pidReused"

    # spiffed takes nothing for the agent's before whoever has the number answered; the answer came from another.
    local when
    guest 'systemctl start attestd-spiffed'
    for when in before between; do
        pids_ask $when spiffe $public/api.sock attestd-spiffed
        [ $when = before ] || grep -qx "held $reused" "$work/answer" || fail "pidfd_open was not held: $(cat "$work/answer")"
        [ "$(tail -n 1 "$work/answer")" = lost ] || fail "served by a pid that is an agent's now: $(cat "$work/answer")"
        wait_for 60 pids_logged attestd-spiffed "event=spiffed.cut .*pid=$reused .*another process writes on its connection"
        ok "spiffed, $when: pid $reused used again, \"another process writes on its connection\""
    done
}
