#!/bin/sh
# Records what etcdctl prints about downgrades, for tests/it/printers.rs: record_downgrade.sh <directory of etcd's binaries>.
#
# A job is cancelled before each format, and the cluster's version left to rise again, so that all formats are told the same.
set -eu
bin=$1
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
client=http://127.0.0.1:23711 peer=http://127.0.0.1:23712

ctl() { "$bin/etcdctl" --endpoints "$client" "$@"; }

"$bin/etcd" --data-dir "$dir/data" \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "default=$peer" >"$dir/log" 2>&1 &
member=$!
trap 'kill $member; wait $member || true; rm -rf "$dir"' EXIT

record() {
    suffix=$1
    shift
    until ctl downgrade validate 3.6 >/dev/null 2>&1; do sleep 0.2; done
    ctl downgrade validate 3.6 "$@" >"$here/downgrade_validate.$suffix"
    ctl downgrade enable 3.6 "$@" >"$here/downgrade_enable.$suffix"
    until ctl endpoint status | grep -q ' 3\.6\.0, .* 3\.6\.0, true$'; do sleep 0.2; done
    ctl downgrade cancel "$@" >"$here/downgrade_cancel.$suffix"
}

for format in simple json protobuf hex-simple hex-json; do
    case $format in
        hex-*) record "$format" --hex -w "${format#hex-}" ;;
        *) record "$format" -w "$format" ;;
    esac
done
# What is not shown says so.
for format in fields table; do
    if ctl downgrade validate 3.6 -w "$format"; then exit 1; fi
done
