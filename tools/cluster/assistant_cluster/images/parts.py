"""What the images are made of: one Dockerfile per part, and a tag that says which inputs it was built from.

A tag is a digest of everything that goes in, so "unchanged" means "nothing to do", on every machine and in every order,
and an image reference in a Deployment tells which sources run.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from assistant_cluster.binaries import ensure
from assistant_cluster.errors import ClusterError
from assistant_cluster.progress import Progress
from assistant_cluster.runtime import IMAGE_PREFIX

ROOT = Path(__file__).parents[4]
PLATFORM = {"operator": "operator", "gateway": "gateway", "api": "api", "demo": "tools/demo"}  # and their folders
STORES = ("postgres", "redis", "weaviate")
TAG_DIGITS = 12


@dataclass(frozen=True)
class Part:
    """One image: its Dockerfile and the folder its COPY instructions start from."""

    name: str
    dockerfile: Path
    context: Path = ROOT

    def inputs(self) -> list[Path]:
        """Every file that the Dockerfile copies, as .dockerignore leaves them."""
        found: list[Path] = []
        for source in copied(self.dockerfile.read_text()):
            path = self.context / source
            if path.is_dir():
                found += (file for file in sorted(path.rglob("*")) if file.is_file() and not _ignored(file))
            elif path.is_file():
                found.append(path)
            else:
                raise ClusterError(f"{self.dockerfile} copies {source}, and there is no such file in {self.context}.")
        return found

    def tag(self, base: str) -> str:
        """Twelve hexadecimal digits over all inputs, their names and the base image's identity."""
        content = hashlib.sha256(base.encode())
        for file in (self.dockerfile, *self.inputs()):
            name = file.name if file == self.dockerfile else str(file.relative_to(self.context))
            executable = bool(file.stat().st_mode & 0o100)
            content.update(f"\0{name}\0{executable}\0{hashlib.sha256(file.read_bytes()).hexdigest()}".encode())
        return content.hexdigest()[:TAG_DIGITS]

    def reference(self, base: str, prefix: str = IMAGE_PREFIX) -> str:
        """The image's full name."""
        return f"{prefix}/{self.name}:{self.tag(base)}"


def part(name: str, progress: Progress) -> Part:
    """Describe a part; Weaviate's program is found, or got, on the way."""
    if name in PLATFORM:
        return Part(name, ROOT / PLATFORM[name] / "Dockerfile")
    if name not in STORES:
        raise ClusterError(f"There is no part {name!r}. Parts are: {', '.join((*PLATFORM, *STORES))}.")
    folder = ROOT / "tools" / "cluster" / "images" / name
    if name == "weaviate":
        return Part(name, folder / "Dockerfile", Path(ensure("weaviate", progress).command()[0]).parent)
    return Part(name, folder / "Dockerfile", folder)


def copied(dockerfile: str) -> Iterator[str]:
    """Paths that a Dockerfile's COPY instructions take from the context. ADD and patterns are not used here."""
    for line in dockerfile.replace("\\\n", " ").splitlines():
        instruction, *words = line.split() or [""]
        if instruction == "COPY" and not any(word.startswith("--from=") for word in words):
            *sources, _ = (word for word in words if not word.startswith("--"))
            yield from sources


def _ignored(file: Path) -> bool:
    return file.suffix == ".pyc" or "__pycache__" in file.parts
