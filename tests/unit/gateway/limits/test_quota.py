"""What the limits' client sends and what it remembers, without a Redis."""

import time
from zoneinfo import ZoneInfoNotFoundError

import pytest

from assistant_gateway.limits.limit_scope import Amount, Limits, LimitScope
from assistant_gateway.limits.quota import SCRIPT, command
from assistant_gateway.limits.watermark import Recent, Watermark
from assistant_gateway.limits.windows import Windows

AMOUNT = Amount(1, 1)


def test_the_tenant_comes_first_and_is_counted_without_limits_too() -> None:
    """The script reads the tenant's counters from the first level."""
    limits = Limits.of("t_1", "UTC", [LimitScope("assistant", "support", budget=5, period="Day")])
    assert limits.fields == ("tenant", "assistant:support")
    assert limits.arguments == ("tenant", 0, 0, -1, -1, "Month", "assistant:support", 0, 0, -1, 5, "Day")


def test_all_keys_lie_under_the_tenants_quota_prefix() -> None:
    """One hash tag, so one slot; no key that the tenant's own Redis user reaches."""
    count, *keys = Limits.of("t_1", "UTC").keys
    assert count == len(keys) == 4
    assert all(str(key).startswith("quota:{t_1}:") for key in keys)


def test_no_time_of_the_caller_is_sent() -> None:
    """Arguments hold window boundaries, never the time; the script asks its own clock, once."""
    windows = Windows((1, 2, 3), (4, 5, 6))
    sent = command(Limits.of("t_1", "UTC"), "usage", windows, "", ())
    assert sent[5:] == ("usage", 1, 2, 3, 4, 5, 6, "")
    assert SCRIPT.count(b"redis.call('TIME')") == 1


@pytest.mark.parametrize("field", ["requests_per_minute", "tokens", "budget"])
def test_negative_limits_are_refused(field: str) -> None:
    """A negative number would mean "no limit" to the script."""
    with pytest.raises(ValueError, match="is not between"):
        Limits.of("t_1", "UTC", [LimitScope("tenant", **{field: -1})])


def test_an_unknown_time_zone_is_refused() -> None:
    """Not taken for UTC: the tenant's day would end at another time than it was told."""
    with pytest.raises(ZoneInfoNotFoundError):
        Limits.of("t_1", "Europe/Atlantis")


def test_entries_count_within_one_epoch() -> None:
    """After a restoring there may be fewer entries than before it; within an epoch there never are."""
    known = Watermark()
    for epoch, entries in ((1, 5), (1, 3), (2, 4), (1, 9)):
        known.see(epoch, entries)
    assert (known.epoch, known.entries) == (2, 4)


def test_settlings_are_kept_until_redis_must_have_written_them() -> None:
    """The last one stays as witness, those long before it go; after half of Redis's memory the witness goes as well."""
    known, limits, now = Watermark(), Limits.of("t_1", "UTC"), time.monotonic()
    for request, age in (("old", 60.0), ("recent", 3.0), ("last", 0.0)):
        known.keep(Recent(now - age, limits, request, AMOUNT, b"entry"))
    assert [settling.request for settling in known.recent] == ["recent", "last"]
    assert known.witness == "last"
    known = Watermark()
    known.keep(Recent(now - 1801, limits, "last", AMOUNT, b"entry"))
    assert known.witness == ""


def test_calls_that_nobody_renews_are_forgotten() -> None:
    """A call whose hold has expired is not held again, and does not stay in memory."""
    known, limits = Watermark(), Limits.of("t_1", "UTC")
    known.begin("gone", limits, AMOUNT, 0)
    time.sleep(0.001)
    known.begin("here", limits, AMOUNT, 60_000_000)
    assert list(known.held) == ["here"]
