"""The node's cgroups: one subtree per controller (version 1) or one at all (version 2), made before the kubelet."""

import contextlib
import os
from functools import partial
from pathlib import Path

from assistant_cluster.errors import ClusterError
from assistant_cluster.progress import wait_until

ROOT = Path("/sys/fs/cgroup")


def create(name: str) -> None:
    """Make the subtree; the kubelet refuses a root cgroup that does not exist."""
    if (ROOT / "cgroup.controllers").exists():
        (ROOT / name).mkdir(exist_ok=True)
        return
    for hierarchy in _hierarchies():
        folder = hierarchy / name
        folder.mkdir(exist_ok=True)
        if (folder / "cpuset.cpus").exists():
            # A version 1 cpuset starts empty, and an empty one takes no process.
            for file in ("cpuset.cpus", "cpuset.mems"):
                (folder / file).write_text((hierarchy / file).read_text())


def remove(name: str) -> None:
    """Remove the subtrees, deepest first; processes in them are on their way out."""
    for hierarchy in (ROOT, *_hierarchies()):
        folder = hierarchy / name
        if folder.is_dir() and not wait_until(partial(_remove, folder), seconds=15):
            raise ClusterError(f"The cgroup {folder} cannot be removed: processes are left in it.")


def _remove(folder: Path) -> bool:
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)  # noqa: PTH106 - walking gives strings
    return not folder.exists()


def _hierarchies() -> list[Path]:
    """Mounted hierarchies of version 1, and the `unified` one beside them: runc uses it too where it exists."""
    if (ROOT / "cgroup.controllers").exists() or not ROOT.is_dir():
        return []
    return [path for path in sorted(ROOT.iterdir()) if path.is_dir() and not path.is_symlink()]
