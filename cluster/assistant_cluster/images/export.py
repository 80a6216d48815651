"""Moves images from an OCI layout on disk into containerd: only the blobs it lacks.

Images share layers, and a new version of one mostly differs in its last: so a changed source file reaches the node as a
few kilobytes. containerd takes an archive with gaps as long as its own store fills them.
"""

import tarfile
from pathlib import Path

from assistant_cluster.images.command import run
from assistant_cluster.runtime import ContainerRuntime

LIST_SECONDS = 60
IMPORT_SECONDS = 900


def present_blobs(node: ContainerRuntime) -> set[str]:
    """Digests that the node's content store holds."""
    return set(run(node.ctr("content", "list", "--quiet"), seconds=LIST_SECONDS).split())


def import_layout(layout: Path, node: ContainerRuntime, *, skip: set[str]) -> int:
    """Import all images of a layout, without the blobs in `skip`, and unpack them; returns the bytes handed over."""
    archive = layout / "archive.tar"
    try:
        size = write_archive(layout, archive, skip)
        node.import_archive(archive, seconds=IMPORT_SECONDS)
    finally:
        archive.unlink(missing_ok=True)
    return size


def write_archive(layout: Path, archive: Path, skip: set[str]) -> int:
    """Write a layout as a tar file without the blobs in `skip` (digests); returns the size of those that are in it."""
    size = 0
    with tarfile.open(archive, "w") as tar:
        for name in ("oci-layout", "index.json"):
            tar.add(layout / name, arcname=name)
        for blob in sorted((layout / "blobs").glob("*/*")):
            if f"{blob.parent.name}:{blob.name}" not in skip:
                tar.add(blob, arcname=str(blob.relative_to(layout)))
                size += blob.stat().st_size
    return size
