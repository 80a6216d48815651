"""A kind cluster, where Docker or Podman answers (https://kind.sigs.k8s.io).

Not exercised by this project's CI, which has no Docker: decision 0048 says what was tried, and how far.
"""

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from assistant_cluster.binaries import ensure
from assistant_cluster.checkout import CONTEXT
from assistant_cluster.errors import ClusterError
from assistant_cluster.progress import Progress

NAME = "assistant-platform"
# The same minor version as `tools.py`; kind v0.30 publishes this patch version. kind's own network enforces policies.
NODE_IMAGE = "kindest/node:v1.34.0"
CREATE_SECONDS = 600
ENGINES = ("docker", "podman")


def engine() -> str | None:
    """The container engine that answers; an installed client alone does not count."""
    for name in ENGINES:
        if shutil.which(name) and _answers(name):
            return name
    return None


class KindCluster:
    """The kind cluster of this machine."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @property
    def exists(self) -> bool:
        """Whether kind knows our cluster."""
        return NAME in self._kind("get", "clusters").split()

    def up(self) -> str:
        """Create the cluster unless it exists; returns its kubeconfig."""
        if not self.exists:
            self._progress(f"Creating the kind cluster {NAME} from {NODE_IMAGE} (1 to 3 min with the image's download)")
            self._kind("create", "cluster", f"--name={NAME}", f"--image={NODE_IMAGE}", "--wait=180s")
        return rename_context(self._kind("get", "kubeconfig", f"--name={NAME}"))

    def down(self) -> None:
        """Delete the cluster."""
        if self.exists:
            self._kind("delete", "cluster", f"--name={NAME}")

    def load_image(self, reference: str) -> None:
        """Copy an image from the container engine into the cluster's node, unless the node has it.

        By an archive: kind's `load docker-image` asks the program `docker` whatever engine it uses.
        """
        if reference in self._images():
            return
        with TemporaryDirectory(prefix="assistant-image-") as folder:
            archive = str(Path(folder) / "image.tar")
            self._run([self._engine(), "save", "--output", archive, reference])
            self._kind("load", "image-archive", archive, f"--name={NAME}")

    def _images(self) -> list[str]:
        """Names of the images on the node."""
        listing = [self._engine(), "exec", f"{NAME}-control-plane", "ctr", "--namespace=k8s.io", "images", "ls", "-q"]
        return self._run(listing).split()

    def _kind(self, *arguments: str) -> str:
        # kind edits the user's own kubeconfig; ours is the checkout's.
        environment = {**os.environ, "KUBECONFIG": os.devnull}
        if self._engine() == "podman":
            environment["KIND_EXPERIMENTAL_PROVIDER"] = "podman"
        return self._run([*ensure("kind", self._progress).command(), *arguments], environment)

    def _engine(self) -> str:
        name = engine()
        if name is None:
            raise ClusterError("kind needs Docker or Podman, and neither answers (`docker info`, `podman info`).")
        return name

    def _run(self, command: list[str], environment: dict[str, str] | None = None) -> str:
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=CREATE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"`{' '.join(command)}` took longer than {CREATE_SECONDS // 60} min.") from error
        if done.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` failed:\n{done.stderr.strip()}")
        return done.stdout


def rename_context(text: str) -> str:
    """Give a kubeconfig's only context the name that every mode uses."""
    document = yaml.safe_load(text)
    document["contexts"][0]["name"] = document["current-context"] = CONTEXT
    return yaml.safe_dump(document, sort_keys=False)


def _answers(name: str) -> bool:
    try:
        done = subprocess.run([name, "info"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
