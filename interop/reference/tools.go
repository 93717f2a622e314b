//go:build tools

// Package reference pins the real etcd that interop/run compares with. The script build makes its binaries.
package reference

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/etcdutl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
