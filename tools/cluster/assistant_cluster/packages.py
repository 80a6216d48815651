"""Debian packages that the node, image building and tests need; installs what is missing and says so first.

No service starts because of it, now or at the next boot: the node runs its own copies, tests start their own stores.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from assistant_cluster.errors import ClusterError
from assistant_cluster.progress import Progress

NODE = (
    "catatonit",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "etcd-server",
    "iproute2",
    "ipset",
    "iptables",
    "nftables",
    "runc",
)
IMAGES = ("buildah", "debootstrap")
STORES = ("postgresql", "redis-server")

POLICY = Path("/usr/sbin/policy-rc.d")
UNITS = Path("/etc/systemd/system")
INSTALL_SECONDS = 900


def missing(packages: Iterable[str]) -> list[str]:
    """Those of the packages that are not installed."""
    return [package for package in packages if not _installed(package)]


def ensure_packages(packages: Iterable[str], progress: Progress, *, purpose: str) -> None:
    """Install what is missing of `packages`; says what and why before it changes anything."""
    wanted = missing(packages)
    if not wanted:
        return
    names = " ".join(wanted)
    if shutil.which("apt-get") is None:
        raise ClusterError(f"{purpose} needs programs that come as Debian packages ({names}), and there is no apt-get.")
    if os.geteuid() != 0:
        raise ClusterError(f"{purpose} needs packages that are missing. Install them: sudo apt-get install {names}")
    progress(f"Installing Debian packages for {purpose}: {names}")
    progress("  (they stay installed; none of their services is started or enabled by this)")
    clusters = _postgres_clusters()
    units = enabled_units()
    with no_service_starts():
        try:
            _apt("install", *wanted)
        except ClusterError:
            # Fresh machines have no package lists, or lists that name versions which are gone.
            _apt("update")
            _apt("install", *wanted)
    disable_units(enabled_units() - units, progress)
    for version, name in _postgres_clusters() - clusters:
        # Debian's package makes an empty server of its own. Nobody asked for it.
        subprocess.run(["pg_dropcluster", version, name], capture_output=True, timeout=60, check=False)


def _installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return False
    return done.stdout == "installed"


def _apt(command: str, *arguments: str) -> None:
    options = ["-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            ["apt-get", command, *options, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"apt-get {command} took longer than {INSTALL_SECONDS // 60} min.") from error
    if done.returncode != 0:
        raise ClusterError(f"apt-get {command} {' '.join(arguments)} failed:\n{done.stderr.strip()[-1500:]}")


@contextlib.contextmanager
def no_service_starts(policy: Path = POLICY) -> Iterator[None]:
    """Debian asks this program whether a package may start its services (policy-rc.d, exit 101 = no)."""
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\n# Written by the Assistant Platform for one installation.\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def enabled_units(folder: Path = UNITS) -> set[str]:
    """Return the names of the systemd units that start at boot, by the links that say so."""
    return {link.name for kind in ("wants", "requires") for link in folder.glob(f"*.{kind}/*")}


def disable_units(units: set[str], progress: Progress) -> None:
    """Keep units, and the init scripts of their names, from starting at boot; says so when that fails."""
    if not units or shutil.which("systemctl") is None:
        return
    command = ["systemctl", "disable", "--quiet", *sorted(units)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        progress(f"  These start at the next boot, because `{' '.join(command)}` failed: {done.stderr.strip()}")


def _postgres_clusters() -> set[tuple[str, str]]:
    return {(path.parent.name, path.name) for path in Path("/etc/postgresql").glob("*/*") if path.is_dir()}
