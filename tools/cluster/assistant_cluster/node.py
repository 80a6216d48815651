"""The single real node: brings it up, repairs it, takes it down. Read `NodeCluster.up` and `.down` first.

State on disk is only a hint: what runs is asked of the kernel and of the API server each time, so an interrupted or
killed run is finished by the next one.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assistant_cluster import addons, cgroups, kubeconfig, network, runtime, upstream
from assistant_cluster.addons import Kubectl
from assistant_cluster.agents import Agents
from assistant_cluster.binaries import Programs, ensure
from assistant_cluster.client import Client
from assistant_cluster.controlplane import ControlPlane
from assistant_cluster.errors import ClusterError
from assistant_cluster.layout import API_PORT, Layout
from assistant_cluster.machine import Machine, load_modules
from assistant_cluster.oci import StaticImage
from assistant_cluster.packages import NODE, ensure_packages
from assistant_cluster.processes import Process, stop
from assistant_cluster.progress import Progress, wait_until
from assistant_cluster.sandbox import Sandbox, log_tail
from assistant_cluster.tools import TOOLS

READY_SECONDS = 60
# The order in which they start. Stopping needs none: the kernel ends them all at once.
COMPONENTS = (
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kube-router",
)


@dataclass(frozen=True)
class NodeStatus:
    """What is known of the node."""

    running: bool
    api_ready: bool
    node_ready: bool
    dns_ready: bool
    components: dict[str, Process | None]

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to do."""
        return self.node_ready and self.dns_ready and all(p and p.alive for p in self.components.values())


