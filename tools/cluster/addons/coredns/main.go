// Command coredns is cluster DNS with the plugins that the local node's configuration names, and no others.
//
// The published program carries fifty plugins with the client libraries of five clouds: two thirds of what has to be
// compiled. The list here is that of assistant_cluster/manifests/coredns.yaml; a configuration that names another
// plugin is refused when CoreDNS starts.
package main

import (
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/template"

	"github.com/coredns/coredns/coremain"
)

func main() {
	coremain.Run()
}
