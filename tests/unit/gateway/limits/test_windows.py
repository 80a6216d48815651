"""Days and months of a time zone as instants."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.limits.windows import Windows

HOUR = 3_600_000_000
ZONES = ("UTC", "Europe/Berlin", "America/Havana", "America/Sao_Paulo", "Asia/Beirut", "Asia/Kathmandu", "Pacific/Apia")


def instant(text: str) -> int:
    """Microseconds of an ISO 8601 time."""
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("zone", "now", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00:00+02:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00:00+01:00", 25),
        ("Asia/Beirut", "2021-03-28T12:00:00+03:00", 23),  # its midnight does not exist
        ("America/Havana", "2026-11-01T12:00:00-05:00", 25),  # its midnight comes twice
        ("UTC", "2026-11-23T00:00:00+00:00", 24),
    ],
)
def test_a_day_is_as_long_as_the_time_zone_says(zone: str, now: str, hours: int) -> None:
    """Twenty-three, twenty-four or twenty-five hours from the first moment of the date to that of the next."""
    windows = Windows.at(ZoneInfo(zone), instant(now))
    assert windows.day[1] - windows.day[0] == hours * HOUR
    assert windows.hold(instant(now))


def test_a_month_begins_at_local_midnight_of_its_first_day() -> None:
    """December's boundaries are the first of December, of January and of February, where the tenant is."""
    windows = Windows.at(ZoneInfo("Asia/Kathmandu"), instant("2026-11-30T18:15:00+00:00"))
    first = [f"{month}-01T00:00:00+05:45" for month in ("2026-12", "2027-01", "2027-02")]
    assert list(windows.month) == [instant(text) for text in first]


@given(st.integers(0, 2_200_000_000).map(lambda second: second * 1_000_000), st.sampled_from(ZONES))
def test_windows_hold_their_moment_and_follow_each_other(now: int, zone: str) -> None:
    """Any moment lies in its day, which lies in its month, and the next day begins where this one ends."""
    windows = Windows.at(ZoneInfo(zone), now)
    assert windows.day[0] <= now < windows.day[1] < windows.day[2]
    assert windows.month[0] <= windows.day[0] < windows.day[1] <= windows.month[1] < windows.month[2]
    assert Windows.at(ZoneInfo(zone), windows.day[1]).day[:2] == windows.day[1:]
    assert Windows.at(ZoneInfo(zone), windows.month[1]).month[:2] == windows.month[1:]
    local = datetime.fromtimestamp(now / 1_000_000, UTC).astimezone(ZoneInfo(zone))
    assert datetime.fromtimestamp(windows.day[0] / 1_000_000, UTC).astimezone(ZoneInfo(zone)).date() == local.date()
