#!/bin/sh
# Records what etcdctl prints, for tests/it/printers.rs: record.sh <directory of etcd's binaries>.
#
# Each format gets a member of its own that is told the same things, so that all formats show the same
# answers: ids of cluster and member follow from the URLs, the lease's is given.
set -eu
bin=$1
here=$(cd "$(dirname "$0")" && pwd)
port=23711
lease=1234567890abcdef
endpoint=127.0.0.1:$port

ctl() { "$bin/etcdctl" --endpoints "$endpoint" "$@"; }
# The watch is interrupted after its events.
watch() { timeout -s INT 2 "$bin/etcdctl" --endpoints "$endpoint" "$@" || true; }

record() {
    name=$1
    shift
    out() { cat >"$here/$1.$name"; }
    ctl put plain value >/dev/null
    ctl put plain other >/dev/null
    printf 'line\none\t"quoted" <&> \377' | ctl put bytes >/dev/null
    ctl put 'zürich​' '' --lease $lease >/dev/null
    ctl get '' --prefix "$@" | out range
    ctl get absent "$@" | out range_absent
    ctl put plain third --prev-kv "$@" | out put_prev
    ctl put fresh value "$@" | out put
    ctl del bytes --prev-kv "$@" | out delete_prev
    printf 'mod("plain") > "0"\n\nget plain\nput plain fourth --prev-kv\ndel absent\n\n\n' |
        ctl txn "$@" | out txn
    printf 'mod("plain") = "0"\n\n\nget absent\n\n' | ctl txn "$@" | out txn_failed
    ctl del fresh >/dev/null
    watch watch fresh --rev 1 --prev-kv "$@" | out watch
    ctl member list "$@" | out member_list
    ctl alarm list "$@" | out alarm
    ctl lease timetolive $lease --keys "$@" | sed 's/remaining([0-9]*s)/remaining(100s)/
        s/"ttl":[0-9]*/"ttl":100/
        s/^"TTL" : .*/"TTL" : 100/' | out lease_timetolive
    ctl lease timetolive 7b "$@" | out lease_expired
    ctl lease list "$@" | out leases
    ctl lease keep-alive --once $lease "$@" | out lease_keepalive
    ctl endpoint status "$@" 2>/dev/null | out status || true
    ctl endpoint hashkv "$@" 2>/dev/null | out hashkv || true
}

for format in protobuf simple fields json table hex-simple hex-fields hex-json; do
    dir=$(mktemp -d)
    "$bin/etcd" --data-dir "$dir/data" \
        --listen-client-urls "http://$endpoint" --advertise-client-urls "http://$endpoint" \
        --listen-peer-urls http://127.0.0.1:23712 \
        --initial-advertise-peer-urls http://127.0.0.1:23712 \
        --initial-cluster default=http://127.0.0.1:23712 >"$dir/log" 2>&1 &
    member=$!
    until ctl endpoint health >/dev/null 2>&1; do sleep 0.2; done
    # The storage version is written shortly after the start.
    sleep 2
    curl -s "http://$endpoint/v3/lease/grant" \
        -d "{\"ID\":\"$(printf %d 0x$lease)\",\"TTL\":\"100\"}" >/dev/null
    case $format in
        table) # Only these can be shown so.
            (record table -w simple) && rm -f "$here"/*.table
            for what in "member list" "endpoint status" "endpoint hashkv"; do
                # shellcheck disable=SC2086 # two words
                ctl $what -w table >"$here/$(echo "$what" |
                    sed 's/endpoint //;s/ /_/').table"
            done ;;
        hex-*) record "$format" --hex -w "${format#hex-}" ;;
        *) record "$format" -w "$format" ;;
    esac
    kill $member
    wait $member || true
    rm -rf "$dir"
done
# What cannot be shown in a format leaves nothing.
find "$here" -size 0 -not -name '*absent*' -not -name 'alarm.*' \
    -not -name 'move_leader.*' -delete
