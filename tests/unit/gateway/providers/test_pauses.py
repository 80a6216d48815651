"""When to ask again is read from every form in which providers say it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from assistant_gateway.providers.catalog import Provider, target
from assistant_gateway.providers.error_bodies import Detail
from assistant_gateway.providers.openai_wire import translate
from assistant_gateway.providers.pauses import of_headers, seconds

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        *(("7", 7), ("0", 0), (" 7 ", 7), ("7.5", 7.5), (".5", 0.5), ("+3", 3), (30, 30), (1.5, 1.5)),
        *(("30s", 30), ("500ms", 0.5), ("1m30s", 90), ("1h", 3600), ("2 seconds", 2), ("1 min", 60), ("7.66s", 7.66)),
        ("Fri, 01 May 2026 12:01:40 GMT", 100),
        ("Friday, 01-May-26 12:01:40 GMT", 100),
        ("Fri May  1 12:01:40 2026", 100),
        ("2026-05-01T12:01:40Z", 100),
        ("2026-05-01T14:01:40+02:00", 100),
        ("Fri, 01 May 2026 11:00:00 GMT", 0),
        (str(int(NOW.timestamp()) + 100), 100),
        (str(int(NOW.timestamp() + 100) * 1000), 100),
        *(
            (said, None)
            for said in ("", "soon", "-1", "inf", "nan", "1e9", "7 apples", "9" * 200, "99999999", True, [])
        ),
    ],
)
def test_every_form_is_read(said: object, expected: float | None) -> None:
    """Numbers, units, dates in the three forms of HTTP, times since 1970; nonsense says nothing."""
    found = seconds(said, NOW)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_header_wins_over_the_body() -> None:
    """OpenAI's header in milliseconds, and Google's in the body, are asked where there is no other."""
    assert of_headers({"retry-after": "3", "retry-after-ms": "1500"}, "9s") == 3
    assert of_headers({"retry-after-ms": "1500"}, "9s") == 1.5
    assert of_headers({"retry-after": "soon"}, "9s") == 9
    assert of_headers({}) is None


@pytest.mark.parametrize(("said", "header"), [("7.5", "8"), ("30s", "30"), ("0.2", "1"), ("soon", None)])
def test_whole_seconds_go_on(said: str, header: str | None) -> None:
    """Rounded up, as RFC 9110 has them; the gateway itself waits as long as was asked."""
    error = translate(target("demo", Provider(url="http://demo.example/v1"), None), 429, Detail(), said)
    assert error.headers.get("retry-after") == header
    assert error.retry_after == seconds(said)
