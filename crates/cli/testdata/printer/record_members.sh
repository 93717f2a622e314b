#!/bin/sh
# Records what etcdctl prints when membership changes, for tests/it/printers.rs:
# record_members.sh <directory of etcd's binaries>.
#
# Each format gets a cluster of its own that is told the same things. The ids of added members are
# different in each: all formats show those of the first one. Answers list members by their ids, so a
# member is added again until its id has the wanted place.
set -eu
bin=$1
here=$(cd "$(dirname "$0")" && pwd)

ctl() { "$bin/etcdctl" --endpoints 127.0.0.1:23711 "$@"; }

# start <name> <client port> <peer port> <options>...
start() {
    name=$1 client=http://127.0.0.1:$2 peer=http://127.0.0.1:$3
    shift 3
    "$bin/etcd" --name "$name" --data-dir "$dir/$name" \
        --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" "$@" \
        >"$dir/$name.log" 2>&1 &
    members="$members $!"
}

# add <first letters of its id> <answer's name> <arguments>...
add() {
    wanted=$1 answer=$2
    shift 2
    while :; do
        ctl member add "$@" >"$dir/$answer"
        id=$(ctl member list | sed -n 's/, unstarted.*//p')
        if expr "$id" : "[$wanted].\{15\}\$" >/dev/null; then return; fi
        ctl member remove "$id" >/dev/null
        # Ids come from the URLs and the second, and none may come back.
        sleep 1
    done
}

decimal() { printf %u "0x$1"; }

record() {
    suffix=$1
    shift
    start default 23711 23712 --initial-cluster default=http://127.0.0.1:23712
    until ctl member list 2>/dev/null | grep -q "started, default"; do sleep 0.2; done
    add 9ab member_add_learner second --learner --peer-urls http://127.0.0.1:23722 "$@"
    second=$id
    start second 23721 23722 --initial-cluster-state existing \
        --initial-cluster default=http://127.0.0.1:23712,second=http://127.0.0.1:23722
    until ctl member list | grep -q 'started, second'; do sleep 0.2; done
    until ctl member promote "$second" "$@" >"$dir/member_promote" 2>/dev/null; do sleep 0.2; done
    # Members must have been connected for a while before another may be added.
    sleep 6
    add c-f member_add 'thi"rd' "$@" \
        --peer-urls http://127.0.0.1:23732,http://127.0.0.1:23733
    third=$id
    ctl member update "$third" --peer-urls http://127.0.0.1:23734 "$@" >"$dir/member_update"
    ctl member remove "$third" "$@" >"$dir/member_remove"
    ctl move-leader "$second" "$@" >"$dir/move_leader"
    # The first format is the one with bytes that cannot be edited.
    : "${second_shown:=$second}" "${third_shown:=$third}"
    for answer in member_add_learner member_promote member_add member_update member_remove \
        move_leader; do
        LC_ALL=C sed "s/$second/$second_shown/g
            s/$third/$third_shown/g
            s/$(decimal "$second")/$(decimal "$second_shown")/g
            s/$(decimal "$third")/$(decimal "$third_shown")/g" \
            "$dir/$answer" >"$here/$answer.$suffix"
    done
}

# shellcheck disable=SC2086 # process ids
stop() {
    kill $members
    wait $members || true
    rm -rf "$dir"
}

trap stop EXIT
for format in protobuf simple json hex-simple hex-json; do
    dir=$(mktemp -d) members=
    case $format in
        hex-*) record "$format" --hex -w "${format#hex-}" ;;
        *) record "$format" -w "$format" ;;
    esac
    stop
done
trap - EXIT
