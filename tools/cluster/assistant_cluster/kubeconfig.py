"""Kubeconfig files: who a program is for the API server, in one file."""

import base64
import os
from pathlib import Path

import yaml

from assistant_cluster.certificates import KeyPair


def write(path: Path, *, server: str, authority: Path, client: KeyPair, name: str) -> Path:
    """Write a kubeconfig with everything inlined, readable by its owner only."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _inline(authority)}}],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _inline(client.certificate),
                    "client-key-data": _inline(client.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    replace(path, yaml.safe_dump(document, sort_keys=False))
    return path


def replace(path: Path, content: str) -> None:
    """Put `content` at `path` in one step with mode 0600, so that nobody reads half a file or another's key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(content)
    partial.replace(path)


def server_of(path: Path) -> str | None:
    """Address of the API server of a kubeconfig's current context; None when the file is absent or broken."""
    try:
        document = yaml.safe_load(path.read_text())
        context = next(c for c in document["contexts"] if c["name"] == document["current-context"])
        cluster = next(c for c in document["clusters"] if c["name"] == context["context"]["cluster"])
        return str(cluster["cluster"]["server"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration):
        return None


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
