"""Container images with one static program and nothing else, written without a build tool.

The format is the OCI image layout (https://github.com/opencontainers/image-spec/blob/main/image-layout.md) in a tar,
which `ctr images import` reads.
"""

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class StaticImage:
    """One program file as an image."""

    reference: str
    program: Path
    path: str
    arguments: list[str] = field(default_factory=list)

    def write(self, archive: Path) -> Path:
        """Write the image as an OCI layout in a tar file."""
        layer = self._layer()
        blobs = {_digest(layer): layer}
        config = _json(
            {
                "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
                "os": "linux",
                "config": {"Entrypoint": [self.path, *self.arguments], "WorkingDir": "/"},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        )
        blobs[_digest(config)] = config
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
                "layers": [_descriptor(LAYER_TYPE, layer)],
            }
        )
        blobs[_digest(manifest)] = manifest
        named = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
        named["annotations"] = {"io.containerd.image.name": self.reference}
        index = _json({"schemaVersion": 2, "manifests": [named]})
        with tarfile.open(archive, "w") as tar:
            _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            _add(tar, "index.json", index)
            for digest, content in blobs.items():
                _add(tar, f"blobs/{digest.replace(':', '/')}", content)
        return archive

    def _layer(self) -> bytes:
        """The program as a tar with fixed times and owners, so that the same program gives the same image."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            _add(tar, self.path.lstrip("/"), self.program.read_bytes(), mode=0o755)
        return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
