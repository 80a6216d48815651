"""A provider's refusal, translated."""

from __future__ import annotations

import json

import pytest

from assistant_gateway.catalog import Provider, target
from assistant_gateway.providers.openai_wire import Detail, error_detail, translate

PLATFORM = target("openai", Provider(url="https://api.openai.com/v1"), "sk-0123456789")
OWN = target("endpoint", Provider(url="https://llm.acme.example/v1"), "sk-0123456789", own=True)


@pytest.mark.parametrize(
    ("status", "mapped", "code"),
    [
        (400, 400, "context_length_exceeded"),
        (401, 502, "provider_unauthorized"),
        (402, 400, "context_length_exceeded"),
        (403, 502, "provider_unauthorized"),
        (404, 502, "provider_model_not_found"),
        (408, 504, "provider_timeout"),
        (413, 413, "context_length_exceeded"),
        (422, 422, "context_length_exceeded"),
        (429, 429, "provider_rate_limit_exceeded"),
        (302, 502, "provider_error"),
        (500, 502, "provider_error"),
        (504, 504, "provider_timeout"),
        (529, 502, "provider_error"),
    ],
)
def test_status_is_translated(status: int, mapped: int, code: str) -> None:
    """A client hears what it can act on; a fault between gateway and provider is never the client's 401 or 404."""
    error = translate(PLATFORM, status, Detail("no", "messages", "context_length_exceeded"), None)
    assert (error.status, error.code) == (mapped, code)


def test_refused_key_is_said_to_whom_it_belongs() -> None:
    """The tenant is sent to its own Secret or to the platform team, and no key is quoted."""
    own, platform = (translate(to, 401, Detail("key sk-0123 is bad"), None) for to in (OWN, PLATFORM))
    assert "apiKeySecretRef" in own.message
    assert "platform team" in platform.message
    assert "sk-0123" not in own.message + platform.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "a", "param": "p", "code": "c"}}, "a"),
        ({"error": "b"}, "b"),
        ({"message": "c"}, "c"),
        ({"error": {"message": {"deep": 1}}}, {"deep": 1}),
    ],
)
def test_error_is_found_in_every_shape(body: dict, message: object) -> None:
    """Providers wrap their errors in different ways."""
    detail = error_detail(PLATFORM, json.dumps(body).encode())
    assert detail is not None
    assert detail.message == message
    assert "None" not in translate(PLATFORM, 500, detail, None).message


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"3", b'{"detail": []}', b"\xff"])
def test_no_error_in_the_body_is_no_problem(body: bytes) -> None:
    """What is not understood is left out: the status says enough."""
    assert error_detail(PLATFORM, body) is None


def test_key_in_an_error_is_blanked() -> None:
    """A provider that repeats the key in its words is not quoted with it."""
    detail = error_detail(PLATFORM, b'{"error": {"message": "bad key sk-0123456789 here"}}')
    assert detail is not None
    assert detail.message == "bad key *** here"


def test_long_words_are_cut() -> None:
    """A provider cannot fill the client's logs."""
    assert len(translate(PLATFORM, 500, Detail("x" * 100_000), None).message) < 1200
