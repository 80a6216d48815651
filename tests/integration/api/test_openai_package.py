"""The official `openai` package against the running API: what works, and which error classes it raises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from api_gateway import FakeGateway
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


def test_a_used_up_limit(client: openai.OpenAI) -> None:
    """RateLimitError, with the time to wait."""
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ask("limit"))
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "3"
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "60"


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
