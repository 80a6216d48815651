"""The official `openai` package."""

from __future__ import annotations

import contextlib

import httpx
import openai
import pytest
from conftest import Endpoint
from openai.types.chat import ChatCompletionMessageParam


@pytest.fixture
def client(endpoint: Endpoint) -> openai.OpenAI:
    """As anybody would make it; pydantic checks the answers strictly."""
    return openai.OpenAI(base_url=endpoint.url, api_key=endpoint.key, max_retries=0, _strict_response_validation=True)


def ask(endpoint: Endpoint) -> list[ChatCompletionMessageParam]:
    """The question, with characters that JavaScript counts twice."""
    return [{"role": "user", "content": endpoint.question}]


def test_a_cited_answer(client: openai.OpenAI, endpoint: Endpoint) -> None:
    """Its notes are of the package's own type, lie where the marks are, and open the document for its key."""
    message = client.chat.completions.create(model="support", messages=ask(endpoint)).choices[0].message
    assert endpoint.words in (message.content or "")
    assert message.annotations
    for note in message.annotations:
        place = note.url_citation
        assert note.type == "url_citation"
        assert (message.content or "")[place.start_index : place.end_index].startswith("[")
        assert place.title == endpoint.title
    url = message.annotations[0].url_citation.url
    assert endpoint.words in httpx.get(url, headers={"authorization": f"Bearer {endpoint.key}"}).text
    assert httpx.get(url).status_code == 401


def test_a_cited_stream(client: openai.OpenAI, endpoint: Endpoint) -> None:
    """The accumulated answer has the words and the notes of the whole one."""
    with client.chat.completions.stream(model="support", messages=ask(endpoint)) as stream:
        message = stream.get_final_completion().choices[0].message
    whole = client.chat.completions.create(model="support", messages=ask(endpoint)).choices[0].message
    assert message.content == whole.content
    assert message.model_dump()["annotations"] == whole.model_dump()["annotations"]


def test_tools_and_schemas(client: openai.OpenAI) -> None:
    """A call, streamed and whole; JSON by schema."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    asked = {"model": "plain", "messages": [{"role": "user", "content": "The weather in 'Bern'?"}]}
    called = client.chat.completions.create(**asked, tools=[tool])  # type: ignore[call-overload]
    (call,) = called.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Bern"}')
    assert called.choices[0].finish_reason == "tool_calls"
    form = {"type": "json_schema", "json_schema": {"name": "Weather", "schema": parameters}}
    written = client.chat.completions.create(**asked, response_format=form)  # type: ignore[call-overload]
    assert written.choices[0].message.content == '{"city": "Bern"}'


def test_errors_have_their_classes(client: openai.OpenAI, endpoint: Endpoint) -> None:
    """As of OpenAI itself, with the code and the time to wait."""
    messages = ask(endpoint)
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=messages)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="ak_wrong").models.list()
    with contextlib.suppress(openai.RateLimitError):  # one request a minute, which another test may have had
        client.chat.completions.create(model="limited", messages=messages)
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="limited", messages=messages)
    assert int(limited.value.response.headers["retry-after"]) > 0
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="plain", messages=[{"role": "nobody", "content": "x"}])  # type: ignore[list-item]
    assert "developer" in bad.value.message
    assert {model.id for model in client.models.list()} >= {"support", "plain", "limited"}
