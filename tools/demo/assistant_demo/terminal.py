"""What the demo shows: one line per step with the time since the start, and what it is waiting for meanwhile."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from assistant_demo.errors import DemoError

BOLD, DIM, GREEN, RED, CYAN = "1", "2", "32", "31", "36"
REPEAT_SECONDS = 15  # an unchanged reason to wait is said again after this, so that nobody thinks it hangs


class Terminal:
    """Prints steps, notes and an answer; colours only where a person looks at them."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self._colour = self.stream.isatty() and "NO_COLOR" not in os.environ
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def styled(self, text: str, *styles: str) -> str:
        """Return the text with colours, where the terminal shows them."""
        return f"\033[{';'.join(styles)}m{text}\033[0m" if self._colour else text

    def line(self, text: str = "") -> None:
        """Print a line as it is."""
        print(text, file=self.stream, flush=True)

    def write(self, text: str) -> None:
        """Print a piece of a line."""
        self.stream.write(text)
        self.stream.flush()

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run one step: a line when it begins to wait, and one with its result and duration when it ends."""
        step = Step(self, name)
        try:
            yield step
        except BaseException as error:
            what = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._stamped(self.styled(f"✗ {name}", RED) + f": {what}")
            raise
        took = self.styled(f"({duration(step.elapsed)})", DIM)
        self._stamped(f"{self.styled('✓', GREEN)} {self.styled(name, BOLD)}: {step.result} {took}")

    def detail(self, text: str) -> None:
        """Print a line below the current step."""
        self._stamped(self.styled(f"  {text}", DIM))

    def _stamped(self, text: str) -> None:
        minutes, seconds = divmod(int(self.elapsed), 60)
        self.line(f"{self.styled(f'{minutes:2}:{seconds:02}', DIM)}  {text}")


class Step:
    """One step while it runs."""

    def __init__(self, terminal: Terminal, name: str) -> None:
        self.result = "done"
        self._terminal = terminal
        self._name = name
        self._started = time.monotonic()
        self._said = ""
        self._said_at = self._started

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Tell what is going on; the same words again are left out for a while."""
        now = time.monotonic()
        if text and (text != self._said or now - self._said_at >= REPEAT_SECONDS):
            self._terminal.detail(f"{self._name}: {text}")
            self._said, self._said_at = text, now

    def wait(self, waiting_for: Callable[[], str | None], *, seconds: float, hint: str, every: float = 1.0) -> None:
        """Call until it returns None; what it returns before is shown as the reason to wait.

        Raises `DemoError` with the last reason and the hint when the time is over.
        """
        deadline = time.monotonic() + seconds
        while (reason := waiting_for()) is not None:
            if time.monotonic() >= deadline:
                raise DemoError(f"{self._name}: not done after {duration(seconds)}. {reason}\n{hint}")
            self.say(reason)
            time.sleep(every)


def duration(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
