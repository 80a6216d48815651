"""Images of one program."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from assistant_cluster.oci import StaticImage


@pytest.fixture
def image(tmp_path: Path) -> StaticImage:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF and so on")
    return StaticImage("localhost/assistant-platform/pause:1", program, "/pause", ["-P"])


def read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry))}


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    return files["blobs/" + descriptor["digest"].replace(":", "/")]


def test_the_archive_is_an_image_layout_with_the_program_as_its_only_file(image: StaticImage, tmp_path: Path) -> None:
    """Index, manifest, configuration and layer refer to each other by digest and size."""
    files = read(image.write(tmp_path / "image.tar"))
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == image.reference
    manifest = json.loads(blob(files, entry))
    (layer,) = manifest["layers"]
    for descriptor in (entry, manifest["config"], layer):
        content = blob(files, descriptor)
        assert descriptor["digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert descriptor["size"] == len(content)
    config = json.loads(blob(files, manifest["config"]))
    assert config["config"]["Entrypoint"] == ["/pause", "-P"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    with tarfile.open(fileobj=io.BytesIO(blob(files, layer))) as tar:
        (file,) = tar.getmembers()
        assert (file.name, file.mode, file.uid) == ("pause", 0o755, 0)


def test_the_same_program_gives_the_same_image(image: StaticImage, tmp_path: Path) -> None:
    """Times and owners of the source file do not count, so an import can be skipped."""
    first = read(image.write(tmp_path / "one.tar"))
    image.program.touch()
    image.program.chmod(0o400)
    assert read(image.write(tmp_path / "two.tar")) == first
