"""Finds the programs of `tools.py`, or gets them: KUBEBUILDER_ASSETS and PATH, cache, download, package, build.

What is downloaded or built goes into a cache of the user, keyed by version and recipe, in one step: whoever is
interrupted leaves nothing half done behind. A lock keeps two invocations from building the same thing twice.
"""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from assistant_cluster.download import DownloadError, fetch
from assistant_cluster.errors import ClusterError
from assistant_cluster.gobuild import BuildError, build
from assistant_cluster.package import PackageError, unpack
from assistant_cluster.progress import Progress
from assistant_cluster.tools import TOOLS, Tool


@dataclass(frozen=True)
class Programs:
    """The programs of one tool and where they were found."""

    tool: Tool
    commands: dict[str, list[str]]
    source: str

    def command(self, program: str | None = None) -> list[str]:
        """Command line of a program (the tool's first one by default)."""
        return list(self.commands[program or self.tool.programs[0]])


def cache_folder() -> Path:
    """Where programs are kept (XDG_CACHE_HOME honoured)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "assistant-platform" / "bin"


def ensure(name: str, progress: Progress | None = None, *, programs: tuple[str, ...] | None = None) -> Programs:
    """Programs of a tool; gets them when there are none, which may take minutes. Says all it tried when it fails.

    `programs` names the ones that are needed: an installation that has only these will do.
    """
    progress = progress or Progress()
    tool = TOOLS[name]
    tried: list[str] = []
    if found := _installed(tool, programs or tool.programs, tried):
        return found
    for note in (line for line in tried if "has version" in line):
        progress(f"{tool.name}: {note}")
    if found := _cached(tool, tried):
        return found
    with _lock(tool, progress):
        # Somebody else may have got it while we waited.
        if found := _cached(tool, []):
            return found
        for way in (_download, _unpack, _build):
            if way(tool, tried, progress) and (found := _cached(tool, [])):
                return found
    lines = "\n".join(f"  - {line}" for line in tried)
    raise ClusterError(f"{tool.name} {tool.version} could not be had. Tried, in this order:\n{lines}")


def find(name: str) -> Programs | None:
    """Programs of a tool if they are here already."""
    return _installed(TOOLS[name], TOOLS[name].programs, []) or _cached(TOOLS[name], [])


def _installed(tool: Tool, programs: tuple[str, ...], tried: list[str]) -> Programs | None:
    """Programs in KUBEBUILDER_ASSETS or on the PATH, if they have the right version."""
    if not tool.version_arguments:
        tried.append("KUBEBUILDER_ASSETS and PATH: not used for it (it cannot tell its version)")
        return None
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    for label, path in (("KUBEBUILDER_ASSETS", assets), ("PATH", _path())):
        if not path:
            tried.append(f"{label}: not set")
            continue
        commands = {program: shutil.which(program, path=path) for program in programs}
        missing = [program for program, file in commands.items() if file is None]
        if missing:
            tried.append(f"{label}: no {', '.join(missing)}")
            continue
        version = _version([str(commands[programs[0]]), *tool.version_arguments])
        if not tool.accepts(version):
            tried.append(f"{label}: has version {version or 'unknown'}, not {tool.version}")
            continue
        return Programs(tool, {program: [str(file)] for program, file in commands.items()}, label)
    return None


def _path() -> str:
    """The PATH with the folders of Debian's daemons, which a user's PATH often lacks."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _version(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\bv?(\d+\.\d+\.\d+)\b", done.stdout + done.stderr)
    return f"v{found[1]}" if found else None


def _cached(tool: Tool, tried: list[str]) -> Programs | None:
    folder = cache_folder() / tool.key
    if tool.combined and _runnable(folder / tool.combined):
        combined = str(folder / tool.combined)
        return Programs(tool, {program: [combined, program] for program in tool.programs}, "cache")
    if all(_runnable(folder / program) for program in tool.programs):
        return Programs(tool, {program: [str(folder / program)] for program in tool.programs}, "cache")
    tried.append(f"cache: nothing in {folder}")
    return None


def _runnable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.X_OK)


def _download(tool: Tool, tried: list[str], progress: Progress) -> bool:
    progress(f"{tool.name} {tool.version}: asking the official download")
    try:
        with _new_folder(tool) as folder:
            for program in tool.programs:
                fetch(tool, program, folder / program)
    except DownloadError as error:
        tried.append(f"download: {error}")
        progress(f"{tool.name} {tool.version}: no download ({error})")
        return False
    return True


def _unpack(tool: Tool, tried: list[str], progress: Progress) -> bool:
    if tool.package is None:
        return False
    progress(f"{tool.name} {tool.version}: from the package {tool.package.name} {tool.package.version}")
    try:
        with _new_folder(tool) as folder:
            unpack(tool, tool.package, folder)
    except PackageError as error:
        tried.append(f"package: {error}")
        progress(f"{tool.name} {tool.version}: no package ({error})")
        return False
    return True


def _build(tool: Tool, tried: list[str], progress: Progress) -> bool:
    try:
        with _new_folder(tool) as folder:
            build(tool, folder, progress)
    except BuildError as error:
        tried.append(f"build with Go: {error}")
        return False
    return True


@contextmanager
def _new_folder(tool: Tool) -> Iterator[Path]:
    """A folder that takes its place in the cache only when the body succeeds."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=f".{tool.name}-", dir=cache))
    target = cache / tool.key
    try:
        yield partial
        partial.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(tool: Tool, progress: Progress) -> Iterator[None]:
    """Only one process gets a tool; leftovers of one that was killed are removed."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{tool.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"{tool.name} {tool.version}: another process is getting it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        for leftover in cache.glob(f".{tool.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
