"""The benchmark's arithmetic: percentiles, spreads, ratios, and what became of a stream's numbered events. No I/O."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NUMBER = re.compile(r"\bw(\d{7})\b")
MICRO = 1e6


@dataclass(frozen=True)
class Spread:
    """One figure over the rounds."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Smallest, median and largest of at least one value."""
        return cls(min(values), statistics.median(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    if not 0 < share <= 1:
        raise ValueError(f"share has to be in (0, 1], not {share}")
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def ratios(many: Sequence[float], few: Sequence[float]) -> Spread:
    """How many times `many` is `few`, round by round: only figures of one round are compared."""
    if len(many) != len(few):
        raise ValueError(f"{len(many)} rounds against {len(few)}")
    if any(value <= 0 for value in few):
        raise ValueError("a ratio to nothing: the rounds are too short for the clock")
    return Spread.of([one / other for one, other in zip(many, few, strict=True)])


def per(seconds: float, count: int) -> float:
    """Microseconds each, of `seconds` that were spent on `count`."""
    if count <= 0:
        raise ValueError("nothing was counted")
    return seconds * MICRO / count


@dataclass(frozen=True)
class Fidelity:
    """What became of the numbered events of some streams; all zero when each came once, alone and in its place."""

    expected: int
    lost: int = 0
    merged: int = 0  # events that carried more than one number
    reordered: int = 0  # numbers that came after a greater one
    repeated: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing happened to them."""
        return not (self.lost or self.merged or self.reordered or self.repeated)

    def __add__(self, other: Fidelity) -> Fidelity:
        return Fidelity(
            self.expected + other.expected,
            self.lost + other.lost,
            self.merged + other.merged,
            self.reordered + other.reordered,
            self.repeated + other.repeated,
        )


def numbers(event: str) -> list[int]:
    """The sequence numbers in the text of one event's data; none where the data is not a chunk with text."""
    try:
        chunk = json.loads(event)
    except ValueError:
        return []
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    texts = [(choice.get("delta") or {}).get("content") or "" for choice in choices or []]
    return [int(number) for text in texts for number in NUMBER.findall(text)]


def fidelity(events: Sequence[str], expected: int) -> Fidelity:
    """Judge one stream that was sent as the events 0 to `expected` - 1, each with one number."""
    seen: set[int] = set()
    merged = reordered = repeated = 0
    greatest = -1
    for event in events:
        found = numbers(event)
        merged += len(found) > 1
        for number in found:
            repeated += number in seen
            reordered += number < greatest and number not in seen
            seen.add(number)
            greatest = max(greatest, number)
    return Fidelity(expected, len(set(range(expected)) - seen), merged, reordered, repeated)


def fidelity_of_dump(dump: str, expected: int, streams: int) -> Fidelity:
    """Judge streams whose events stand one in a line, with an empty line after each stream; absent ones are lost."""
    total, judged, events = Fidelity(0), 0, list[str]()
    for line in [*dump.split("\n"), ""]:
        if line:
            events.append(line)
        elif events:
            total, judged, events = total + fidelity(events, expected), judged + 1, []
    missing = max(0, streams - judged)
    return total + Fidelity(missing * expected, lost=missing * expected)


def between(text: str, begin: str, end: str, content: str) -> str:
    """Return `text` with what stands between the two marker lines replaced.

    Raises:
        ValueError: a marker is missing, stands twice, or they stand the wrong way round.
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the markers {begin!r} and {end!r} have to stand there once, in this order")
    head, tail = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    return f"{head}\n{content.strip()}\n{tail}"
