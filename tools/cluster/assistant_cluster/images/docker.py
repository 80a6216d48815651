"""Builds images with Docker or Podman, for a kind cluster or for a registry that the user names.

Not exercised by this project's CI, which has no Docker. The stores come as public images there and are not built.
"""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from assistant_cluster import kind
from assistant_cluster.errors import ClusterError
from assistant_cluster.images.build_secrets import proxy_options, secret_options
from assistant_cluster.images.command import run
from assistant_cluster.images.parts import Part
from assistant_cluster.kind import KindCluster
from assistant_cluster.progress import Progress

# The Dockerfiles name their own base image; it counts as an input through their text.
BASE = "published"
BUILD_SECONDS = 1800
PUSH_SECONDS = 900
QUICK_SECONDS = 60


class Docker:
    """The container engine of this machine."""

    def __init__(self, progress: Progress) -> None:
        name = kind.engine()
        if name is None:
            raise ClusterError("Images for this cluster are built with Docker or Podman, and neither answers.")
        self.name = name
        self._progress = progress

    def has(self, reference: str) -> bool:
        """Whether the engine has an image."""
        command = [self.name, "image", "inspect", reference]
        try:
            return subprocess.run(command, capture_output=True, timeout=QUICK_SECONDS, check=False).returncode == 0
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{self.name} did not answer within {QUICK_SECONDS} s.") from error

    def build(self, part: Part, reference: str) -> None:
        """Build one image."""
        with TemporaryDirectory(prefix="assistant-images-") as folder:
            run(
                [
                    *(self.name, "build", "--tag", reference, "--file", str(part.dockerfile)),
                    *proxy_options(),
                    *secret_options(Path(folder)),
                    str(part.context),
                ],
                seconds=BUILD_SECONDS,
                environment={**os.environ, "DOCKER_BUILDKIT": "1"},
            )

    def load_into_kind(self, references: Iterable[str]) -> None:
        """Copy images into the kind cluster; kind skips what its node has."""
        cluster = KindCluster(self._progress)
        for reference in references:
            cluster.load_image(reference)

    def push(self, references: Iterable[str]) -> None:
        """Push images to their registry, with the log-in that the engine has."""
        for reference in references:
            run([self.name, "push", reference], seconds=PUSH_SECONDS)
