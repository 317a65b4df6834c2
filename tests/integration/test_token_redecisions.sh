#!/usr/bin/env bash
# An entry changes, and one agent has 200 processes with connections: they are decided about one at a time. By the order
# of events, not by a clock: while one such decision does not come to its end, newcomers of the same user are served,
# another user's agent is decided about and signs, another agent of the same user waits for this one decision and no
# second, and nobody signs by entries that are not in force. attestd and keyd are small real servers (tests/support/token);
# whod is the product's own, whose rate for newcomers new decisions do not use up.
set -euo pipefail
# shellcheck source=../support/token/rig.sh
. "$ATT_SOURCE_DIR/tests/support/token/rig.sh"
trap rig_end EXIT
crowd_size=200
ok() { printf 'ok: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    tail -n 12 "$RIG/attestd.out" >&2
    grep -v "^up\|^pids" "$RIG/said.crowd" | cut -d" " -f2 | sort | uniq -c >&2 || true
    tail -n 5 "$RIG"/said.* >&2
    grep -v level=debug "$RIG/tokend.log" | tail -n 20 >&2
    exit 1
}
rig_store crowd
for agent in pricing batch; do rig_key $agent; done
mkdir "$RIG/store/names"
for agent in crowd pricing batch; do echo $agent > "$RIG/store/names/$agent"; done
rig_server attestd
rig_server keyd
rig_tokend
"$RIG_BIN/attestd-whod" --config "$RIG/attestd.yaml" 2> "$RIG/whod.log" &
rig_pids+=($!)
rig_wait test -S "$RIG/run/whod.sock"
touch "$RIG/store/real-whod"

# processes FD NAME N [UID]: they run, each with a connection; what is written to FD are orders (rpc.py many)
processes() {
    mkfifo "$RIG/to.$2"
    timeout 300 /usr/bin/python3 "$ATT_SOURCE_DIR/tests/support/token/rpc.py" many "$RIG_SOCKET" "$3" "$2" "${@:4}" \
        < "$RIG/to.$2" > "$RIG/said.$2" 2>&1 &
    rig_pids+=($!)
    eval "exec $1> '$RIG/to.$2'"
    up() { [ "$(grep -c '^up ' "$RIG/said.$name")" = "$number" ]; }
    local name=$2 number=$3
    rig_wait up || fail "$2: $(grep -c '^up ' "$RIG/said.$2") of $3 processes are served"
}
answers() { grep -c "^$2 $3\$" "$RIG/said.$1" || true; }                           # answers NAME I RV
said() { rig_wait grep -qx "$2" "$RIG/said.$1" || fail "$1: wanted $2"; }           # said NAME ANSWER
events() { grep -c "^$1 $2 " "$RIG/attestd.out" || true; }                          # events begin|end NAME
heard() { [ "$(events "$1" "$2")" -ge "$3" ]; }                                     # heard begin|end NAME N
wait_for_event() { rig_wait heard "$1" "$2" "$3" || fail "$1 of $2: $(events "$1" "$2"), wanted $3"; }
nth_pid() { grep "^$1 $2 " "$RIG/attestd.out" | sed -n "$3p" | cut -d' ' -f3; }      # nth_pid begin|end NAME N
pid_of() { sed -n 's/^pids //p' "$RIG/said.$1" | cut -d' ' -f$(($2 + 1)); }          # pid_of NAME I
put() { # put FILE TEXT: at once
    printf '%s\n' "$2" > "$RIG/store/$1.new"
    mv "$RIG/store/$1.new" "$RIG/store/$1"
}

other=''
processes 5 pricing 1
if [ "$(id -u)" = 0 ]; then
    other=yes
    processes 6 batch 1 70001
fi
processes 7 crowd $crowd_size

