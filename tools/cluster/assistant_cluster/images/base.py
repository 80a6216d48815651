"""What the base image of a machine without Docker is made from: the machine's own Debian or Ubuntu release.

Its package sources are asked of apt, so the image comes from where this machine's packages come from, mirrors and
proxies included, and gets the same security updates.
"""

import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from assistant_cluster.errors import ClusterError
from assistant_cluster.images.parts import ROOT
from assistant_cluster.runtime import IMAGE_PREFIX

SCRIPT = ROOT / "tools" / "cluster" / "images" / "base" / "build.sh"
PACKAGES = ("python3", "python3-venv", "ca-certificates", "tini")
# The first releases whose Python is 3.11 or newer.
OLDEST = {"debian": 12.0, "ubuntu": 24.04}
INDEX_TARGETS = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"]


@dataclass(frozen=True)
class Recipe:
    """Everything the build script needs to know."""

    codename: str
    mirror: str
    components: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Which base image this is: changes with the script, the release or the packages, not with the mirror."""
        content = hashlib.sha256(SCRIPT.read_bytes())
        content.update(" ".join((self.codename, platform.machine(), *PACKAGES)).encode())
        return f"{self.codename}-{content.hexdigest()[:12]}"

    @property
    def reference(self) -> str:
        """Full name of the base image."""
        return f"{IMAGE_PREFIX}/base:{self.identity}"

    def environment(self) -> dict[str, str]:
        """Settings of the build script."""
        return {
            "REFERENCE": self.reference,
            "CODENAME": self.codename,
            "MIRROR": self.mirror,
            "COMPONENTS": ",".join(self.components),
            "PACKAGES": " ".join(PACKAGES),
            "SOURCES": "\n".join(self.sources),
            **_proxy(),
        }


def recipe() -> Recipe:
    """The recipe for this machine."""
    release = platform.freedesktop_os_release()
    distribution, codename = release.get("ID", "").lower(), release.get("VERSION_CODENAME", "")
    oldest = OLDEST.get(distribution)
    if oldest is None or not codename or float(release.get("VERSION_ID", "0")) < oldest:
        raise ClusterError(
            "Without Docker the images are built from the machine's own Debian (12 or newer) or Ubuntu (24.04 or"
            f" newer); this is {release.get('PRETTY_NAME', 'neither')}. Install Docker and kind instead."
        )
    targets = _index_targets()
    if not targets:
        _run(["apt-get", "-q", "update"], 300)
        targets = _index_targets()
    return from_targets(targets, distribution, codename)


def from_targets(targets: str, distribution: str, codename: str) -> Recipe:
    """Read apt's index targets (lines of: address, release, component, origin): only the distribution's own count."""
    found: dict[tuple[str, str], set[str]] = {}
    for line in targets.splitlines():
        address, release, component, *origin = line.split()
        known = {codename, f"{codename}-updates", f"{codename}-security"}
        if [word.lower() for word in origin] == [distribution] and release in known:
            found.setdefault((release, address), set()).add(component)
    mirror = next((address for release, address in found if release == codename), None)
    if mirror is None:
        raise ClusterError(f"apt on this machine has no package source for {distribution} {codename}.")
    components = {component for each in found.values() for component in each} & {"main", "universe"}
    return Recipe(
        codename=codename,
        mirror=mirror,
        components=tuple(sorted(components)),
        sources=tuple(
            f"deb {address} {release} {' '.join(sorted(components & each))}"
            for (release, address), each in sorted(found.items())
        ),
    )


def certificates() -> Path | None:
    """The machine's certificate authorities as one file: a company's own is among them where downloads need it."""
    named = os.environ.get("SSL_CERT_FILE")
    usual = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
    return next((path for path in map(Path, [named, *usual] if named else usual) if path.is_file()), None)


def _index_targets() -> str:
    return _run([*INDEX_TARGETS, "Created-By: Packages"], 60)


def _proxy() -> dict[str, str]:
    """apt's own proxy for debootstrap, which asks only the environment."""
    if "http_proxy" in os.environ:
        return {}
    proxy = _run(["apt-config", "dump", "--format", "%v", "Acquire::http::Proxy"], 30).strip()
    return {"http_proxy": proxy} if proxy else {}


def _run(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"`{' '.join(command)}` failed: {error}") from error
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
