"""What a checkout keeps about its cluster: a kubeconfig of its own and how the cluster was made."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from assistant_cluster import kubeconfig

ROOT = Path(__file__).parents[3]
CONTEXT = "assistant-platform"


@dataclass(frozen=True)
class Checkout:
    """The folder `.cluster` of one checkout."""

    root: Path = ROOT

    @property
    def folder(self) -> Path:
        """Git ignores it."""
        return self.root / ".cluster"

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig that everything in this checkout uses."""
        return self.folder / "kubeconfig"

    @property
    def mode(self) -> str | None:
        """How this checkout's cluster was made, if it has one."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return str(json.loads((self.folder / "cluster.json").read_text())["mode"])
        return None

    def remember(self, mode: str, content: str) -> None:
        """Keep mode and kubeconfig, for the owner of the checkout even when root made the cluster."""
        kubeconfig.replace(self.kubeconfig, content)
        kubeconfig.replace(self.folder / "cluster.json", json.dumps({"mode": mode}) + "\n")
        owner = self.root.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            for path in (self.folder, self.kubeconfig, self.folder / "cluster.json"):
                os.chown(path, owner.st_uid, owner.st_gid)

    def forget(self) -> None:
        """Remove both; the folder too when nothing else is in it."""
        for path in (self.kubeconfig, self.folder / "cluster.json"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
