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
from datetime import UTC, datetime

import msgspec

FLUSH_SECONDS = 0.1
MOST_WAITING = 512  # lines; then they are written at once


class Request(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="event", tag="request"):
    """A request that has ended. What is None or empty is left out of its line.

    The values are names and numbers of ours, and ids without spaces: there is nothing to hide in them.
    """

    request_id: str
    trace_id: str = ""
    tenant: str = ""
    assistant: str = ""
    key: str = ""  # the name of the caller's API key
    method: str
    route: str
    status: int
    code: str = ""
    ms: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    # The log says these.
    level: str = ""
    logger: str = ""
    timestamp: datetime | None = None
    service: str = ""


_encode_lines = msgspec.json.Encoder().encode_lines


class RequestLog:
    """The lines of one process. `configure` says how they look; before it nothing is written."""

    def __init__(self) -> None:
        self._service = ""
        self._json = True
        self._waiting: list[Request] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that will write what waits
        self.enabled = False

    def configure(self, service: str, level: str, *, json: bool) -> None:
        """Write lines of `service` from now on, unless `level` keeps information out; see `logs.configure`."""
        self._service, self._json = service, json
        self.enabled = logging.getLevelNamesMapping().get(level.upper(), logging.INFO) <= logging.INFO

    def add(self, request: Request) -> None:
        """Note a request that has ended."""
        if not self.enabled:
            return
        request.level, request.logger, request.service = "info", "requests", self._service
        request.timestamp = datetime.now(UTC)
        self._waiting.append(request)
        if len(self._waiting) >= MOST_WAITING:
            self.flush()
        elif self._loop is None or self._loop.is_closed():
            self._loop = asyncio.get_running_loop()
            self._loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        self._loop = None
        waiting, self._waiting = self._waiting, []
        if waiting:
            lines = _encode_lines(waiting).decode() if self._json else "".join([_readable(line) for line in waiting])
            sys.stderr.write(lines)
            sys.stderr.flush()


def _readable(request: Request) -> str:
    said = msgspec.to_builtins(request)
    moment = said.pop("timestamp")
    for name in ("event", "level", "logger", "service"):
        del said[name]
    words = " ".join(f"{name}={value!r}" for name, value in said.items())
    return f"{moment} [info     ] request {words}\n"


REQUESTS = RequestLog()
atexit.register(REQUESTS.flush)
