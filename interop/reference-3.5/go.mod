module quorate/interop/reference-3.5

go 1.26.0

require go.etcd.io/etcd/server/v3 v3.5.35
