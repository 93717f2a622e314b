//go:build tools

// Package reference pins the real etcd 3.6 that clusters of ours are mixed with. The script ../reference/build-older
// makes its binary.
package reference

import _ "go.etcd.io/etcd/server/v3"
