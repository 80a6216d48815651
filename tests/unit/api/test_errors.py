"""Every error has its code, its status, its shape and the caller's language; no error shows what is inside."""

from __future__ import annotations

import httpx
import msgspec
import pytest
from api_world import KEY, LOCALES, World, client_of, make_world
from litestar import get
from litestar.exceptions import ValidationException
from litestar.params import FromPath
from structlog.testing import capture_logs

from assistant_api import errors
from assistant_api.chat.schemas import ChatRequest
from assistant_api.gateway import GatewayError, GatewayUnreachableError
from assistant_api.i18n import Catalogs
from assistant_api.knowledge.schemas import decode_search

CHAT = "/v1/chat/completions"
HELLO = {"model": "plain", "messages": [{"role": "user", "content": "Hello"}]}

REFUSALS = [
    (429, "rate_limit_exceeded", "requests"),
    (429, "tokens_exhausted", "tokens"),
    (429, "budget_exhausted", "insufficient_quota"),
    (403, "price_unknown", "invalid_request_error"),
    (400, "not_limitable", "invalid_request_error"),
    (503, "limits_unavailable", "server_error"),
]


def refusal(status: int, code: str) -> GatewayError:
    """What the gateway says when a limit is reached."""
    headers = {"retry-after": "7", "x-should-retry": "false"}
    return GatewayError(status, code, "Said by the gateway.", 7, headers=headers)


@pytest.fixture(scope="module")
def broken() -> World:
    """An application with a route that fails as it is told to: by a name or a refusal's code."""
    world = make_world()
    failures: dict[str, Exception] = {
        "secret": RuntimeError("password=hunter2 at /home/x"),
        "gateway": GatewayUnreachableError("10.0.0.1"),
        "limited": GatewayError(429, "rate_limit_exceeded", "slow", retry_after=1.2),
        "parameter": ValidationException(extra=[{"key": "limit", "message": "x"}]),
        "full": errors.ApiError(errors.KNOWLEDGE_BASE_FULL, knowledge_base="handbook"),
        **{code: refusal(status, code) for status, code, _ in REFUSALS},
    }

    @get("/v1/boom/{kind:str}", sync_to_thread=False)
    def openai(kind: FromPath[str]) -> None:
        raise failures[kind]

    @get("/api/v1/boom/{kind:str}", sync_to_thread=False)
    def rest(kind: FromPath[str]) -> None:
        raise failures[kind]

    world.routes.register(openai)
    world.routes.register(rest)
    return world


async def test_an_unexpected_error_says_nothing_but_the_request_id(broken: World) -> None:
    """500 without a traceback, in either envelope; the id leads to the log line."""
    async with client_of(broken) as client:
        with capture_logs() as lines:
            openai = await client.get("/v1/boom/secret")
            rest = await client.get("/api/v1/boom/secret")
    assert openai.status_code == rest.status_code == 500
    assert openai.json()["error"]["code"] == rest.json()["code"] == "internal_error"
    assert openai.headers["x-request-id"] in openai.json()["error"]["message"]
    assert rest.json()["request_id"] == rest.headers["x-request-id"]
    logged = {line["request_id"] for line in lines if line["log_level"] == "error"}
    assert logged == {openai.headers["x-request-id"], rest.headers["x-request-id"]}
    for answer in (openai, rest):
        assert "hunter2" not in answer.text
        assert "Traceback" not in answer.text
        assert "RuntimeError" not in answer.text


async def test_problems_follow_rfc_9457(broken: World) -> None:
    """Outside /v1 an error is application/problem+json with type, title, status, detail and our code."""
    async with client_of(broken) as client:
        answer = await client.get("/api/v1/boom/full")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:assistantplatform:problem:knowledge_base_full",
        "title": "Knowledge base full",
        "status": 409,
        "detail": "The knowledge base `handbook` has reached its limit. Delete documents, or raise its limits.",
        "code": "knowledge_base_full",
        "request_id": answer.headers["x-request-id"],
    }


async def test_a_bad_parameter_is_a_400_that_names_it(broken: World) -> None:
    """Litestar's own validation speaks our format."""
    async with client_of(broken) as client:
        answer = await client.get("/api/v1/boom/parameter")
    assert answer.status_code == 400
    assert answer.json()["field"] == "limit"
    assert answer.json()["code"] == "invalid_field"


