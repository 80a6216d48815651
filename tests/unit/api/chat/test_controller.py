"""A chat completion, from the caller's request to the caller's answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_world import (
    KEY,
    FakeAnswer,
    World,
    chunk,
    client_of,
    completion,
    document,
    json_answer,
    make_world,
    passage,
    stream_answer,
)

from assistant_api.gateway import GatewayError, GatewayUnreachableError

CHAT = "/v1/chat/completions"


def ask(model: str = "plain", **members: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "What torque?"}], **members}


async def test_the_request_reaches_the_gateway_with_the_instructions(client: httpx.AsyncClient, world: World) -> None:
    """The assistant's name stays the model; members that we do not know pass through."""
    answer = await client.post(CHAT, json=ask(tools=[{"type": "function"}], seed=7, reasoning={"effort": "low"}))
    assert answer.status_code == 200
    assert world.gateway.asked == [
        {
            "model": "plain",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What torque?"}],
            "tools": [{"type": "function"}],
            "seed": 7,
            "reasoning": {"effort": "low"},
        }
    ]
    assert world.retrieval.asked == []


async def test_an_answer_without_knowledge_is_relayed_byte_by_byte(client: httpx.AsyncClient, world: World) -> None:
    """Nothing is decoded that need not be."""
    body = b'{ "choices": [], "x":  1.50 }'
    world.gateway.answer = json_answer(
        body, x_assistant_model="openai/gpt", x_ratelimit_remaining_requests="5", server="x"
    )
    answer = await client.post(CHAT, json=ask())
    assert answer.content == body
    assert answer.headers["x-assistant-model"] == "openai/gpt"
    assert answer.headers["x-ratelimit-remaining-requests"] == "5"
    assert "server" not in answer.headers
    assert world.gateway.answer.closed


async def test_knowledge_is_searched_and_cited(client: httpx.AsyncClient, world: World) -> None:
    """The passages are in the system message, the used ones in the annotations."""
    world.retrieval.passages = [passage(1), passage(2)]
    world.gateway.answer = json_answer(completion("42 Nm [2]."))
    answer = await client.post(CHAT, json=ask("support"))
    assert world.retrieval.asked == [("What torque?", ["handbook"], 4, 0.2)]
    system = world.gateway.asked[0]["messages"][0]["content"]
    assert '<passage n="2" document="handbook.pdf" page="2">\nPassage 2.\n</passage>' in system
    notes = answer.json()["choices"][0]["message"]["annotations"]
    assert [note["file_citation"]["page"] for note in notes] == [2]
    document = "api/v1/knowledge-bases/handbook/documents/00000000-0000-0000-0000-000000000002/content"
    assert notes[0]["url_citation"] == {
        "start_index": 6,
        "end_index": 9,
        "url": f"http://api.test/{document}#page=2",
        "title": "handbook.pdf",
    }
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_a_stream_is_relayed_and_cited(client: httpx.AsyncClient, world: World) -> None:
    """As server-sent events that no proxy should collect."""
    world.retrieval.passages = [passage(1)]
    world.gateway.answer = stream_answer(
        chunk("42 Nm [1]"), chunk(finish="stop"), b"data: [DONE]\n\n", x_assistant_model="m"
    )
    answer = await client.post(CHAT, json=ask("support", stream=True, stream_options={"include_usage": True}))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-assistant-model"] == "m"
    assert '"file_citation"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert world.gateway.asked[0]["stream_options"] == {"include_usage": True}
    assert world.gateway.answer.closed


async def test_a_provider_that_does_not_stream_is_relayed_whole(client: httpx.AsyncClient, world: World) -> None:
    """The content type of the answer decides, not the wish."""
    world.gateway.answer = json_answer(completion("Hello."))
    answer = await client.post(CHAT, json=ask(stream=True))
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("error", [RuntimeError("10.0.0.1 down"), TimeoutError(), GatewayError(502, "x", "y")])
async def test_without_its_knowledge_an_assistant_does_not_guess(
    client: httpx.AsyncClient, world: World, error: Exception
) -> None:
    """503 that says so; the model is not even asked."""
    world.retrieval.error = error
    answer = await client.post(CHAT, json=ask("support"))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "knowledge_unavailable"
    assert answer.headers["retry-after"] == "5"
    assert "10.0.0.1" not in answer.text
    assert world.gateway.asked == []


