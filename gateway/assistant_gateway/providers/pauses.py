"""When a provider wants to be asked again, from any form in which one says it.

RFC 9110, 10.2.3: a number of whole seconds, or a date. Providers also write fractions, units and dates of their own;
clients that follow the standard take none of these, so what goes on to them is always whole seconds, rounded up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 30 * 24 * 3600  # seconds; whoever says more means something else
_EPOCH = 1_000_000_000  # numbers from here on are points in time: in seconds, or a thousand times that
_NUMBER = re.compile(r"\+?(\d{1,15}(?:\.\d{0,9})?|\.\d{1,9})")
_UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0}
_UNITS |= {"m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0}
_UNITS |= {"h": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{0,9})?)\s*([a-z]+)[\s,]*")


def seconds(said: object, now: datetime | None = None) -> float | None:
    """Return after how many seconds it is worth asking again; None where that cannot be read."""
    if isinstance(said, bool) or not isinstance(said, str | int | float):
        return None
    text = str(said).strip().strip('"').strip()
    if not text or len(text) > 100:
        return None
    now = now or datetime.now(UTC)
    value = _number(text, now)
    if value is None:
        value = _parts(text.lower())
    if value is None:
        value = _date(text, now)
    if value is None or not math.isfinite(value) or value > LONGEST:
        return None
    return max(0.0, value)


def of_headers(headers: Mapping[str, str], body: object = None) -> float | None:
    """Return the pause that an answer names: in its header, in OpenAI's own one in milliseconds, or in its body."""
    found = seconds(headers.get("retry-after"))
    if found is None and (milliseconds := headers.get("retry-after-ms")):
        found = seconds(f"{milliseconds.strip()}ms")
    return seconds(body) if found is None else found


def _number(text: str, now: datetime) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    if value >= _EPOCH * 1000:
        value /= 1000
    return value - now.timestamp() if value >= _EPOCH else value


def _parts(text: str) -> float | None:
    """Return the seconds of "1m30s", "500ms" and "30 seconds"."""
    at, total = 0, 0.0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or part[2] not in _UNITS:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    return total


def _date(text: str, now: datetime) -> float | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(text.replace("Z", "+00:00") if read is datetime.fromisoformat else text)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
        found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return max(0.0, (found - now).total_seconds())
    return None
