"""One line in the log for every request, whatever became of it.

The usual way of a log line takes 0.1 ms, which is more than a gateway spends on a whole request. These lines are kept
for a moment and written together, in the shape of all others (`logs.py`). A process that is killed loses the last
FLUSH_SECONDS of them.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

FLUSH_SECONDS = 0.1
MOST_WAITING = 512  # lines; then they are written at once

Value = str | int | float | None


class RequestLog:
    """The lines of one process. `configure` says how they look; before it nothing is written."""

    def __init__(self) -> None:
        self._service = ""
        self._json = True
        self._waiting: list[tuple[float, Mapping[str, Value]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that will write what waits
        self.enabled = False

    def configure(self, service: str, level: str, *, json: bool) -> None:
        """Write lines of `service` from now on, unless `level` keeps information out; see `logs.configure`."""
        self._service, self._json = service, json
        self.enabled = logging.getLevelNamesMapping().get(level.upper(), logging.INFO) <= logging.INFO

    def add(self, fields: Mapping[str, Value]) -> None:
        """Note a request that has ended; fields that are None or empty are left out of its line."""
        if not self.enabled:
            return
        self._waiting.append((time.time(), fields))
        if len(self._waiting) >= MOST_WAITING:
            self.flush()
        elif self._loop is not (loop := asyncio.get_running_loop()):
            self._loop = loop
            loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        self._loop = None
        waiting, self._waiting = self._waiting, []
        if waiting:  # the values are names and numbers of ours, and ids without spaces: nothing to hide
            sys.stderr.write("".join([self._line(ended, fields) for ended, fields in waiting]))
            sys.stderr.flush()

    def _line(self, ended: float, fields: Mapping[str, Value]) -> str:
        moment = datetime.fromtimestamp(ended, UTC).isoformat().replace("+00:00", "Z")
        said = {name: value for name, value in fields.items() if value is not None and value != ""}
        if not self._json:
            words = " ".join(f"{name}={value!r}" for name, value in said.items())
            return f"{moment} [info     ] request {words}\n"
        line = {"event": "request", **said, "level": "info", "logger": "requests", "timestamp": moment}
        return msgspec.json.encode({**line, "service": self._service}).decode() + "\n"


REQUESTS = RequestLog()
atexit.register(REQUESTS.flush)
