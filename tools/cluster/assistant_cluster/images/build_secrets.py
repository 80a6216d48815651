"""What a build may know of this machine and the image must not: certificates, package index, proxies.

All of it goes in as build secrets: files that exist during one instruction only, in no layer and no cache key.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from assistant_cluster.images.base import certificates

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def secret_options(folder: Path) -> list[str]:
    """`--secret` options of `docker build` and `buildah build`; the files are written to `folder`."""
    files = {"certificates": certificates()}
    if index := package_index():
        files["pip"] = _private(folder / "pip.conf", f"[global]\nindex-url = {index}\n")
        files["uv"] = _private(folder / "uv.toml", f"index-url = {json.dumps(index)}\n")
    return [option for name, file in files.items() if file for option in ("--secret", f"id={name},src={file}")]


def package_index() -> str | None:
    """The Python package index of this machine where it is not the usual one."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if value := os.environ.get(name):
            return value
    pip = shutil.which("pip3") or shutil.which("pip")
    if pip is None:
        return None
    command = [pip, "config", "get", "global.index-url"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None


def proxy_options() -> list[str]:
    """Proxies as build arguments: both builders know these names and keep them out of the image."""
    return [option for name in PROXIES if name in os.environ for option in ("--build-arg", name)]


def _private(file: Path, content: str) -> Path:
    file.touch(mode=0o600)
    file.write_text(content)
    return file
