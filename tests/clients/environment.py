"""The clients' own environments: locked, made once, and kept in the cache of this machine.

The clients want other versions of packages than the product, and LlamaIndex wants an older `openai` than the rest.
`python tests/clients/environment.py` makes what is missing and says so. To renew a lock:
`uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header requirements.in -o
requirements.txt`, `npm install --package-lock-only`, `cargo update`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assistant-platform" / "clients"
LOCKS = {
    "python": ("requirements.txt",),
    "llamaindex": ("requirements.txt",),
    "javascript": ("package.json", "package-lock.json"),
    "rust": ("Cargo.toml", "Cargo.lock"),
}
# What is not part of a lock but has to be beside the packages: brought up to date each time.
SOURCES = {"javascript": "suite.test.mjs", "rust": "src/main.rs"}
BUILD = ["cargo", "build", "--locked", "--quiet"]
BUILD_SECONDS = 1800


class MissingError(Exception):
    """An environment cannot be made on this machine."""


def folder(name: str) -> Path:
    """Return where an environment is, by the content of its locks."""
    digest = hashlib.sha256(b"".join((HERE / name / lock).read_bytes() for lock in LOCKS[name])).hexdigest()[:16]
    return CACHE / f"{name}-{digest}"


def ensure(name: str, say: Callable[[str], None] = print) -> Path:
    """Return an environment, made when it is not there yet.

    Raises:
        MissingError: a program is missing, or its packages could not be had.
    """
    place = folder(name)
    if (place / ".ready").exists():
        _bring(name, place)
        if name == "rust":
            _run(BUILD, place)
        return place
    say(f"Installing the clients' environment `{name}` into {place} (once, one to five minutes) ...")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for lock in LOCKS[name]:
        shutil.copy(HERE / name / lock, place / lock)
    _bring(name, place)
    for command in _commands(name, place):
        _run(command, place)
    (place / ".ready").touch()
    return place


def _bring(name: str, place: Path) -> None:
    if source := SOURCES.get(name):
        (place / source).parent.mkdir(exist_ok=True)
        shutil.copy(HERE / name / source, place / source)


def _run(command: list[str], place: Path) -> None:
    if shutil.which(command[0]) is None:
        raise MissingError(f"{command[0]} is not there")
    environment = {**os.environ, "UV_NATIVE_TLS": "1"}
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
    )
    if done.returncode != 0:
        raise MissingError(f"{' '.join(command[:3])} failed: {done.stderr[-2000:]}")


def _commands(name: str, place: Path) -> list[list[str]]:
    if name == "javascript":
        return [["npm", "ci", "--no-fund", "--no-audit", "--ignore-scripts"]]
    if name == "rust":
        return [BUILD]
    uv = str(Path(sys.executable).with_name("uv"))
    install = [uv, "pip", "install", "--quiet", "--python", str(place / "venv" / "bin" / "python"), "--require-hashes"]
    return [[uv, "venv", "--quiet", "--python", sys.executable, "venv"], [*install, "-r", "requirements.txt"]]


if __name__ == "__main__":
    for each in LOCKS:
        try:
            ensure(each)
        except MissingError as error:
            print(f"The clients' environment `{each}` cannot be made: {error}", file=sys.stderr)
