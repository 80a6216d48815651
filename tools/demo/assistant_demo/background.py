"""Programs that outlive the command that started them, until `stop`: each has a record, by which it is found again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def start(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own; `record` it once it works."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )


def record(file: Path, process: subprocess.Popen[bytes], **facts: Any) -> None:
    """Write down a program that runs, with what is needed to use it."""
    file.write_text(json.dumps({"pid": process.pid, "started": _started(process.pid), **facts}))


def running(file: Path) -> dict[str, Any] | None:
    """Return a record if its program still runs, and is not another one under its number."""
    try:
        known: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    started = _started(known["pid"])
    return known if started and started == known["started"] else None


def stop(file: Path) -> int | None:
    """Ask a recorded program to end and remove the record; returns the process id if it still ran."""
    known = running(file)
    if known:
        with contextlib.suppress(ProcessLookupError):
            os.kill(known["pid"], signal.SIGTERM)
    file.unlink(missing_ok=True)
    return int(known["pid"]) if known else None


def _started(pid: int) -> str:
    """When a process started, as `ps` tells it on Linux and macOS; empty when there is none."""
    done = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    )
    return done.stdout.strip()
