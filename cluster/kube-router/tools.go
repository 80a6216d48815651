//go:build tools

// Package tools pins kube-router, which enforces NetworkPolicy on the single local node.
//
// `go install …/kube-router@v2.1.0` is refused (its own go.mod has replace directives), so this module requires it
// with the same dependency versions that kube-router's go.mod names, and go.sum pins their contents.
package tools

import _ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
