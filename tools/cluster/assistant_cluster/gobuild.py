"""Builds a tool with Go, and says how long that takes, because it takes minutes on a small machine."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from assistant_cluster.progress import Progress
from assistant_cluster.tools import GoBuild, Tool

REPORT_SECONDS = 30


class BuildError(Exception):
    """Why there is no build."""


def build(tool: Tool, folder: Path, progress: Progress) -> None:
    """Build a tool's program into `folder`."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise BuildError("Go is not installed (https://go.dev/doc/install)")
    minutes = tool.build.minutes
    progress(f"{tool.name} {tool.version}: building with Go, about {minutes:g} min on two cores, once per version")
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command(go, tool, folder),
            cwd=tool.build.folder or folder,
            env=environment(tool.build, folder),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=REPORT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    elapsed = (time.monotonic() - started) / 60
                    progress(f"{tool.name} {tool.version}: building, {elapsed:.1f} of about {minutes:g} min")
        except BaseException:
            process.terminate()
            process.wait()
            raise
        output.seek(0)
        if code != 0:
            raise BuildError(_reason(output.read()))
    progress(f"{tool.name} {tool.version}: built in {(time.monotonic() - started) / 60:.1f} min")


def command(go: str, tool: Tool, folder: Path) -> list[str]:
    """Go's command line: small, reproducible programs with their version inside."""
    recipe = tool.build
    variables = "".join(f" -X {name}={value}" for name, value in recipe.variables.items())
    flags = ["-trimpath", "-ldflags", "-s -w" + variables]
    if recipe.folder is None:
        return [go, "install", *flags, f"{recipe.package}@{tool.version}"]
    # -mod=readonly: what is built is what go.sum pins, or nothing.
    file = folder / (tool.combined or recipe.output or tool.name)
    return [go, "build", "-mod=readonly", *flags, "-o", str(file), recipe.package]


def environment(recipe: GoBuild, folder: Path) -> dict[str, str]:
    """The caller's environment, with static linking and, for `go install`, our folder as target.

    A compiler lives for seconds, so it collects garbage only near its share of the memory: a sixth less time for
    Kubernetes (5 min 52 s instead of 6 min 59 s on two cores). What the caller has set of this stays.
    """
    changed = {"GOGC": "off", "GOMEMLIMIT": f"{compiler_memory_mib()}MiB", **os.environ, "CGO_ENABLED": "0"}
    if recipe.folder is None:
        changed["GOBIN"] = str(folder)
    return changed


def compiler_memory_mib() -> int:
    """Memory that one compiler may use before it collects garbage: half of the machine's, shared by its processors."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return max(512, pages * size // 2**21 // (os.cpu_count() or 1))


def _reason(output: str) -> str:
    lines = [line for line in output.splitlines() if line and not line.startswith("go: downloading")]
    return "go failed: " + " | ".join(lines[-5:])[:800]