# ---- nothing of the crowd is decided: who waits for it? ----
# A decision that takes 5 s (IDENTIFY_MS) is given up, and the next begins: a machine that was slower tries again.
entries=1 held=0
in_time() { [ $(($(date +%s%3N) - begun_ms)) -lt 4500 ]; }
all_decided() { [ "$(events end crowd)" = "$(events begin crowd)" ] && [ "$(events end crowd)" -ge $((ended + crowd_size)) ]; }
all_answer() { # all_answer RV: each of the crowd is asked for a signature
    local before
    before=$(answers crowd '[0-9]*' "$1")
    all_said() { [ "$(answers crowd '[0-9]*' "$1")" = $((before + crowd_size)) ]; }
    echo all >&7
    rig_wait all_said "$1" || fail "$(answers crowd '[0-9]*' "$1") answers are $1, there were $before"
}
change() { # change NUMBER: other entries, and the crowd's decisions stop after NUMBER more
    ended=$(events end crowd)
    put hold "crowd $((held + $1))"
    put entries $((++entries))
    wait_for_event begin crowd $((ended + 1))
    begun_ms=$(date +%s%3N)
}
goes_on() { # of those that were held so far, and of one more
    held=$((held + 1))
    put hold "crowd $held"
}
first_things() { # 1: too late to say
    local before early second
    before=$(answers pricing 0 '.*')
    change 0
    sleep 1.3 # a grant holds for a second after its entry changed, not longer
    echo 0 >&5
    echo 7 >&7
    if [ -n "$other" ]; then
        wait_for_event end batch $((entries - 1))
        echo 0 >&6
        rig_wait answered batch 0 $((entries - 1)) || fail "another user's agent does not sign"
        in_time || return 1
        [ "$(tail -n 1 "$RIG/said.batch")" = '0 0x0' ] || fail "another user's agent is refused"
    fi
    early="$(events begin crowd) $(answers pricing 0 '.*') $(answers crowd 7 '.*')"
    in_time || return 1
    [ "$early" = "$((ended + 1)) $before $seven" ] || fail "decisions begun, signatures of two that have to wait: $early"
    goes_on
    rig_wait answered pricing 0 $((before + 1)) || fail "another agent of the crowd's user gets no answer"
    wait_for_event begin crowd $((ended + 2))
    second=$(events end crowd)
    in_time || return 1
    [ "$(tail -n 1 "$RIG/said.pricing")" = '0 0x0' ] || fail "another agent of the crowd's user is refused"
    [ "$second" = $((ended + 1)) ] || fail "another agent's signature waited for $((second - ended)) decisions of the crowd"
    [ "$(nth_pid begin crowd $((ended + 2)))" = "$(pid_of crowd 7)" ] ||
        [ "$(nth_pid begin crowd $((ended + 1)))" = "$(pid_of crowd 7)" ] || fail "who wants to sign waits for those that do not"
}
answered() { [ "$(answers "$1" "$2" '.*')" -ge "$3" ]; } # answered NAME I N: N times
for try in 1 2 3 4 5; do
    seven=$(answers crowd 7 '.*')
    slow=no
    first_things || slow=yes
    rm "$RIG/store/hold"
    held=$(grep -c '^held ' "$RIG/attestd.out" || true)
    rig_wait answered crowd 7 $((seven + 1)) || fail "the crowd's seventh gets no answer"
    rig_wait all_decided || fail "$(events end crowd) decisions of $((ended + crowd_size))"
    [ $slow = yes ] || break
    [ "$try" -lt 5 ] || { echo "skipped: five times a second took more than five"; exit 77; }
    sleep 6 # what was given up is over
done
[ -z "$other" ] || ok "another user's agent: decided about, and signs, while a decision of the crowd is under way"
ok "a second after the change nobody signs who is not decided about"
ok "another agent of the crowd's user: one decision of the crowd before its own; then who wants to sign"
grep '^end crowd ' "$RIG/attestd.out" | tail -n $crowd_size | cut -d' ' -f3 | sort -u > "$RIG/decided"
[ "$(wc -l < "$RIG/decided")" = $crowd_size ] || fail "not once about each"
all_answer 0x0
ok "all $crowd_size: decided about once, and sign on"
[ "$try" -gt 1 ] || awk '$1 == "begin" && $2 != "batch" { if (++open > 1) exit 1 } $1 == "end" && $2 != "batch" { open-- }' \
    "$RIG/attestd.out" || fail "two decisions of one user side by side"
ok "one at a time of each user"

# ---- a newcomer, and the end of the crowd's entry ----
put names/crowd other
change 0
cp "$RIG/store/names/pricing" "$RIG/store/names/late"
processes 8 late 1
echo 0 >&8
said late '0 0x0'
[ "$(events begin crowd)" -gt "$(events end crowd)" ] || fail "no decision of the crowd is under way"
ok "a newcomer of the crowd's user: served while a decision of the crowd is under way"
before=$(answers crowd '[0-9]*' 0x0)
in_all=$(answers crowd '[0-9]*' '.*')
sleep 1.3
for i in {10..19}; do echo "$i" >&7; done
sleep 0.5 # what must not happen
[ "$(answers crowd '[0-9]*' 0x0)" = "$before" ] || fail "signed by an entry that is in force no more"
rm "$RIG/store/hold"
all_told() { [ "$(answers crowd '[0-9]*' '.*')" = $((in_all + 10)) ] && all_decided; }
rig_wait all_told || fail "the crowd is not decided about, or ten of it get no answer"
all_answer 0x200
[ "$(answers crowd '[0-9]*' 0x0)" = "$before" ] || fail "one signed"
ok "the entry went: no grant outlives its second, while decisions are under way and after them"
! grep -E '^end .*(rateLimited|limit)' "$RIG/attestd.out" || fail "whod would not look at them: its rate is the newcomers'"
exec 5>&- 6>&- 7>&- 8>&-
ok "none of these decisions at the cost of newcomers' rate"
