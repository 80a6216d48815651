"""Whatever shape a provider gives its error, its class is OpenAI's."""

from __future__ import annotations

import json

import pytest

from assistant_gateway.errors import GatewayError
from assistant_gateway.providers.catalog import Provider, target
from assistant_gateway.providers.error_bodies import Detail, read, text
from assistant_gateway.providers.openai_wire import hidden, in_event, translate

TO = target("demo", Provider(url="http://demo.example/v1"), "sk-0123456789")
LONG = "This model's maximum context length is 8192 tokens"
OVER = "You exceeded your current quota, please check your plan"

BODIES = [
    # status, body, expected status, code
    (400, {"error": {"message": LONG, "code": "context_length_exceeded"}}, 400, "context_length_exceeded"),
    (400, [{"error": {"code": 400, "message": LONG, "status": "INVALID_ARGUMENT"}}], 400, "context_length_exceeded"),
    (400, {"object": "error", "message": LONG, "type": "BadRequestError", "code": 400}, 400, "context_length_exceeded"),
    (422, {"error": LONG, "error_type": "validation"}, 400, "context_length_exceeded"),
    (400, {"error": json.dumps({"error": {"message": LONG}})}, 400, "context_length_exceeded"),
    (400, {"message": {"detail": [{"msg": LONG, "loc": ["body", "messages"]}]}}, 400, "context_length_exceeded"),
    (400, {"errors": [{"message": LONG, "code": 5021}], "success": False}, 400, "context_length_exceeded"),
    (400, {"detail": {"error": LONG}}, 400, "context_length_exceeded"),
    (400, {"type": "about:blank", "title": "Bad Request", "detail": LONG}, 400, "context_length_exceeded"),
    (400, LONG, 400, "context_length_exceeded"),
    (
        400,
        {"error": {"code": "BadRequest", "message": "no", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        400,
        "content_filter",
    ),
    (400, {"error": {"message": "API key not valid. Please pass a valid API key."}}, 502, "provider_unauthorized"),
    (401, {"detail": "Unauthorized"}, 502, "provider_unauthorized"),
    (401, "Unauthorized", 502, "provider_unauthorized"),
    (429, {"error": {"message": OVER, "code": "insufficient_quota"}}, 503, "provider_quota_exhausted"),
    (
        402,
        {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}},
        503,
        "provider_quota_exhausted",
    ),
    (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], 429, "provider_rate_limit_exceeded"),
    (404, {"error": {"code": "DeploymentNotFound", "message": "no"}}, 502, "provider_model_not_found"),
    (400, {"object": "error", "message": "Invalid model: x", "code": "1500"}, 502, "provider_model_not_found"),
    (400, {"error": {"message": "x is not a valid model ID", "code": 400}}, 502, "provider_model_not_found"),
    (404, "404 page not found", 502, "provider_model_not_found"),
    (498, {"error": {"message": "capacity exceeded"}}, 502, "provider_error"),
    (503, "upstream connect error or disconnect/reset before headers", 502, "provider_error"),
    (502, "<html><body>Bad Gateway</body></html>", 502, "provider_error"),
    (
        422,
        {"detail": [{"loc": ["body", "top_k"], "msg": "extra fields not permitted"}]},
        422,
        "provider_refused_request",
    ),
]


def told(status: int, body: object) -> GatewayError:
    """Return what a client hears of a refusal."""
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return translate(TO, status, read(raw) or text(raw) or Detail(), None)


@pytest.mark.parametrize(("status", "body", "expected", "code"), BODIES)
def test_each_shape_has_its_class(status: int, body: object, expected: int, code: str) -> None:
    """Envelope, array, text, list of fields, problem details, JSON inside of JSON."""
    error = told(status, body)
    assert (error.status, error.code) == (expected, code)


def test_a_field_that_is_wrong_is_named() -> None:
    """FastAPI says where it stands, a page of HTML says nothing."""
    assert told(*BODIES[-1][:2]).param == "top_k"
    assert "<html>" not in told(502, "<html>x</html>").message


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"error": {"message": "x", "code": 429}}, 429, "provider_rate_limit_exceeded"),
        ({"error": {"message": "x", "code": "429"}}, 429, "provider_rate_limit_exceeded"),
        ({"error": {"message": "x", "type": "rate_limit_error"}}, 429, "provider_rate_limit_exceeded"),
        ({"error": {"message": "x", "status": "RESOURCE_EXHAUSTED"}}, 429, "provider_rate_limit_exceeded"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, 502, "provider_error"),
        ({"error": {"message": "x", "code": "content_filter"}}, 400, "content_filter"),
        ({"error": {"message": "x", "type": "timeout_error"}}, 504, "provider_timeout"),
        ({"error": {"message": "x", "code": "invalid_api_key"}}, 502, "provider_unauthorized"),
        ({"error": {"message": "x", "type": "server_error", "code": None}}, 502, "provider_error"),
        ({"error": "x", "error_type": "overloaded"}, 502, "provider_error"),
        ({"base_resp": {"status_code": 1002, "status_msg": "x"}}, 502, "provider_error"),
        ("x", 502, "provider_error"),
    ],
)
def test_an_error_inside_an_answer_has_the_class_of_its_words(said: object, status: int, code: str) -> None:
    """Where there is no HTTP status, a number, a code, a type or gRPC's status tells."""
    raw = said.encode() if isinstance(said, str) else json.dumps(said).encode()
    error = in_event(TO, raw, midway=False)
    assert (error.status, error.code) == (status, code)


def test_midway_the_provider_is_heard_without_its_accounts_and_keys() -> None:
    """Its words are the message; those that are the platform's business are not."""
    said = {"error": {"message": "org-abcdef123 with sk-0123456789 is overloaded"}}
    assert in_event(TO, json.dumps(said).encode(), midway=True).message == "*** with *** is overloaded"
    limited = {"error": {"message": "of 20 requests", "code": 429}}
    assert "20" not in in_event(TO, json.dumps(limited).encode(), midway=True).message


def test_a_pause_in_the_body_is_found() -> None:
    """Google's RetryInfo, and a number beside the message."""
    google = {"error": {"code": 429, "message": "x", "details": [{"@type": "RetryInfo", "retryDelay": "34s"}]}}
    assert read(json.dumps([google]).encode()).pause == "34s"
    assert read(b'{"error": {"message": "x"}, "retry_after": 5}').pause == 5


@pytest.mark.parametrize(
    "fine",
    [
        {"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}},
        {"id": "c"},
        {"error": None},
        [],
        "",
        3,
    ],
)
def test_what_is_no_error_is_none(fine: object) -> None:
    """A status that says that all is well is not an error."""
    assert read(json.dumps(fine).encode()) is None


def test_errors_inside_of_errors_come_to_an_end() -> None:
    """However deep they are."""
    deep: object = "x"
    for _ in range(500):
        deep = {"error": deep}
    assert hidden(TO, read(json.dumps(deep).encode()) or Detail()).status == 502