@pytest.mark.parametrize(("kind", "status", "code"), [("gateway", 503, "gateway_unreachable"), ("limited", 429, None)])
async def test_errors_of_the_gateway_keep_their_class(broken: World, kind: str, status: int, code: str | None) -> None:
    """An OpenAI client raises the same class as against the gateway itself."""
    async with client_of(broken) as client:
        answer = await client.get(f"/v1/boom/{kind}")
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == (code or "rate_limit_exceeded")
    assert answer.headers["retry-after"] == "2"
    assert "10.0.0.1" not in answer.text


@pytest.mark.parametrize(("path", "media_type"), [("/v1/x", "application/json"), ("/x", "application/problem+json")])
async def test_an_unknown_path_is_404_in_its_envelope(client: httpx.AsyncClient, path: str, media_type: str) -> None:
    """OpenAI's under /v1, RFC 9457's elsewhere."""
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == media_type
    assert "not_found" in answer.text


async def test_a_wrong_method_is_405_with_the_right_ones(client: httpx.AsyncClient) -> None:
    """The header `Allow` is there, as the sentence says."""
    answer = await client.put("/v1/models")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("language", "title"), [("de-AT", "Nicht gefunden"), ("ar", "غير موجود"), ("en", "Not found"), ("fr", "Not found")]
)
async def test_sentences_are_in_the_callers_language(client: httpx.AsyncClient, language: str, title: str) -> None:
    """The language is said in `Content-Language`; the code stays."""
    answer = await client.get("/nowhere", headers={"accept-language": language})
    assert answer.json()["title"] == title
    assert answer.json()["code"] == "not_found"
    assert answer.headers["content-language"] == (language[:2] if language != "fr" else "en")
    assert answer.headers["vary"] == "Accept-Language"


