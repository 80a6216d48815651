"""The container runtime of the node: containerd's configuration, its address for others, and its first images."""

import contextlib
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from assistant_cluster.errors import ClusterError
from assistant_cluster.layout import POD_BRIDGE, Layout
from assistant_cluster.oci import StaticImage

NAMESPACE = "k8s.io"
IMAGE_PREFIX = "localhost/assistant-platform"
PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


@dataclass(frozen=True)
class ContainerRuntime:
    """What is needed to put images into the node: used by `assistant_cluster.images` too."""

    socket: Path
    namespace: str = NAMESPACE

    def ctr(self, *arguments: str) -> list[str]:
        """Command line of containerd's client for this node."""
        return ["ctr", "--address", str(self.socket), "--namespace", self.namespace, *arguments]

    def images(self) -> set[str]:
        """References of the images the node has."""
        return set(self._run("images", "list", "--quiet", seconds=30).split())

    def import_archive(self, archive: Path, *, seconds: float = 300) -> None:
        """Import an image archive (OCI layout or `docker save`) and unpack it."""
        self._run("images", "import", str(archive), seconds=seconds)

    def import_stream(self, write: Callable[[IO[bytes]], None], *, seconds: float) -> None:
        """Import an image archive that `write` writes, without a copy of it on disk.

        Raises:
            ClusterError: containerd refused it, or took longer than `seconds`.
        """
        command = self.ctr("images", "import", "-")
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
            late = threading.Timer(seconds, process.kill)
            late.start()
            try:
                with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", process.stdin) as stream:
                    write(stream)
                code = process.wait()
            finally:
                late.cancel()
                process.kill()
                process.wait()
            errors.seek(0)
            if code != 0:
                raise ClusterError(f"`{' '.join(command)}` failed: {errors.read().strip() or f'exit code {code}'}")

    @property
    def answers(self) -> bool:
        """Whether containerd serves requests."""
        try:
            self._run("version", seconds=5)
        except ClusterError:
            return False
        return True

    def _run(self, *arguments: str, seconds: float) -> str:
        command = self.ctr(*arguments)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClusterError(f"`{' '.join(command)}` failed: {error}") from error
        if done.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
        return done.stdout


def runtime(layout: Layout | None = None) -> ContainerRuntime:
    """The container runtime of the running node."""
    return ContainerRuntime((layout or Layout()).containerd_socket)


def configure(layout: Layout) -> list[str]:
    """Write containerd's and CNI's configuration; returns containerd's command line."""
    plugins = next((folder for folder in PLUGIN_FOLDERS if (folder / "bridge").exists()), None)
    if plugins is None:
        raise ClusterError("The CNI plugins are missing: install the Debian package containernetworking-plugins.")
    networks = layout.config / "cni"
    networks.mkdir(parents=True, exist_ok=True)
    (networks / "10-bridge.conflist").write_text(json.dumps(_network(layout), indent=2))
    config = layout.config / "containerd.toml"
    config.write_text(_containerd(layout, plugins, networks))
    program = shutil.which("containerd")
    if program is None:
        raise ClusterError("containerd is missing: install the Debian package of that name.")
    return [program, "--config", str(config)]


def _network(layout: Layout) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": POD_BRIDGE,
                "isGateway": True,
                "hairpinMode": True,
                "mtu": int((Path("/sys/class/net") / layout.link / "mtu").read_text()),
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-addresses",
                    "ranges": [[{"subnet": layout.pod_range, "gateway": layout.pod_gateway}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
        ],
    }


def _containerd(layout: Layout, plugins: Path, networks: Path) -> str:
    """containerd's configuration.

    `restrict_oom_score_adj`: without CAP_SYS_RESOURCE (containers, small VMs) runc may not lower a sandbox's score,
    and every pod would fail with "can't get final child's PID from pipe: EOF".
    """
    return f"""\
version = 2
root = "{layout.state / "containerd"}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
address = "{layout.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{layout.state / "private/opt"}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause_reference(layout)}"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{networks}"
"""


def pause_reference(_layout: Layout) -> str:
    """The image that holds a pod's namespaces."""
    return f"{IMAGE_PREFIX}/pause:1"


def import_program(target: ContainerRuntime, image: StaticImage, scratch: Path) -> None:
    """Put a one-program image into the node unless it is there."""
    if image.reference in target.images():
        return
    scratch.mkdir(parents=True, exist_ok=True)
    archive = scratch / "image.tar"
    try:
        target.import_archive(image.write(archive))
    finally:
        archive.unlink(missing_ok=True)