class NodeCluster:
    """One node on this machine."""

    def __init__(self, layout: Layout | None = None, progress: Progress | None = None) -> None:
        self.layout = layout or Layout()
        self._progress = progress or Progress()
        self._machine = Machine()
        self._sandbox = Sandbox(self.layout, self._machine)
        self._records = self.layout.state / "processes.json"
        self._created = self.layout.state / "created"
        self._complete = self.layout.state / "complete"

    # ---- what is there

    def status(self) -> NodeStatus:
        """Ask the kernel and the API server how the node is."""
        running = self._sandbox.find() is not None
        components = self._recorded() if running else dict.fromkeys(COMPONENTS)
        client = self.client() if running else None
        # One question that times out is enough.
        answering = client if client and client.ready() else None
        return NodeStatus(
            running=running,
            api_ready=answering is not None,
            node_ready=bool(answering and answering.node_ready(self.layout.name)),
            dns_ready=bool(answering and answering.deployment_available("kube-system", "coredns")),
            components=components,
        )

    def version(self) -> str | None:
        """Kubernetes version of the running node, which another checkout may have started."""
        with contextlib.suppress(OSError):
            return self._created.read_text()
        return None

    def client(self) -> Client | None:
        """Client of the administrator, once there is a kubeconfig."""
        return Client(self.layout.admin_kubeconfig) if self.layout.admin_kubeconfig.exists() else None

    def kubectl(self) -> Kubectl:
        """kubectl of the administrator."""
        return Kubectl(ensure("kubernetes", self._progress).command("kubectl"), self.layout.admin_kubeconfig)

    # ---- up

    def up(self) -> None:
        """Bring the node up, or repair it, or find that all is well."""
        require_root()
        with self._machine.lock(self._progress):
            if self.status().healthy:
                self._refresh()
                if self.version() != TOOLS["kubernetes"].version:
                    wanted = TOOLS["kubernetes"].version
                    self._progress(
                        f"The running node is Kubernetes {self.version()}, this checkout is made for {wanted}."
                    )
                return
            ensure_packages(NODE, self._progress, purpose="the node")
            programs = {name: ensure(name, self._progress) for name in ("kubernetes", "coredns", "kube-router")}
            # A node that never was complete holds nothing of anybody's, unlike one that does not answer right now.
            unfinished = self._sandbox.find() is not None and not self._complete.exists()
            try:
                self._start(programs)
            except ClusterError as error:
                if self._complete.exists():
                    raise ClusterError(
                        f"{error}\n`make cluster-down` and `make cluster-up` make a new node."
                    ) from error
                if not unfinished:
                    raise
                self._progress(f"What an interrupted run left could not be finished ({error}). Building it anew.")
                self._remove()
                self._start(programs)

    def _refresh(self) -> None:
        client = self.client()
        if client:
            addons.ensure_volumes(self.layout, self.kubectl(), client)

    def _start(self, programs: dict[str, Programs]) -> None:
        # The marker says that namespaces and network were finished, not interrupted half way.
        if self._sandbox.find() is None or not self._created.exists():
            self._remove()
            self._announce()
            self._create()
        plane = self._plane()
        kubernetes = programs["kubernetes"]
        agents = Agents(self.layout, plane)
        kubeconfig.write(
            self.layout.admin_kubeconfig,
            server=plane.url,
            authority=plane.authority.files.certificate,
            client=plane.authority.client("kubernetes-admin", "system:masters"),
            name=self.layout.name,
        )
        client = Client(self.layout.admin_kubeconfig)
        kubectl = Kubectl(kubernetes.command("kubectl"), self.layout.admin_kubeconfig)

        self._ensure("containerd", lambda: runtime.configure(self.layout))
        self._stop_what_lost_its_store()
        self._ensure("etcd", lambda: plane.etcd(ensure("etcd", self._progress).command()))
        self._ensure(
            "kube-apiserver",
            lambda: plane.api_server(kubernetes.command("kube-apiserver"), bind_address="0.0.0.0"),  # noqa: S104
        )
        image = self._first_images(programs["coredns"])
        self._wait("API server", client.ready, "kube-apiserver", "etcd")
        self._ensure(
            "kube-controller-manager", lambda: agents.controller_manager(kubernetes.command("kube-controller-manager"))
        )
        self._ensure("kube-scheduler", lambda: agents.scheduler(kubernetes.command("kube-scheduler")))
        self._ensure("kubelet", lambda: agents.kubelet(kubernetes.command("kubelet")))
        self._ensure("kube-proxy", lambda: agents.proxy(kubernetes.command("kube-proxy")))
        kubectl.apply(
            addons.policy_rights() + "\n---\n" + addons.cluster_dns(self.layout, image, upstream.name_servers())
        )
        addons.ensure_volumes(self.layout, kubectl, client)
        self._wait("node", lambda: client.node_ready(self.layout.name), "kubelet", "containerd")
        # It ends when the kubelet has not registered its node yet.
        self._ensure("kube-router", lambda: agents.network_policy(programs["kube-router"].command()))
        self._wait("cluster DNS", lambda: client.deployment_available("kube-system", "coredns"), "kubelet")
        self._wait("network policy", lambda: network.enforces_policies(self._sandbox), "kube-router", *COMPONENTS)
        self._complete.touch()

    def _announce(self) -> None:
        layout = self.layout
        self._progress(f"Starting a Kubernetes node in namespaces of its own, files in {layout.state}")
        self._progress(
            f"  on this machine it adds the network link {layout.link} with routes to {layout.pod_range} and "
            f"{layout.service_range}, the nftables table {layout.nft_table}, IPv4 forwarding on the default route's "
            f"device, and cgroups {layout.cgroup}; `make cluster-down` removes all of it"
        )

    def _create(self) -> None:
        network.check_ranges(self.layout)
        for folder in (self.layout.state, self.layout.config, self.layout.logs, self.layout.pki):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        load_modules()
        cgroups.create(self.layout.cgroup)
        self._sandbox.create()
        network.connect(self.layout, self._sandbox)
        network.open_way_out(self.layout, self._machine)
        self._created.write_text(TOOLS["kubernetes"].version)
        self._progress("namespaces and network ready")

    def _first_images(self, coredns: Programs) -> str:
        """Import the images that the node itself needs; returns cluster DNS's."""
        target = runtime.runtime(self.layout)
        self._wait("containerd", lambda: target.answers, "containerd")
        pause = StaticImage(
            reference=runtime.pause_reference(self.layout),
            program=self.layout.init_program,
            path="/pause",
            arguments=["-P"],
        )
        reference = f"{runtime.IMAGE_PREFIX}/coredns:{coredns.tool.version}"
        dns = StaticImage(reference=reference, program=Path(coredns.command()[0]), path="/coredns")
        for image in (pause, dns):
            runtime.import_program(target, image, self.layout.state / "scratch")
        return reference

    def _plane(self) -> ControlPlane:
        return ControlPlane(
            folder=self.layout.state,
            pki=self.layout.pki,
            logs=self.layout.logs,
            address=self.layout.node_ip,
            api_port=API_PORT,
            etcd_port=2379,
            etcd_peer_port=2380,
            service_range=self.layout.service_range,
            api_service_ip=self.layout.api_service_ip,
            advertised=self.layout.node_ip,
        )

    def _ensure(self, name: str, command: Callable[[], list[str]]) -> None:
        """Start a program unless it runs."""
        recorded = self._recorded()[name]
        if recorded and recorded.alive:
            return
        process = self._sandbox.start(name, command())
        records = {n: p for n, p in self._recorded().items() if p} | {name: process}
        content = json.dumps({n: [p.pid, p.start] for n, p in records.items()})
        kubeconfig.replace(self._records, content)

    def _stop_what_lost_its_store(self) -> None:
        """An API server whose etcd died would try again at growing intervals: a new one is ready sooner."""
        recorded = self._recorded()
        if recorded["etcd"] is None and (server := recorded["kube-apiserver"]):
            stop([server], grace=0)

    def _recorded(self) -> dict[str, Process | None]:
        known: dict[str, Process | None] = dict.fromkeys(COMPONENTS)
        with contextlib.suppress(OSError, ValueError):
            for name, (pid, start) in json.loads(self._records.read_text()).items():
                process = Process(pid, start)
                known[name] = process if process.alive else None
        return known

    def _wait(self, what: str, probe: Callable[[], bool], *programs: str) -> None:
        def ended() -> str | None:
            recorded = self._recorded()
            return next((name for name in programs if recorded[name] is None), None)

        wait_until(lambda: probe() or ended(), seconds=READY_SECONDS)
        if name := ended():
            raise ClusterError(f"{name} ended.{log_tail(self.layout.logs / f'{name}.log')}")
        if not probe():
            log = log_tail(self.layout.logs / f"{programs[0]}.log")
            raise ClusterError(f"{what} was not ready within {READY_SECONDS} s.{log}")
        self._progress(f"{what} ready")

    # ---- down

    def down(self) -> None:
        """Remove the node and everything it made on this machine; fine when there is nothing."""
        require_root()
        with self._machine.lock(self._progress):
            self._progress("Stopping the node and removing its files")
            self._remove()
            self._machine.undo_after_the_last_node()

    def _remove(self) -> None:
        self._sandbox.destroy()
        network.disconnect(self.layout)
        cgroups.remove(self.layout.cgroup)
        remove_tree(self.layout.state)


def require_root() -> None:
    """The node needs namespaces, mounts and cgroups."""
    if os.geteuid() != 0:
        raise ClusterError("The node needs root. Run it with sudo, or use CLUSTER=kind or CLUSTER=current.")


def remove_tree(folder: Path) -> None:
    """Remove a folder, but never what is mounted below it."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [point for point in mounted if point == str(folder) or point.startswith(f"{folder}/")]
    if inside:
        raise ClusterError(f"Not removing {folder}: something is mounted at {', '.join(inside)}. Unmount it first.")
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder)
