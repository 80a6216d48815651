"""What the benchmark needs besides the platform: its two ends, LiteLLM Proxy, nginx; made once, kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from assistant_cluster.errors import ClusterError
from assistant_cluster.packages import ensure_packages
from assistant_cluster.progress import Progress

HERE = Path(__file__).parent
LITELLM = HERE / "litellm.txt"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assistant-platform" / "bench"
BUILD_SECONDS = 600


class MissingToolError(Exception):
    """Something cannot be had here, and why."""


def _name(prefix: str, *contents: bytes) -> Path:
    """The place in the cache of something that is made of these contents."""
    return CACHE / f"{prefix}-{hashlib.sha256(b''.join(contents)).hexdigest()[:12]}"


def _run(command: list[str], purpose: str, **where: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False, **where)
    if done.returncode != 0:
        raise MissingToolError(f"{purpose} failed: {(done.stderr or done.stdout).strip()[-600:]}")


def ends() -> Path:
    """Build the provider and the clients; return the program."""
    if shutil.which("go") is None:
        raise MissingToolError("Go (1.21 or newer) is needed to build the mock provider and the load generator.")
    folder = HERE / "load"
    program = _name("load", *(path.read_bytes() for path in sorted(folder.iterdir())))
    if not program.exists():
        fresh = program.with_suffix(f".{os.getpid()}")
        fresh.parent.mkdir(parents=True, exist_ok=True)
        _run(["go", "build", "-o", str(fresh), "."], "building the load generator", cwd=folder)
        fresh.rename(program)
    return program


def litellm() -> Path:
    """Make LiteLLM Proxy's own environment from its pinned, hashed requirements; return its `litellm`."""
    home = _name("litellm", LITELLM.read_bytes(), sys.version.encode())
    ready = home / ".ready"
    if not ready.exists():
        print(f"Making an environment for LiteLLM Proxy in {home} ...", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(home)], "making LiteLLM's environment")
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        install = [uv, "pip", "install", "--python", str(home / "bin" / "python")] if uv else []
        install = install or [str(home / "bin" / "pip"), "install"]
        environment = {**os.environ, "UV_NATIVE_TLS": "1"}
        _run([*install, "--require-hashes", "-r", str(LITELLM)], "installing LiteLLM Proxy", env=environment)
        ready.touch()
    return home / "bin" / "litellm"


def nginx() -> str:
    """Return nginx's program; as root its Debian package is installed if it is missing."""
    if (found := _nginx()) is None:
        try:
            ensure_packages(("nginx-light",), Progress(), purpose="the benchmark's floor")
        except ClusterError as error:
            raise MissingToolError(str(error)) from None
        found = _nginx()
    if found is None:
        raise MissingToolError("nginx is not in PATH.")
    return found


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def output(*command: str) -> str:
    """What a program prints, errors included; "unknown" if it cannot be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return "unknown"
    return (done.stdout + done.stderr).strip()


def litellm_versions(program: Path) -> str:
    """LiteLLM's version and that of what serves it, from its own environment."""
    names = ("litellm", "uvicorn", "fastapi", "httpx", "aiohttp", "uvloop", "httptools")
    code = f"from importlib.metadata import version\nprint(', '.join(f'{{n}} {{version(n)}}' for n in {names!r}))"
    return output(str(program.parent / "python"), "-c", code)
