"""Stored responses on a real database, by the unchanged `openai` package: continued, read, deleted, and one's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, cast

import asyncpg
import openai
import pytest
from api_gateway import FakeGateway
from api_process import KEY, ApiProcess

from assistant_api.responses import store

SECOND_KEY = "ak_" + "s" * 43  # of the configuration
TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


def client_of(api: ApiProcess, key: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{api.url}/v1", api_key=key, max_retries=0, timeout=60, _strict_response_validation=True
    )


@pytest.fixture
def openai_client(api: ApiProcess) -> Iterator[openai.OpenAI]:
    """The first caller; its package checks answers strictly."""
    with client_of(api, KEY) as client:
        yield client


@pytest.fixture
def other(api: ApiProcess) -> Iterator[openai.OpenAI]:
    """Another caller of the same tenant."""
    with client_of(api, SECOND_KEY) as client:
        yield client


def said(gateway: FakeGateway) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in gateway.chats[-1]["messages"]]


def test_a_response_is_continued(openai_client: openai.OpenAI, gateway: FakeGateway) -> None:
    """Whole and streamed; the instructions of an earlier one are not carried over, its input and output are."""
    first = openai_client.responses.create(model="plain", input="One", instructions="In verse.", metadata={"a": "b"})
    assert first.output_text == "You asked: One"
    assert first.usage is not None
    assert first.usage.output_tokens == 3
    with openai_client.responses.stream(
        model="plain", input=[{"role": "user", "content": "Two"}], previous_response_id=first.id
    ) as stream:
        kinds = [event.type for event in stream]
        second = stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert second.output_text == "You asked: Two "
    openai_client.responses.create(model="plain", input="Three", previous_response_id=second.id)
    assert said(gateway) == [
        ("system", "Be brief."),
        ("user", "One"),
        ("assistant", "You asked: One"),
        ("user", "Two"),
        ("assistant", "You asked: Two "),
        ("user", "Three"),
    ]
    kept = openai_client.responses.retrieve(first.id)
    assert kept.model_dump() == first.model_dump()
    assert kept.metadata == {"a": "b"}


def test_a_function_is_called_and_its_result_is_answered(openai_client: openai.OpenAI, gateway: FakeGateway) -> None:
    """Only the result is sent; what was called is known."""
    first = openai_client.responses.create(model="plain", input="The weather?", tools=[TOOL])
    call = cast("Any", first.output[0])
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Paris"})
    second = openai_client.responses.create(
        model="plain",
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}],
        previous_response_id=first.id,
        tools=[TOOL],
    )
    assert second.output_text == "You asked: 21 degrees"
    called, result = gateway.chats[-1]["messages"][-2:]
    assert called["tool_calls"][0]["id"] == result["tool_call_id"] == call.call_id
    items = openai_client.responses.input_items.list(second.id).data
    assert [item.type for item in items] == ["function_call_output"]


def test_what_is_not_to_be_stored_is_not(openai_client: openai.OpenAI) -> None:
    """Nobody can read or continue it."""
    response = openai_client.responses.create(model="plain", input="One", store=False)
    assert response.model_dump()["store"] is False
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.responses.create(model="plain", input="Two", previous_response_id=response.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")


def test_a_response_is_its_owners(openai_client: openai.OpenAI, other: openai.OpenAI) -> None:
    """For everybody else it is not there."""
    response = openai_client.responses.create(model="plain", input="One")
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        other.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        other.responses.input_items.list(response.id)
    with pytest.raises(openai.BadRequestError):
        other.responses.create(model="plain", input="Two", previous_response_id=response.id)
    assert openai_client.responses.retrieve(response.id).id == response.id


def test_a_deleted_response_is_gone_and_so_is_what_rests_on_it(openai_client: openai.OpenAI) -> None:
    """Those after it can be read, but not continued."""
    first = openai_client.responses.create(model="plain", input="One")
    second = openai_client.responses.create(model="plain", input="Two", previous_response_id=first.id)
    openai_client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(first.id)
    assert openai_client.responses.retrieve(second.id).previous_response_id == first.id
    with pytest.raises(openai.BadRequestError):
        openai_client.responses.create(model="plain", input="Three", previous_response_id=second.id)


def test_the_input_is_listed_in_pages(openai_client: openai.OpenAI) -> None:
    """The newest first, unless asked otherwise."""
    asked: Any = [{"role": "user", "content": f"Question {number}"} for number in range(5)]
    response = openai_client.responses.create(model="plain", input=asked)
    found = list(openai_client.responses.input_items.list(response.id, limit=2, order="asc"))
    assert [cast("Any", item).content[0].text for item in found] == [f"Question {number}" for number in range(5)]
    newest = openai_client.responses.input_items.list(response.id, limit=1).data
    assert cast("Any", newest[0]).content[0].text == "Question 4"
    with pytest.raises(openai.BadRequestError):
        openai_client.responses.input_items.list(response.id, after="msg_nobody")


def test_responses_expire(openai_client: openai.OpenAI, dsn: str) -> None:
    """After their time nobody sees them, and the next one that is stored takes them away."""
    old = openai_client.responses.create(model="plain", input="One")

    async def rows(statement: str) -> list[Any]:
        connection = await asyncpg.connect(dsn)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    identity = old.id.removeprefix(store.PREFIX)
    found = asyncio.run(rows(f"SELECT expires_at - created_at AS kept FROM responses WHERE id = '{identity}'"))
    assert round(found[0]["kept"].total_seconds() / 86_400) == store.DAYS
    asyncio.run(rows(f"UPDATE responses SET expires_at = now() WHERE id = '{identity}'"))
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(old.id)
    openai_client.responses.create(model="plain", input="Two")
    assert asyncio.run(rows(f"SELECT 1 FROM responses WHERE id = '{identity}'")) == []
