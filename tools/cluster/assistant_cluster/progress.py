"""Progress lines with the time since the start, so that a wait of a minute does not look like a hang."""

import sys
import time
from collections.abc import Callable
from typing import TextIO, TypeVar

T = TypeVar("T")


class Progress:
    """Prints `[ 3.1s] text`; `quiet` keeps tests silent."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._quiet = quiet
        self._stream = stream or sys.stdout
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since this progress began."""
        return time.monotonic() - self._started

    def __call__(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            print(f"[{self.elapsed:5.1f}s] {text}", file=self._stream, flush=True)


def wait_until(probe: Callable[[], T | None], *, seconds: float, every: float = 0.1) -> T | None:
    """Call `probe` until it gives something other than None or False; None when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        result = probe()
        if result is not None and result is not False:
            return result
        if time.monotonic() >= deadline:
            return None
        time.sleep(every)
