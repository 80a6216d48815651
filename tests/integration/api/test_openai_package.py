"""The official `openai` package against the running API: what works, and which error classes it raises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from api_gateway import LEFT, REFUSALS, REPORT, FakeGateway
from api_process import KEY, ApiProcess


def ask(question: str, model: str = "plain", **members: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], **members}


@pytest.fixture
def client(api: ApiProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    """Each assistant is a model."""
    assert [model.id for model in client.models.list()] == ["plain", "support"]
    assert client.models.retrieve("support").owned_by == "acme"


def test_a_whole_answer(client: openai.OpenAI, gateway: FakeGateway) -> None:
    """With usage, and the instructions in front of the conversation."""
    answer = client.chat.completions.create(**ask("How are you?"), seed=7)
    assert answer.choices[0].message.content == "You asked: How are you?"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert gateway.chats[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert gateway.chats[-1]["seed"] == 7


def test_a_streamed_answer(client: openai.OpenAI) -> None:
    """Word by word, the reason to stop, and the usage when asked for."""
    stream = client.chat.completions.create(**ask("How are you?"), stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert words == ["You ", "asked: ", "How ", "are ", "you? "]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None


def test_headers_of_the_gateway_reach_the_client(client: openai.OpenAI, gateway: FakeGateway) -> None:
    """What is left of the limit, which model answered, and the id of the request; the trace goes the other way."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    sent = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-request-id": "mine"}
    raw = client.chat.completions.with_raw_response.create(**ask("Hello"), extra_headers=sent)
    assert raw.headers["x-ratelimit-remaining-requests"] == "59"
    assert raw.headers["x-assistant-model"] == "fake/model"
    assert raw.headers["x-request-id"] == "mine"
    assert raw.parse().choices
    assert gateway.headers[-1]["traceparent"].split("-")[1] == trace
    assert gateway.headers[-1]["x-request-id"] == "mine"


def test_a_wrong_key(api: ApiProcess) -> None:
    """AuthenticationError with OpenAI's code."""
    client = openai.OpenAI(base_url=f"{api.url}/v1", api_key="ak_wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(**ask("Hello"))
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_assistant(client: openai.OpenAI) -> None:
    """NotFoundError with OpenAI's code."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**ask("Hello", model="nobody"))
    assert caught.value.code == "model_not_found"


def test_a_malformed_request(client: openai.OpenAI) -> None:
    """BadRequestError that names the field."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="plain", messages=[{"role": "boss"}])  # type: ignore[typeddict-item,list-item]
    assert caught.value.param == "messages[0].role"


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "tokens_exhausted", "budget_exhausted"])
def test_a_used_up_limit(client: openai.OpenAI, code: str) -> None:
    """RateLimitError that says which limit, in the caller's language, with everything the gateway said of waiting."""
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ask(code), extra_headers={"accept-language": "de"})
    assert caught.value.code == code
    told = {name: caught.value.response.headers[name] for name in REFUSALS[code][1]}
    assert told == REFUSALS[code][1]
    assert "Refused" not in caught.value.message
    if code == "budget_exhausted":
        assert "die verbleibenden 0.000100 von 0.010000 USD" in caught.value.message


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "budget_exhausted"])
def test_the_package_waits_as_it_is_told(api: ApiProcess, gateway: FakeGateway, code: str) -> None:
    """With retries of its own it tries a passing limit again, and one of `x-should-retry: false` not."""
    before = len(gateway.chats)
    retry_after = REFUSALS[code][1]["retry-after-ms"]
    REFUSALS[code][1]["retry-after-ms"] = "10"
    try:
        client = openai.OpenAI(base_url=f"{api.url}/v1", api_key=KEY, max_retries=1)
        with client, pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**ask(code))
    finally:
        REFUSALS[code][1]["retry-after-ms"] = retry_after
    assert len(gateway.chats) - before == (2 if code == "rate_limit_exceeded" else 1)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("price_unknown", openai.PermissionDeniedError),
        ("not_limitable", openai.BadRequestError),
        ("limits_unavailable", openai.InternalServerError),
    ],
)
def test_what_cannot_be_limited(client: openai.OpenAI, code: str, error: type[openai.APIStatusError]) -> None:
    """The package's class for the gateway's status, and the gateway's code."""
    with pytest.raises(error) as caught:
        client.chat.completions.create(**ask(code))
    assert caught.value.code == code


def test_what_is_left_is_in_the_headers_of_streams_too(client: openai.OpenAI) -> None:
    """Requests, tokens and money."""
    for stream in (False, True):
        raw = client.chat.completions.with_raw_response.create(**ask("Hello"), stream=stream)
        assert {name: raw.headers[name] for name in LEFT} == LEFT
        assert raw.headers["x-assistant-model"] == "fake/model"
        assert raw.headers["x-request-id"]
        answer = raw.parse()
        if stream:
            assert list(answer)


def test_calls_are_counted_for_the_end_user_or_for_the_key(client: openai.OpenAI, gateway: FakeGateway) -> None:
    """OpenAI's `user` where it is given, the API key's name otherwise; one request's user is not the next one's."""
    client.chat.completions.create(**ask("Hello"), user="ädä")
    client.chat.completions.create(**ask("Hello"), extra_body={"safety_identifier": "u-1"})
    client.chat.completions.create(**ask("Hello"))
    assert [headers["x-assistant-user"] for headers in gateway.headers[-3:]] == ["ädä", "u-1", "api-key:first"]
    assert gateway.chats[-3]["user"] == "ädä"


def test_usage_is_told_as_json_and_as_a_table(client: openai.OpenAI, gateway: FakeGateway) -> None:
    """Through the package's own client: the gateway's report, a safe table, and refusals as its classes."""
    found = client.get("/usage", cast_to=object, options={"params": {"group_by": "user", "from": "2026-11-01"}})
    assert found == REPORT
    assert sorted(gateway.usage[-1]) == [("from", "2026-11-01"), ("group_by", "user")]
    with httpx.Client(base_url=str(client.base_url), headers={"authorization": f"Bearer {KEY}"}) as plain:
        table = plain.get("usage", params={"format": "csv"}).text
    assert table.splitlines()[1].startswith("'=cmd|' /C calc'!A0,2,20,")
    with pytest.raises(openai.BadRequestError) as caught:
        client.get("/usage", cast_to=object, options={"params": {"from": "yesterday"}})
    assert (caught.value.code, caught.value.param) == ("invalid_field", "from")


def test_a_stream_that_breaks_off(client: openai.OpenAI) -> None:
    """APIError after what had come, never a silent end."""
    words: list[str] = []

    def read() -> None:
        for chunk in client.chat.completions.create(**ask("cut"), stream=True):
            words.append(chunk.choices[0].delta.content or "")  # noqa: PERF401  what came before the cut counts

    with pytest.raises(openai.APIError) as caught:
        read()
    assert words == ["You "]
    assert caught.value.code == "stream_interrupted"
