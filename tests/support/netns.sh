# shellcheck shell=bash
# shellcheck disable=SC2154 # dir comes from job.sh
# Machines of a test's own: network namespaces on a bridge, in a network namespace that the test itself runs in.
#   net_own "$@"         first of all: the script once more, in a namespace of its own (as root; else 77)
#   net_bridge           after job.sh: the bridge
#   net_node NAME N      a node 10.77.0.N
#   net_in NAME CMD…     runs there
#   net_cut A B, net_mend A B   nothing passes between these two, in silence, and everything else does; at most one cut
net_own() {
    [ -z "${ATT_TEST_NETNS:-}" ] || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v ip > /dev/null || ! unshare --net true 2> /dev/null; then
        echo "skipped: network namespaces need root and ip"
        exit 77
    fi
    ATT_TEST_NETNS=1 exec unshare --net "$0" "$@"
}

net_bridge() {
    ip link set lo up
    ip link add br0 type bridge 2> "$dir/tmp/bridge" || job_skip "no bridges on this kernel: $(cat "$dir/tmp/bridge")"
    ip link set br0 up
    net_nodes=()
}

net_ready() { [ "$(readlink "/proc/$(job_pid "net-$1")/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
net_node() {
    local other
    job_start "net-$1" unshare --net sleep infinity
    wait_for 10 net_ready "$1"
    ip link add "v-$1" type veth peer name eth0 address "02:00:00:00:00:$(printf %02x "$2")" netns "$(job_pid "net-$1")"
    ip link set "v-$1" master br0 up
    net_in "$1" ip link set lo up
    net_in "$1" ip addr add "10.77.0.$2/24" dev eth0
    net_in "$1" ip link set eth0 up
    # Fixed neighbours: a cut shows as silence, not as "no route to host".
    for other in "${net_nodes[@]}"; do
        net_in "$1" ip neigh replace "10.77.0.${other#*=}" lladdr "02:00:00:00:00:$(printf %02x "${other#*=}")" dev eth0 nud permanent
        net_in "${other%=*}" ip neigh replace "10.77.0.$2" lladdr "02:00:00:00:00:$(printf %02x "$2")" dev eth0 nud permanent
    done
    net_nodes+=("$1=$2")
}

net_in() {
    local name=$1
    shift
    nsenter --net="/proc/$(job_pid "net-$name")/ns/net" "$@"
}
# As job_start
net_start() { # NODE NAME COMMAND...
    local node=$1 name=$2
    shift 2
    job_start "$name" nsenter --net="/proc/$(job_pid "net-$node")/ns/net" "$@"
}

# Two isolated ports of a bridge do not reach each other.
net_cut() { ip link set "v-$1" type bridge_slave isolated on; ip link set "v-$2" type bridge_slave isolated on; }
net_mend() { ip link set "v-$1" type bridge_slave isolated off; ip link set "v-$2" type bridge_slave isolated off; }
