"""One round for one subject: latency, throughput, paced streams, a flood of events, how many streams one core holds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from figures import Fidelity, fidelity_of_dump, per, percentile
from machine import cpu_seconds, resident
from subjects import Subject

PACE_MICROS = 2000
LATE_NANOS = 50e6  # streams are on pace while 99 % of their events come within this
STEPS = (2.0, 1.5, 1.25, 1.0, 0.8, 0.6, 0.4, 0.2)  # of the number that the cost of an event would allow
ASK_SECONDS = 300
RETRIES = 2
Result = TypeVar("Result")
QUESTION = (
    "Here is an invoice of our shop, as text: a pair of shoes for 95 euros, a coat for 90 euros, a scarf for 25 euros,"
    " each with tax included. Please list the items with their prices, add them up, and say whether the total of 210"
    " euros that the customer was charged is right. "
)


@dataclass(frozen=True)
class Sizes:
    """How much is asked in one round."""

    calm_seconds: float
    busy_seconds: float
    connections: int
    paced_streams: int
    paced_events: int
    flood_streams: int
    flood_events: int
    pace_events: int  # per stream, when looking for the most streams that keep the pace


WARM_SECONDS = 6.0
FULL = Sizes(2.0, 4.0, 32, 2, 2500, 8, 1000, 500)
QUICK = Sizes(0.7, 1.5, 32, 2, 500, 4, 500, 200)


class FailedError(Exception):
    """A request was not answered as it should be."""


@dataclass
class Seen:
    """What the load generator saw."""

    requests: int
    failures: int
    failure: str
    elapsed: float  # nanoseconds, like all times here
    took: list[int]
    events: int
    delays: list[int]
    reads: int
    dump: str = ""


@dataclass
class Round:
    """The figures of one subject in one round. CPU in µs, latencies in µs, memory in MiB."""

    p50: float = 0.0
    p99: float = 0.0
    per_second: float = 0.0
    cpu_request: float = 0.0
    redis_request: float = 0.0
    cpu_event: float = 0.0
    event_p50: float = 0.0
    event_p99: float = 0.0
    events_per_read: float = 0.0
    flood_per_second: float = 0.0
    streams: int = 0
    cpu_event_busy: float = 0.0  # with so many streams
    read_busy: float = 0.0  # events per read, with so many streams
    memory: float = 0.0
    fidelity: Fidelity = field(default_factory=lambda: Fidelity(0))


class Load:
    """The load generator."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._dump = folder / "events"

    def ask(self, subject: Subject, connections: int, **how: float) -> Seen:
        """Ask a subject on so many connections at once.

        `how`: `seconds` or `requests` (per connection); `events` and `pace` (µs) of a stream, whose events are kept.

        Raises:
            FailedError: one request failed; figures of a subject that refuses would flatter it.
        """
        events = how.pop("events", 0)
        wanted = f"events={events} pace_us={how.pop('pace', 0)}" if events else ""
        body = {
            "model": subject.model,
            "messages": [{"role": "user", "content": QUESTION + wanted}],
            "max_tokens": 512,
            **({"stream": True, "stream_options": {"include_usage": True}} if events else {}),
        }
        spec = {
            "address": subject.address,
            "path": subject.path,
            "headers": subject.headers,
            "body": json.dumps(body),
            "connections": connections,
            "dump": str(self._dump) if events else "",
            **how,
        }
        done = subprocess.run(
            [self._program, "ask"],
            input=json.dumps(spec).encode(),
            capture_output=True,
            timeout=ASK_SECONDS,
            check=True,
        )
        seen = Seen(**{name: value or _empty(name) for name, value in json.loads(done.stdout).items()})
        if seen.failures:
            raise FailedError(f"{subject.name}: {seen.failures} of {connections} clients failed: {seen.failure}")
        if events:
            seen.dump = self._dump.read_text()
            self._dump.unlink()
        return seen


def _empty(name: str) -> object:
    return {"took": [], "delays": [], "failure": ""}.get(name, 0)


