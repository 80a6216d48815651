// Command policy enforces NetworkPolicy on the local node: kube-router's network policy controller by itself.
//
// The published kube-router carries a BGP router, a service proxy and a load balancer as well, which this node does not
// run: kube-proxy is its service proxy, and one node needs no routes. The flags are kube-router's own.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/spf13/pflag"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

func main() {
	klog.InitFlags(nil)
	config := options.NewKubeRouterConfig()
	config.AddFlags(pflag.CommandLine)
	pflag.Parse()
	if config.HelpRequested {
		pflag.Usage()
		return
	}
	// klog's own flags are not among ours: they are set as kube-router sets them.
	_ = flag.Set("logtostderr", "true")
	_ = flag.Set("v", config.VLevel)
	if err := run(config); err != nil {
		fmt.Fprintf(os.Stderr, "policy: %v\n", err)
		os.Exit(1)
	}
}

// run enforces policies until SIGINT or SIGTERM.
func run(config *options.KubeRouterConfig) error {
	stop := make(chan struct{})
	connection, err := clientcmd.BuildConfigFromFlags(config.Master, config.Kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(connection)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	pods := informer(client.CoreV1().RESTClient(), "pods", &core.Pod{})
	namespaces := informer(client.CoreV1().RESTClient(), "namespaces", &core.Namespace{})
	policies := informer(client.NetworkingV1().RESTClient(), "networkpolicies", &networking.NetworkPolicy{})
	for _, each := range []cache.SharedIndexInformer{pods, namespaces, policies} {
		go each.Run(stop)
	}
	if !cache.WaitForCacheSync(stop, pods.HasSynced, namespaces.HasSynced, policies.HasSynced) {
		return errors.New("the API server did not list pods, namespaces and policies")
	}

	tables, sets, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return fmt.Errorf("iptables: %w", err)
	}
	controller, err := netpol.NewNetworkPolicyController(
		client, config, pods, policies, namespaces, &sync.Mutex{}, tables, sets)
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods:       controller.PodEventHandler,
		namespaces: controller.NamespaceEventHandler,
		policies:   controller.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("events: %w", err)
		}
	}

	// Each round reports to this channel; kube-router's health server reads it, and nothing asks that server here.
	rounds := make(chan *healthcheck.ControllerHeartbeat)
	go func() {
		for range rounds {
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	go controller.Run(rounds, stop, &running)

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
	close(stop)
	running.Wait()
	return nil
}

// informer watches one kind of object in all namespaces. The client library's own factory would bring the code of every
// kind there is: a hundred packages to compile.
func informer(client cache.Getter, resource string, kind runtime.Object) cache.SharedIndexInformer {
	watched := cache.NewListWatchFromClient(client, resource, meta.NamespaceAll, fields.Everything())
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	return cache.NewSharedIndexInformer(watched, kind, 0, byNamespace)
}
