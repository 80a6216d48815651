"""What counts as a difference between ledger and counters."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from ledger_tenant import entry

from assistant_gateway.ledger.compare import Drift, compare
from assistant_gateway.ledger.database import ScopeSums
from assistant_gateway.ledger.entry import encode_entry
from assistant_gateway.ledger.rebuild import Counts
from assistant_gateway.ledger.rows import Row, read
from assistant_gateway.limits.quota import Counted, ScopeUsage

NOW = 1_790_000_000_000_000
DAY = 86_400_000_000


def row(call: str, at: int = NOW, scope: str = "support") -> Row:
    found = read("t_a", "1-0", {b"at": str(at).encode(), b"entry": encode_entry(entry(call, scope=scope))})
    assert isinstance(found, Row)
    return found


@pytest.fixture
def counts() -> Counts:
    """Two calls of an assistant, today."""
    made = Counts(ZoneInfo("UTC"), NOW)
    for call in ("a", "b"):
        made.add_row(row(call))
    return made


def usage(counts: Counts, calls: int, *, another_day: bool = False) -> dict[str, ScopeUsage]:
    """Return counters of so many calls."""
    (start, end, _), (first, last, _) = counts.windows.day, counts.windows.month
    day = (start - DAY, start) if another_day else (start, end)
    counted = Counted(day, 12 * calls, 3 * calls, (first, last), 12 * calls, 3 * calls)
    one = ScopeUsage(counted, 0, 0, calls, 12 * calls, 3 * calls)
    return {"tenant": one, "assistant:support": one}


def test_equal_is_no_difference(counts: Counts) -> None:
    """Nothing was settled meanwhile, and all agrees."""
    assert compare(usage(counts, 2), counts, usage(counts, 2)) == []


def test_between_is_no_difference(counts: Counts) -> None:
    """What was settled during the look may be in the ledger or not."""
    assert compare(usage(counts, 1), counts, usage(counts, 3)) == []


@pytest.mark.parametrize(("before", "after", "counted"), [(3, 4, 3), (0, 1, 1)])
def test_outside_is_told_by_its_distance(counts: Counts, before: int, after: int, counted: int) -> None:
    """Too few and too many, in each scope and window."""
    found = compare(usage(counts, before), counts, usage(counts, after))
    assert Drift("tenant", "entries", "ever", 2, counted) in found
    assert Drift("assistant:support", "cost_micros", "month", 6, 3 * counted) in found
    assert len(found) == 14
    assert {drift.size for drift in found if drift.what == "entries"} == {1}


def test_another_day_is_not_compared(counts: Counts) -> None:
    """Around midnight the day of the counters and that of the ledger may be two; all time is compared."""
    found = compare(usage(counts, 5, another_day=True), counts, usage(counts, 5, another_day=True))
    assert {drift.window for drift in found} == {"month", "ever"}


def test_a_scope_that_one_side_does_not_know_is_a_difference(counts: Counts) -> None:
    """Nothing is as good as zero."""
    known = {"tenant": usage(counts, 2)["tenant"]}
    assert {drift.scope for drift in compare(known, counts, known)} == {"assistant:support"}
    more = {**usage(counts, 2), "assistant:other": usage(counts, 1)["tenant"]}
    assert {drift.scope for drift in compare(more, counts, more)} == {"assistant:other"}


def test_sums_and_rows_add_up_by_day_month_and_scope() -> None:
    """Postgres' sums and the stream's rows count alike; a call counts once; what the tenant alone pays has no scope."""
    counts = Counts(ZoneInfo("UTC"), NOW)
    counts.add_sums(ScopeSums("support", 10, 1, 20, 2, 5, 100, 30))
    counts.add_sums(ScopeSums("", 1, 1, 1, 1, 1, 1, 1))
    for made in (row("a"), row("a"), row("yesterday", NOW - DAY), row("long ago", NOW - 60 * DAY), row("k", scope="")):
        counts.add_row(made)
    totals = {total.field: total for total in counts.totals()}
    support, tenant = totals["assistant:support"], totals["tenant"]
    assert (support.day_tokens, support.month_tokens, support.tokens, support.entries) == (22, 44, 136, 8)
    assert (tenant.day_cost, tenant.month_cost, tenant.cost, tenant.entries) == (1 + 1 + 6, 2 + 1 + 9, 30 + 1 + 12, 10)
    assert [call for call, _ in counts.lately] == ["a", "k"]