def spent(subject: Subject) -> float:
    """Processor time of all processes of a subject so far, in seconds."""
    return sum(cpu_seconds(process.pid) for process in subject.processes)


@dataclass
class Measurer:
    """Measures subjects, one after the other."""

    load: Load
    sizes: Sizes
    redis_pid: int

    def tried(self, what: Callable[[Subject], Result], subject: Subject) -> Result:
        """Do `warm` or `round`; once more, up to twice, where a request failed (a store that got no time to answer).

        Raises:
            FailedError: it failed each time.
        """
        for _ in range(RETRIES):
            try:
                return what(subject)
            except FailedError as error:
                print(f"measured again: {error}", flush=True)
        return what(subject)

    def warm(self, subject: Subject) -> None:
        """Let caches, connections and compilers settle: Node's takes thousands of requests."""
        self.load.ask(subject, 1, requests=20)
        self.load.ask(subject, self.sizes.connections, seconds=WARM_SECONDS)
        self.load.ask(subject, 4, requests=10, events=100)

    def round(self, subject: Subject) -> Round:
        """Measure everything once."""
        seen = Round()
        self._requests(subject, seen)
        self._paced(subject, seen)
        self._flood(subject, seen)
        self._streams(subject, seen)
        seen.memory = sum(resident(process.pid) for process in subject.processes)
        return seen

    def _requests(self, subject: Subject, seen: Round) -> None:
        sizes = self.sizes
        calm = self.load.ask(subject, 1, seconds=sizes.calm_seconds)
        seen.p50, seen.p99 = percentile(calm.took, 0.5) / 1e3, percentile(calm.took, 0.99) / 1e3
        before, redis = spent(subject), cpu_seconds(self.redis_pid)
        busy = self.load.ask(subject, sizes.connections, seconds=sizes.busy_seconds)
        seen.cpu_request = per(spent(subject) - before, busy.requests)
        seen.redis_request = per(cpu_seconds(self.redis_pid) - redis, busy.requests)
        seen.per_second = busy.requests / busy.elapsed * 1e9

    def _paced(self, subject: Subject, seen: Round) -> None:
        """Few streams, one event every 2 ms: each event is a turn of the event loop of its own."""
        streams, events = self.sizes.paced_streams, self.sizes.paced_events
        before = spent(subject)
        paced = self.load.ask(subject, streams, requests=1, events=events, pace=PACE_MICROS)
        seen.cpu_event = per(spent(subject) - before, streams * events)
        seen.event_p50, seen.event_p99 = percentile(paced.delays, 0.5) / 1e3, percentile(paced.delays, 0.99) / 1e3
        seen.events_per_read = paced.events / max(1, paced.reads)
        seen.fidelity += fidelity_of_dump(paced.dump, events, streams)

    def _flood(self, subject: Subject, seen: Round) -> None:
        """Events as fast as they can be had, in blocks that end anywhere."""
        streams, events = self.sizes.flood_streams, self.sizes.flood_events
        flood = self.load.ask(subject, streams, requests=1, events=events)
        seen.flood_per_second = flood.events / flood.elapsed * 1e9
        seen.fidelity += fidelity_of_dump(flood.dump, events, streams)

    def _streams(self, subject: Subject, seen: Round) -> None:
        """The most streams with an event every 2 ms that one core keeps on pace."""
        allowed, events = PACE_MICROS / max(seen.cpu_event, 1.0), self.sizes.pace_events
        for step in STEPS:
            streams = max(1, round(allowed * step))
            before = spent(subject)
            paced = self.load.ask(subject, streams, requests=1, events=events, pace=PACE_MICROS)
            seen.cpu_event_busy = per(spent(subject) - before, streams * events)
            seen.read_busy = paced.events / max(1, paced.reads)
            if percentile(paced.delays, 0.99) <= LATE_NANOS:
                seen.streams = streams
                return
            if streams == 1:
                return