async def test_openai_messages_are_translated_too(client: httpx.AsyncClient) -> None:
    """The same goes for OpenAI's envelope."""
    answer = await client.post(CHAT, json={**HELLO, "model": "nobody"}, headers={"accept-language": "de"})
    assert answer.json()["error"]["message"].startswith("Es gibt keinen Assistenten namens `nobody`")
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        ({"messages": HELLO["messages"]}, "model", "model: is required."),
        ({"model": "plain"}, "messages", "messages: is required."),
        ({**HELLO, "messages": []}, "messages", "messages: must not be empty."),
        ({**HELLO, "messages": "Hello"}, "messages", "messages: must be a list, not text."),
        (
            {**HELLO, "messages": [{"role": "boss"}]},
            "messages[0].role",
            "messages[0].role: must be one of: system, developer,",
        ),
        ({**HELLO, "messages": [{"content": "x"}]}, "messages[0].role", "messages[0].role: is required."),
        ({**HELLO, "n": 0}, "n", "n: must be an integer >= 1."),
        ({**HELLO, "n": 129}, "n", "n: must be an integer <= 128."),
        ({**HELLO, "temperature": 2.5}, "temperature", "temperature: must be a number <= 2.0."),
        ({**HELLO, "stream": "yes"}, "stream", "stream: must be true or false, not text."),
        ([], "body", "body: must be an object, not a list."),
    ],
)
async def test_a_malformed_body_is_a_400_that_names_the_field(
    client: httpx.AsyncClient, body: object, field: str, sentence: str
) -> None:
    """`param` of OpenAI's envelope is the field, and the message says what is wrong with it."""
    answer = await client.post(CHAT, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == field
    assert error["message"].startswith(sentence)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"model": "\xff"}', b"nonsense", b'{"a":' + b"[" * 100_000])
async def test_what_is_not_json_is_a_400(client: httpx.AsyncClient, body: bytes) -> None:
    """Truncated, binary and endlessly nested bodies are refused, not crashed on."""
    answer = await client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert "JSON" in answer.json()["error"]["message"]


async def test_every_kind_of_error_can_be_rendered_in_every_language() -> None:
    """No sentence asks for a value that its error does not have."""
    catalogs = Catalogs.load(LOCALES)
    values = {"model": "m", "knowledge_base": "k", "limit": 1, "expected": "text/plain", "cause": "c", "role": "r"}
    for kind in errors.KINDS.values():
        reason = errors.Reason("missing", {})
        error = errors.ApiError(kind, field="f", reason=reason, **values)  # type: ignore[arg-type]
        for language in catalogs.languages:
            assert "{" not in errors.detail(error, catalogs, language, "id")


def test_only_codes_of_ours_are_told_in_our_words() -> None:
    """What only the provider knows, such as a context that is too long, passes as it is."""
    assert errors.is_translated(GatewayError(502, "provider_unreachable", ""))
    assert errors.is_translated(GatewayError(401, "invalid_api_key", ""))
    assert not errors.is_translated(GatewayError(400, "context_length_exceeded", ""))
    assert not errors.is_translated(GatewayError(400, "invalid_request", ""))


@pytest.mark.parametrize(("status", "code", "openai_type"), REFUSALS)
async def test_refusals_of_limits_keep_code_and_status_in_either_envelope(
    broken: World, status: int, code: str, openai_type: str
) -> None:
    """And the headers that programs wait by, on every path."""
    async with client_of(broken) as client:
        problem = await client.get(f"/api/v1/boom/{code}", headers={"accept-language": "de"})
        envelope = await client.get(f"/v1/boom/{code}", headers={"accept-language": "ar"})
    for answer in (problem, envelope):
        assert answer.status_code == status
        assert answer.headers["retry-after"] == "7"
        assert answer.headers["x-should-retry"] == "false"
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["code"] == code == envelope.json()["error"]["code"]
    assert problem.json()["detail"] != envelope.json()["error"]["message"]
    assert envelope.json()["error"]["type"] == openai_type


@pytest.mark.parametrize(
    ("code", "retry_after", "words"),
    [
        ("budget_exhausted", 7.0, ["remaining 0.000100 of 0.010000 USD", "Retry-After"]),
        ("budget_exhausted", None, ["entire budget of 0.010000 USD", "max_tokens"]),
        ("tokens_exhausted", 7.0, ["remaining 12 of 2000 tokens per day", "Retry-After"]),
        ("tokens_exhausted", None, ["entire limit of 2000 tokens", "max_tokens"]),
    ],
)
def test_a_refusal_says_what_is_left_and_whether_waiting_helps(
    code: str, retry_after: float | None, words: list[str]
) -> None:
    """A call that can never fit is not told to wait."""
    headers = {
        "x-budget-limit": "0.010000",
        "x-budget-remaining": "0.000100",
        "x-budget-currency": "USD",
        "x-ratelimit-limit-tokens": "2000",
        "x-ratelimit-remaining-tokens": "12",
    }
    error = errors.from_gateway(GatewayError(429, code, "m", retry_after, headers=headers))
    sentence = errors.detail(error, Catalogs.load(LOCALES), "en", "id")
    assert all(word in sentence for word in words)
    assert ("Retry-After" in sentence) is (retry_after is not None)


def test_a_code_under_another_status_is_no_refusal_of_a_limit() -> None:
    """A provider may use the same words for something else."""
    assert not errors.is_limit(GatewayError(500, "budget_exhausted", ""))
    assert not errors.is_limit(GatewayError(429, "price_unknown", ""))


async def test_requests_before_the_first_configuration_are_503() -> None:
    """A client tries again; nothing is said to be wrong with its key."""
    async with client_of(make_world(configured=False), KEY) as client:
        answer = await client.get("/v1/models")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_ready"
    assert answer.headers["retry-after"] == "1"


def test_sentences_of_msgspec_are_understood() -> None:
    """When msgspec changes its wording, this fails instead of hiding fields from callers."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'{"model":"m","messages":[{"role":"user","content":[{"x":1}]}]}', type=ChatRequest)
    assert errors.from_validation(caught.value).field == "messages[0].content[0].type"


def test_an_unknown_member_is_named() -> None:
    """A typo in a body that takes no other members is found by its name, wherever it stands."""
    with pytest.raises(msgspec.ValidationError) as caught:
        decode_search(b'{"query": "x", "limt": 3}')
    told = errors.from_validation(caught.value)
    assert told.field == "limt"
    assert told.values["reason"] == errors.Reason("unknown", {})


@pytest.mark.parametrize("path", ["/v1/files", "/v1/v1/models", "/chat/completions"])
async def test_an_unknown_address_says_what_openai_clients_need(client: httpx.AsyncClient, path: str) -> None:
    """A base URL without `/v1` is the mistake that is made most."""
    answer = await client.post(path, json={})
    assert answer.status_code == 404
    assert all(word in answer.text for word in ("/schema", "base URL", "/v1"))


async def test_another_content_type_is_told_the_right_one(client: httpx.AsyncClient) -> None:
    """As curl sends a body without `-H`."""
    answer = await client.post(CHAT, content=b"{}", headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 415
    message = answer.json()["error"]["message"]
    assert message == "The content is not accepted: the header `Content-Type` must be application/json."
