"""Questions for usage: what a query string means in the tenant's time zone, and what is refused by name."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from assistant_crds.gateway_api import USAGE_GROUPS
from assistant_gateway.errors import GatewayError
from assistant_gateway.usage.query import Query, parse_query

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 10, 31, 23, 30, tzinfo=UTC)  # already November in Berlin


def ask(*parameters: tuple[str, str], zone: ZoneInfo = BERLIN) -> Query:
    return parse_query(parameters, zone, NOW)


def test_without_parameters_the_present_month_of_the_tenant_is_meant() -> None:
    """By its own calendar, day by day."""
    query = ask()
    assert query.since == datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert query.until == datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert (query.groups, query.limit, query.after) == (("day",), 100, None)
    assert query.days()[0] == date(2026, 11, 1)
    assert query.days()[-1] == date(2026, 11, 30)


def test_a_day_is_whole_and_an_instant_is_exact() -> None:
    """`to` as a day includes it, with the hour that summer time gives or takes; as an instant it does not."""
    query = ask(("from", "2026-10-25"), ("to", "2026-10-25"))
    assert (query.until - query.since).total_seconds() == 25 * 3600
    assert query.days() == [date(2026, 10, 25)]
    query = ask(("from", "2026-10-25T00:00:00+02:00"), ("to", "2026-10-26T00:00:00Z"))
    assert query.until == datetime(2026, 10, 26, tzinfo=UTC)
    assert query.days() == [date(2026, 10, 25), date(2026, 10, 26)]


def test_a_plus_that_was_not_escaped_is_understood() -> None:
    """Query strings make a space of it."""
    assert ask(("from", "2026-11-01T00:00:00 01:00")) == ask(("from", "2026-11-01T00:00:00+01:00"))


def test_groups_may_be_listed_or_repeated() -> None:
    """Both ways are usual."""
    assert ask(("group_by", "day,model")).groups == ("day", "model")
    assert ask(("group_by", "day"), ("group_by", "model")).groups == ("day", "model")
    assert ask(("group_by", ",".join(USAGE_GROUPS))).groups == USAGE_GROUPS


@pytest.mark.parametrize(
    ("parameters", "field", "code"),
    [
        ([("form", "2026-11-01")], "form", "unknown_parameter"),
        ([("from", "2026-11-01"), ("from", "2026-11-02")], "from", "repeated_parameter"),
        ([("from", "")], "from", "invalid_date"),
        ([("from", "yesterday")], "from", "invalid_date"),
        ([("from", "2026-11-31")], "from", "invalid_date"),
        ([("from", "2026-11-01T00:00:00")], "from", "invalid_date"),
        ([("from", "0001-01-01")], "from", "invalid_date"),
        ([("to", "9999-12-31")], "to", "invalid_date"),
        ([("to", "9999-12-31T23:59:59-12:00")], "to", "invalid_date"),
        ([("from", "2026-11-02"), ("to", "2026-11-01")], "from", "invalid_period"),
        ([("to", "2026-10-01")], "from", "invalid_period"),
        ([("from", "2026-11-01T00:00:00Z"), ("to", "2026-11-01T00:00:00Z")], "from", "invalid_period"),
        ([("from", "2025-01-01"), ("to", "2026-11-01")], "to", "period_too_long"),
        ([("group_by", "")], "group_by", "invalid_group_by"),
        ([("group_by", "day,hour")], "group_by", "invalid_group_by"),
        ([("group_by", "day,day")], "group_by", "invalid_group_by"),
        ([("limit", "0")], "limit", "invalid_limit"),
        ([("limit", "1001")], "limit", "invalid_limit"),
        ([("limit", "-1")], "limit", "invalid_limit"),
        ([("limit", "1e2")], "limit", "invalid_limit"),
        ([("limit", "²")], "limit", "invalid_limit"),
        ([("assistant", "")], "assistant", "invalid_text"),
        ([("user", "a\0b")], "user", "invalid_text"),
        ([("user", "\udcff")], "user", "invalid_text"),
        ([("user", "x" * 257)], "user", "invalid_text"),
        ([("cursor", "nonsense")], "cursor", "invalid_cursor"),
        ([("cursor", "é")], "cursor", "invalid_cursor"),
        ([("cursor", "")], "cursor", "invalid_cursor"),
    ],
)
def test_a_bad_parameter_is_a_400_that_names_it(parameters: list[tuple[str, str]], field: str, code: str) -> None:
    """Nothing is guessed and nothing ignored."""
    with pytest.raises(GatewayError) as caught:
        ask(*parameters)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, field, code)


def test_a_cursor_goes_on_with_the_same_question_and_no_other() -> None:
    """The page after a key; another time, grouping or filter does not fit it."""
    question = [("group_by", "day,user"), ("from", "2026-11-01")]
    cursor = ask(*question).cursor((3, "ada", "USD"))
    assert ask(*question, ("cursor", cursor)).after == (3, "ada", "USD")
    assert ask(*question, ("cursor", cursor), ("limit", "7")).after == (3, "ada", "USD")
    for other in (
        [("group_by", "day,model"), ("from", "2026-11-01")],
        [("group_by", "day,user"), ("from", "2026-11-02")],
        [*question, ("user", "ada")],
    ):
        with pytest.raises(GatewayError) as caught:
            ask(*other, ("cursor", cursor))
        assert caught.value.code == "invalid_cursor"


@pytest.mark.parametrize("key", [("3", "ada", "USD"), (3, "ada"), (3, "a\0", "USD"), (10**30, "ada", "USD")])
def test_a_forged_cursor_is_refused(key: tuple[int | str, ...]) -> None:
    """What a cursor holds reaches the database as it is, so it is checked like any other input."""
    question = [("group_by", "day,user")]
    with pytest.raises(GatewayError):
        ask(*question, ("cursor", ask(*question).cursor(key)))


@pytest.mark.parametrize("content", [b"[]", b"{}", b'["x",true,"a","USD"]', b"[" * 5000, b"\xff"])
def test_a_cursor_of_any_content_is_refused(content: bytes) -> None:
    """Whatever it decodes to."""
    with pytest.raises(GatewayError):
        ask(("cursor", base64.urlsafe_b64encode(content).decode()))
