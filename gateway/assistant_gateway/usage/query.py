"""What a question for a tenant's usage asks: parameters checked, days and months as in the tenant's time zone."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from assistant_crds.gateway_api import USAGE_GROUPS
from assistant_gateway import errors
from assistant_gateway.errors import GatewayError

PARAMETERS = frozenset({"from", "to", "group_by", "assistant", "user", "limit", "cursor"})
LIMIT, MOST = 100, 1000
LONGEST_DAYS = 400  # of one report: a year and what is around it
LONGEST_TEXT = 256
_YEARS = range(2000, 2201)  # what everybody's calendar has, whatever the time zone

Key = tuple[int | str, ...]  # one value for each group, then the currency


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A question for usage. From `since` on, before `until`; `after` is the last key of the page before."""

    since: datetime
    until: datetime
    zone: ZoneInfo
    groups: tuple[str, ...]
    assistant: str | None = None
    user: str | None = None
    limit: int = LIMIT
    after: Key | None = None

    def days(self) -> list[date]:
        """Return the tenant's days that the time touches."""
        first = self.since.astimezone(self.zone).date()
        last = (self.until - timedelta(microseconds=1)).astimezone(self.zone).date()
        return [first + timedelta(days=number) for number in range((last - first).days + 1)]

    def cursor(self, key: Key) -> str:
        """Return where the page after `key` begins, as an opaque word that only fits this question."""
        return base64.urlsafe_b64encode(msgspec.json.encode([self._digest(), *key])).decode().rstrip("=")

    def _digest(self) -> str:
        asked = (self.since, self.until, self.zone.key, self.groups, self.assistant, self.user)
        return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:12]

    def at_cursor(self, cursor: str) -> Query:
        """Return the question for the page that begins there.

        Raises:
            GatewayError: 400, the cursor is not one of this question's.
        """
        wrong = errors.invalid_request("The cursor does not belong to this query.", "cursor", code="invalid_cursor")
        try:
            raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            digest, *key = msgspec.json.decode(raw, type=list[int | str])
        except (binascii.Error, UnicodeError, ValueError):  # msgspec's errors are ValueErrors
            raise wrong from None
        kinds = [int if group == "day" else str for group in self.groups] + [str]
        if digest != self._digest() or [type(value) for value in key] != kinds:
            raise wrong
        if not all(abs(value) < 10**6 if isinstance(value, int) else _is_text(value or "-") for value in key):
            raise wrong
        return msgspec.structs.replace(self, after=tuple(key))


def parse_query(parameters: Iterable[tuple[str, str]], zone: ZoneInfo, now: datetime) -> Query:
    """Return what a query string asks.

    Raises:
        GatewayError: 400 that names the parameter.
    """
    given = _given(parameters)
    since, until = _period(given, zone, now)
    query = Query(
        since=since,
        until=until,
        zone=zone,
        groups=_groups(given["group_by"]) if "group_by" in given else ("day",),
        assistant=_text(given, "assistant"),
        user=_text(given, "user"),
        limit=_limit(given["limit"]) if "limit" in given else LIMIT,
    )
    return query.at_cursor(given["cursor"]) if "cursor" in given else query


def start_of(day: date, zone: ZoneInfo) -> datetime:
    """Return the first moment of a day, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _given(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in PARAMETERS:
            known = ", ".join(sorted(PARAMETERS))
            shown = name[:50]
            raise errors.invalid_request(
                f"Unknown parameter {shown!r}. Known parameters: {known}.", shown, code="unknown_parameter"
            )
        if name in given and name != "group_by":
            raise errors.invalid_request(f"{name} is given more than once.", name, code="repeated_parameter")
        given[name] = f"{given[name]},{value}" if name in given else value
    return given


def _period(given: dict[str, str], zone: ZoneInfo, now: datetime) -> tuple[datetime, datetime]:
    month = now.astimezone(zone).date().replace(day=1)
    since, until = start_of(month, zone), start_of(_next_month(month), zone)
    if "from" in given:
        since = _moment(given["from"], "from", zone)
    if "to" in given:
        until = _moment(given["to"], "to", zone)
    if since >= until:
        raise errors.invalid_request(
            "'from' has to be before 'to'; the default is the current month.", "from", code="invalid_period"
        )
    if until - since > timedelta(days=LONGEST_DAYS):
        message = f"The time from 'from' to 'to' may be {LONGEST_DAYS} days at most."
        raise errors.invalid_request(message, "to", code="period_too_long")
    return since, until


def _next_month(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _moment(text: str, name: str, zone: ZoneInfo) -> datetime:
    """Return an instant. A day stands for its first moment as `from`, and for that of the next day as `to`."""
    try:
        if len(text) == len("2026-01-31"):
            day = date.fromisoformat(text)
            _check_year(day.year)
            return start_of(day + timedelta(days=1 if name == "to" else 0), zone)
        # In a query string "+" stands for a space: who does not write "%2B" is understood all the same.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        _check_year(moment.year)
        if moment.tzinfo is None:
            raise ValueError  # noqa: TRY301
        return moment.astimezone(UTC)
    except ValueError:
        message = f"{name} has to be a day such as 2026-01-31, or a time with its zone such as 2026-01-31T12:00:00Z."
        raise errors.invalid_request(message, name, code="invalid_date") from None


def _check_year(year: int) -> None:
    if year not in _YEARS:
        raise ValueError


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(part.strip() for part in text.split(","))
    if len(set(groups)) != len(groups) or not set(groups) <= set(USAGE_GROUPS):
        message = f"group_by takes any of {', '.join(USAGE_GROUPS)}, each once, with commas between them."
        raise errors.invalid_request(message, "group_by", code="invalid_group_by")
    return groups


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MOST):
        raise errors.invalid_request(f"limit has to be from 1 to {MOST}.", "limit", code="invalid_limit")
    return int(text)


def _text(given: dict[str, str], name: str) -> str | None:
    text = given.get(name)
    if text is not None and not _is_text(text):
        raise _bad_text(name)
    return text


def _is_text(text: str) -> bool:
    # Postgres takes neither NUL nor halves of surrogate pairs.
    return 0 < len(text) <= LONGEST_TEXT and "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _bad_text(name: str) -> GatewayError:
    return errors.invalid_request(f"{name} is empty, too long, or no text.", name, code="invalid_text")
