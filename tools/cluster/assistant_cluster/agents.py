"""Configuration and command lines of the programs that make an API server a cluster: controllers and node agents."""

import json
from pathlib import Path

import yaml

from assistant_cluster import kubeconfig
from assistant_cluster.controlplane import ControlPlane
from assistant_cluster.layout import CLUSTER_DOMAIN, Layout

MAX_PODS = 200


class Agents:
    """The programs of one node, each with its own identity towards the API server."""

    def __init__(self, layout: Layout, plane: ControlPlane) -> None:
        self._layout = layout
        self._plane = plane

    def identity(self, user: str, group: str | None = None) -> Path:
        """Kubeconfig of a program, made new so that it fits the certificates of now."""
        return kubeconfig.write(
            self._layout.config / f"{user.replace(':', '-')}.kubeconfig",
            server=self._plane.url,
            authority=self._plane.authority.files.certificate,
            client=self._plane.authority.client(user, group),
            name=self._layout.name,
        )

    def controller_manager(self, program: list[str]) -> list[str]:
        """All controllers, each with its own ServiceAccount."""
        return [
            *program,
            f"--kubeconfig={self.identity('system:kube-controller-manager')}",
            f"--root-ca-file={self._plane.authority.files.certificate}",
            f"--service-account-private-key-file={self._plane.service_account_keys.key}",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={self._layout.pod_range}",
            "--node-cidr-mask-size=24",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--profiling=false",
            # The default of 20 requests a second makes forty controllers wait for each other for 4 s at the start.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ]

    def scheduler(self, program: list[str]) -> list[str]:
        """The scheduler."""
        return [
            *program,
            f"--kubeconfig={self.identity('system:kube-scheduler')}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--profiling=false",
        ]

    def kubelet(self, program: list[str]) -> list[str]:
        """The kubelet; it keeps images and tolerates a nearly full disk, because this machine is not its own."""
        layout = self._layout
        serving = self._plane.authority.server("kubelet", [layout.name, layout.node_ip])
        resolver = layout.config / "resolv.conf"
        # Only cluster DNS itself uses the node's resolver, and its upstream is in its own configuration.
        resolver.write_text("# no name server: pods use cluster DNS\n")
        config = self._write(
            "kubelet.yaml",
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": layout.node_ip,
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(self._plane.authority.files.certificate)},
                },
                "authorization": {"mode": "Webhook"},
                "tlsCertFile": str(serving.certificate),
                "tlsPrivateKeyFile": str(serving.key),
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{layout.cgroup}",
                "failCgroupV1": False,
                "failSwapOn": False,
                "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
                "clusterDomain": CLUSTER_DOMAIN,
                "clusterDNS": [layout.dns_service_ip],
                "resolvConf": str(resolver),
                "maxPods": MAX_PODS,
                "serializeImagePulls": False,
                "evictionHard": {
                    "memory.available": "100Mi",
                    "nodefs.available": "1%",
                    "nodefs.inodesFree": "1%",
                    "imagefs.available": "1%",
                    "imagefs.inodesFree": "1%",
                },
                "imageGCHighThresholdPercent": 100,
                "imageGCLowThresholdPercent": 99,
                "volumePluginDir": str(layout.state / "private/volume-plugins"),
            },
        )
        return [
            *program,
            f"--config={config}",
            f"--kubeconfig={self.identity(f'system:node:{layout.name}', 'system:nodes')}",
            f"--node-ip={layout.node_ip}",
            f"--hostname-override={layout.name}",
            f"--root-dir={layout.state / 'kubelet'}",
        ]

    def proxy(self, program: list[str]) -> list[str]:
        """kube-proxy: Services as nftables rules."""
        config = self._write(
            "kube-proxy.yaml",
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "nftables",
                "clientConnection": {"kubeconfig": str(self.identity("system:kube-proxy"))},
                "hostnameOverride": self._layout.name,
                "bindAddress": self._layout.node_ip,
                "metricsBindAddress": "127.0.0.1:10249",
                "healthzBindAddress": "127.0.0.1:10256",
                # 0 leaves the machine's connection table as it is.
                "conntrack": {"maxPerCore": 0, "min": 0},
            },
        )
        return [*program, f"--config={config}"]

    def network_policy(self, program: list[str]) -> list[str]:
        """kube-router, for NetworkPolicy only."""
        return [
            *program,
            f"--kubeconfig={self.identity('system:kube-router')}",
            f"--hostname-override={self._layout.name}",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            f"--service-cluster-ip-range={self._layout.service_range}",
            "--metrics-port=0",
        ]

    def _write(self, name: str, document: dict[str, object]) -> Path:
        path = self._layout.config / name
        path.write_text(yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False))
        return path