async def test_a_search_that_meets_the_rate_limit_is_a_429(client: httpx.AsyncClient, world: World) -> None:
    """The caller is told to wait, not that something broke."""
    world.retrieval.error = GatewayError(429, "rate_limit_exceeded", "slow", retry_after=3)
    answer = await client.post(CHAT, json=ask("support"))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (429, "budget_exhausted"),
        (429, "tokens_exhausted"),
        (403, "price_unknown"),
        (400, "not_limitable"),
        (503, "limits_unavailable"),
    ],
)
async def test_a_search_that_meets_a_limit_is_refused_as_the_chat_would_be(
    client: httpx.AsyncClient, world: World, status: int, code: str
) -> None:
    """A budget that the embedding of the question does not fit into is no fault of the knowledge."""
    world.retrieval.error = GatewayError(status, code, "m", 3, headers={"x-should-retry": "false"})
    answer = await client.post(CHAT, json=ask("support"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("3", "false")
    assert world.gateway.asked == []


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_left_of_limits_reaches_the_caller(
    client: httpx.AsyncClient, world: World, *, stream: bool
) -> None:
    """Requests, tokens and money, streamed or not; nothing else of the gateway's headers does."""
    told = {
        "x_ratelimit_remaining_tokens": "7",
        "x_budget_remaining": "0.5",
        "x_budget_currency": "USD",
        "x_assistant_model": "openai/gpt",
    }
    make = stream_answer if stream else json_answer
    content = b"data: [DONE]\n\n" if stream else completion("Hello.")
    world.gateway.answer = make(content, **told, x_internal="secret")  # type: ignore[operator]
    answer = await client.post(CHAT, json=ask(stream=stream), headers={"x-request-id": "mine"})
    assert {name: answer.headers[name.replace("_", "-")] for name in told} == told
    assert answer.headers["x-request-id"] == "mine" == world.gateway.headers[0]["x-request-id"]
    assert "x-internal" not in answer.headers


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        ("budget_exhausted", {"retry_after": "86400", "retry_after_ms": "86400000", "x_should_retry": "false"}),
        ("tokens_exhausted", {"retry_after": "5", "retry_after_ms": "4800", "x_ratelimit_remaining_tokens": "3"}),
    ],
)
async def test_a_used_up_limit_is_told_with_everything_a_client_waits_by(
    client: httpx.AsyncClient, world: World, code: str, headers: dict[str, str]
) -> None:
    """Clients that retry by themselves read `retry-after-ms` and `x-should-retry`."""
    world.gateway.answer = json_answer({"error": {"message": "m", "code": code}}, 429, **headers)
    answer = await client.post(CHAT, json=ask(), headers={"accept-language": "de"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, code)
    assert {name: answer.headers[name.replace("_", "-")] for name in headers} == headers


@pytest.mark.parametrize(
    ("status", "code", "seen", "seen_code"),
    [
        (429, "rate_limit_exceeded", 429, "rate_limit_exceeded"),
        (429, "insufficient_quota", 429, "insufficient_quota"),
        (400, "context_length_exceeded", 400, "context_length_exceeded"),
        (401, "invalid_api_key", 502, "gateway_refused"),
        (403, "price_unknown", 403, "price_unknown"),
        (400, "not_limitable", 400, "not_limitable"),
        (503, "limits_unavailable", 503, "limits_unavailable"),
        (403, "forbidden", 502, "gateway_refused"),
        (404, "model_not_found", 503, "assistant_not_ready"),
        (502, "provider_unreachable", 502, "provider_unreachable"),
        (502, "provider_error", 502, "provider_error"),
        (504, "provider_timeout", 504, "provider_timeout"),
    ],
)
async def test_errors_of_the_gateway_come_through_in_their_class(
    client: httpx.AsyncClient, world: World, status: int, code: str, seen: int, seen_code: str
) -> None:
    """Except those that are about this pod and not about the caller."""
    error = {"error": {"message": "From upstream.", "type": "t", "param": None, "code": code}}
    world.gateway.answer = json_answer(error, status, retry_after="7", x_ratelimit_limit_requests="60")
    answer = await client.post(CHAT, json=ask(), headers={"accept-language": "de"})
    assert answer.status_code == seen
    assert answer.json()["error"]["code"] == seen_code
    assert answer.headers["x-ratelimit-limit-requests"] == "60"
    if seen == 429:
        assert answer.headers["retry-after"] == "7"
    # Ours are in the caller's language; of the others only the provider knows what to say.
    ours = seen_code not in {"insufficient_quota", "context_length_exceeded", "provider_error"}
    assert (answer.json()["error"]["message"] == "From upstream.") is not ours


@pytest.mark.parametrize("content", [b"<html>Bad Gateway 10.0.0.1</html>", b"", b"{}", b'{"error": "x"}'])
async def test_an_error_that_is_no_envelope_becomes_one(
    client: httpx.AsyncClient, world: World, content: bytes
) -> None:
    """What a proxy in between may say does not reach the caller."""
    world.gateway.answer = json_answer(content, 500)
    answer = await client.post(CHAT, json=ask())
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "provider_unreachable"
    assert "10.0.0.1" not in answer.text


async def test_a_gateway_that_does_not_answer_is_503(client: httpx.AsyncClient, world: World) -> None:
    """With the time after which to try again."""
    world.gateway.answer = GatewayUnreachableError("refused")
    answer = await client.post(CHAT, json=ask())
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "gateway_unreachable"
    assert answer.headers["retry-after"] == "2"


async def test_an_answer_that_is_cut_is_an_error(client: httpx.AsyncClient, world: World) -> None:
    """Half a completion is none."""
    world.gateway.answer = FakeAnswer(200, {}, [b'{"choices"', GatewayUnreachableError("cut")])
    answer = await client.post(CHAT, json=ask())
    assert answer.status_code == 503
    assert world.gateway.answer.closed


async def test_a_body_of_more_than_a_mebibyte_is_413(client: httpx.AsyncClient) -> None:
    """Whether its size was announced or not."""
    body = b'{"model":"plain","messages":[{"role":"user","content":"' + b"x" * (1 << 20) + b'"}]}'

    async def parts():  # type: ignore[no-untyped-def]
        yield body

    announced = await client.post(CHAT, content=body, headers={"content-type": "application/json"})
    chunked = await client.post(CHAT, content=parts(), headers={"content-type": "application/json"})
    assert announced.status_code == chunked.status_code == 413
    assert announced.json()["error"]["code"] == "request_too_large"
    assert "1048576" in announced.json()["error"]["message"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_that_is_not_json_is_415(client: httpx.AsyncClient, media_type: str) -> None:
    """The message says what is expected."""
    answer = await client.post(CHAT, content=b"{}", headers={"content-type": media_type})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]


async def test_a_missing_or_refined_content_type_is_taken_for_json(client: httpx.AsyncClient) -> None:
    """Clients differ in how exactly they say it."""
    body = b'{"model":"plain","messages":[{"role":"user","content":"x"}]}'
    for headers in ({}, {"content-type": "application/json; charset=utf-8"}):
        assert (await client.post(CHAT, content=body, headers=headers)).status_code == 200


async def test_an_assistant_whose_knowledge_base_is_gone_answers_without_it() -> None:
    """The operator reports it on the Assistant; its neighbours and it stay usable."""
    world = make_world(document(knowledge_bases=[]))
    async with client_of(world) as client:
        answer = await client.post(CHAT, json=ask("support"))
    assert answer.status_code == 200
    assert world.retrieval.asked == []


@pytest.mark.parametrize(
    ("members", "key"), [({}, KEY), ({"stream": True}, KEY), ({"n": 0}, KEY), ({"model": "nobody"}, KEY), ({}, "ak_x")]
)
async def test_both_ways_to_the_chat_answer_the_same(world: World, members: dict[str, Any], key: str) -> None:
    """The edge's short way, and Litestar's, which finds the path with a slash at its end too."""
    told: list[tuple[int, bytes, dict[str, str]]] = []
    async with client_of(world, key) as client:
        for path in (CHAT, f"{CHAT}/"):
            make = stream_answer(b"data: [DONE]\n\n") if "stream" in members else json_answer(completion("Hello."))
            world.gateway.answer = make
            answer = await client.post(path, json={**ask(), **members}, headers={"x-request-id": "mine"})
            told.append((answer.status_code, answer.content, dict(answer.headers)))
    assert told[0] == told[1]


async def test_other_methods_are_refused(client: httpx.AsyncClient) -> None:
    """By Litestar, who knows which there are."""
    answer = await client.get(CHAT)
    assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, {"OPTIONS", "POST"})
    assert answer.json()["error"]["code"] == "method_not_allowed"
