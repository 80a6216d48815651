//go:build tools

// Package tools pins etcd, for machines that have neither Debian's package nor the right to install it.
//
// `go install go.etcd.io/etcd/server/v3@…` is refused (its go.mod has replace directives), so this module requires it.
package tools

import _ "go.etcd.io/etcd/server/v3"
