"""Days and months of a tenant's time zone, as instants: what a limit "per day" or "per month" means."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

SECOND = 1_000_000  # microseconds


class Windows(msgspec.Struct, frozen=True):
    """Microseconds since 1970: the start of the current day and month, of the next ones, and of those after.

    Two of each, so that a caller whose clock differs from Redis's around midnight is answered at once.
    """

    day: tuple[int, int, int]
    month: tuple[int, int, int]

    @classmethod
    def at(cls, zone: ZoneInfo, now: int) -> Windows:
        """Return the windows around `now` (microseconds since 1970)."""
        today = datetime.fromtimestamp(now // SECOND, zone).date()
        first = today.replace(day=1)
        days = [_start(today + timedelta(days=offset), zone) for offset in range(3)]
        months = [_start(_later(first, offset), zone) for offset in range(3)]
        return cls((days[0], days[1], days[2]), (months[0], months[1], months[2]))

    def hold(self, now: int) -> bool:
        """Whether `now` lies in the current day, and so in the current month."""
        return self.day[0] <= now < self.day[1]

    @property
    def arguments(self) -> tuple[int, ...]:
        """The six boundaries in the order in which the script wants them."""
        return (*self.day, *self.month)


def _later(first: date, months: int) -> date:
    year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    return date(year, month + 1, 1)


def _start(day: date, zone: ZoneInfo) -> int:
    """Return the first moment of a day. Where midnight is skipped, zoneinfo's `fold=0` gives the moment it is."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    elapsed = midnight.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return elapsed // timedelta(microseconds=1)


def rfc3339(microseconds: int) -> str:
    """Return an instant as Kubernetes writes it."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
