"""Moves built images into containerd: only the layers it lacks, and none of them compressed.

Images share layers, and a new version of one mostly differs in its last: so a changed source file reaches the node as a
few kilobytes. containerd takes an archive with gaps as long as its own store fills them. The way is short, from one
folder of this machine to another: to compress layers took most of it.

An archive is an OCI image layout (https://github.com/opencontainers/image-spec/blob/main/image-layout.md).
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import IO

from assistant_cluster.errors import ClusterError
from assistant_cluster.images.command import run
from assistant_cluster.runtime import ContainerRuntime

LIST_SECONDS = 60
IMPORT_SECONDS = 900
MANIFEST = "manifest.json"


def present_blobs(node: ContainerRuntime) -> set[str]:
    """Digests that the node's content store holds."""
    return set(run(node.ctr("content", "list", "--quiet"), seconds=LIST_SECONDS).split())


def import_image(reference: str, folder: Path, node: ContainerRuntime, skip: set[str]) -> int:
    """Import an image without the blobs in `skip`, and unpack it; returns the bytes handed over.

    `folder` is what `buildah push dir:` wrote: the manifest, and each blob under the hexadecimal form of its SHA-256.
    """
    sent = 0

    def write(stream: IO[bytes], without: set[str]) -> None:
        nonlocal sent
        sent = write_archive(reference, folder, stream, without)

    try:
        node.import_stream(lambda stream: write(stream, skip), seconds=IMPORT_SECONDS)
    except ClusterError:
        # What was there a moment ago may have been collected as garbage since.
        node.import_stream(lambda stream: write(stream, set()), seconds=IMPORT_SECONDS)
    return sent


def write_archive(reference: str, folder: Path, stream: IO[bytes], skip: set[str]) -> int:
    """Write an image as an archive without the blobs in `skip` (digests); returns the size of those that are in it."""
    manifest = (folder / MANIFEST).read_bytes()
    document = json.loads(manifest)
    described = {
        "mediaType": document["mediaType"],
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
        "annotations": {"io.containerd.image.name": reference},
    }
    size = 0
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [described]}).encode())
        _add(tar, _path(described["digest"]), manifest)
        for digest in blobs(folder):
            if digest not in skip:
                blob = folder / digest.removeprefix("sha256:")
                tar.add(blob, arcname=_path(digest))
                size += blob.stat().st_size
    return size


def blobs(folder: Path) -> list[str]:
    """Digests of an image's configuration and layers, each once."""
    document = json.loads((folder / MANIFEST).read_bytes())
    return list(dict.fromkeys(entry["digest"] for entry in (document["config"], *document["layers"])))


def share_blobs(folder: Path, kept: Path) -> None:
    """Replace the blobs of an image that another image in `kept` has by links to those: the base is there once."""
    for digest in blobs(folder):
        blob = folder / digest.removeprefix("sha256:")
        if twin := next(kept.glob(f"*/{blob.name}"), None):
            blob.unlink()
            blob.hardlink_to(twin)


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
