"""The stand-in model server, asked by the official client and by bad ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from assistant_demo.model_server import ModelServerSettings, create_app
from assistant_demo.multilingual import CHARACTERS_MAX, DIMENSIONS, NAME, Multilingual

if TYPE_CHECKING:  # to import it takes a second, which only the process that runs these tests has to spend
    import openai

Start = Callable[..., Awaitable[str]]
QUESTION: list = [{"role": "user", "content": "Are you there?"}]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start servers with given settings; returns their base URL."""
    async with AsyncExitStack() as stack:

        async def starter(**settings: object) -> str:
            meaning = settings.pop("meaning", "this test has none")
            app = create_app(ModelServerSettings(**{"word_seconds": 0, **settings}), meaning)
            runner = web.AppRunner(app, handler_cancellation=True)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}"

        yield starter


@pytest.fixture
async def url(start: Start) -> str:
    """One server without an API key."""
    return await start()


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client."""
    import openai

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    """The server names its chat models and its embedding model."""
    assert {model.id for model in (await client.models.list()).data} == {
        "stand-in",
        "stand-in-slow",
        "stand-in-embedding",
    }


async def test_a_stream_holds_the_whole_answer_and_its_usage(client: openai.AsyncOpenAI) -> None:
    """Streamed words joined equal the unstreamed answer, and usage comes last when asked for."""
    whole = await client.chat.completions.create(model="stand-in", messages=QUESTION)
    stream = await client.chat.completions.create(
        model="stand-in", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        == whole.choices[0].message.content
    )
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "stop"


async def test_limit_and_stop_cut_the_answer(client: openai.AsyncOpenAI) -> None:
    """`max_tokens` and `stop` end an answer early, and the finish reason tells which did."""
    short = await client.chat.completions.create(model="stand-in", messages=QUESTION, max_tokens=3)
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("Offline stand-", "length")
    assert short.usage.completion_tokens == 3
    stopped = await client.chat.completions.create(model="stand-in", messages=QUESTION, stop=["model"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("Offline stand-in", "stop")


async def test_embeddings_have_the_asked_dimensions_in_both_encodings(client: openai.AsyncOpenAI, url: str) -> None:
    """Base64, which the official client asks for, and plain floats carry the same vectors."""
    wanted = {"model": "stand-in-embedding", "input": ["one", "two"], "dimensions": 64}
    packed = await client.embeddings.create(**wanted)
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/embeddings", json=wanted) as answer:
        plain = await answer.json()
    assert [len(item.embedding) for item in packed.data] == [64, 64]
    assert [item.embedding for item in packed.data] == [pytest.approx(item["embedding"]) for item in plain["data"]]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", b"{", None),
        ("chat/completions", b'{"messages": [{"role": "user"}]}', "model"),
        ("chat/completions", b'{"model": "stand-in", "messages": []}', "messages"),
        ("chat/completions", b'{"model": "stand-in", "messages": [{"role": "king"}]}', "messages[0].role"),
        ("chat/completions", b'{"model": "stand-in", "messages": [{"role": "user"}], "max_tokens": 0}', "max_tokens"),
        ("embeddings", b'{"model": "stand-in-embedding", "input": []}', "input"),
        ("embeddings", b'{"model": "stand-in-embedding", "input": ["a"], "dimensions": 1}', "dimensions"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_the_field(url: str, path: str, body: bytes, param: str | None) -> None:
    """Malformed requests get OpenAI's envelope with the field."""
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/{path}", data=body) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", param)


async def test_an_unknown_model_and_a_wrong_key_are_told_apart(start: Start, client: openai.AsyncOpenAI) -> None:
    """The official client raises its own class for each."""
    import openai

    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="gpt-9", messages=QUESTION)
    guarded = await start(api_key="secret")
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(base_url=f"{guarded}/v1").models.list()
    assert await client.with_options(base_url=f"{guarded}/v1", api_key="secret").models.list()


async def test_a_client_that_hangs_up_frees_the_stream(start: Start) -> None:
    """A stream whose reader has gone is closed at once, not when its words are used up."""
    url = await start(slow_word_seconds=30)
    async with aiohttp.ClientSession() as session:
        body = {"model": "stand-in-slow", "messages": QUESTION, "stream": True}
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            await answer.content.readline()
            assert await _open_streams(session, url) == 1
        async with asyncio.timeout(2):
            while await _open_streams(session, url):  # noqa: ASYNC110 - the server is asked, there is no event
                await asyncio.sleep(0.02)


async def _open_streams(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(f"{url}/activity") as answer:
        return json.loads(await answer.text())["openStreams"]


async def test_the_callers_trace_is_written_down(client: openai.AsyncOpenAI, url: str) -> None:
    """`/activity` shows the trace context that arrived, so that a test can see it come through the whole chain."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.models.list(extra_headers={"traceparent": trace})
    async with aiohttp.ClientSession() as session, session.get(f"{url}/activity") as answer:
        assert (await answer.json())["requests"][-1]["traceparent"] == trace


async def test_the_server_has_it_beside_the_hashed_words(start: Start) -> None:
    """Both are listed, the health answer names the better one, and `input_type` reaches the model."""
    handed = []

    def encode(texts: list[str], is_query: bool) -> list[list[float]]:
        handed.append((texts, is_query))
        return [[3.0, *[0.0] * (DIMENSIONS - 1)] for _ in texts]

    url = await start(meaning=Multilingual(encode))
    async with aiohttp.ClientSession() as session:
        listed = await (await session.get(f"{url}/v1/models")).json()
        assert {"stand-in-embedding", NAME} <= {each["id"] for each in listed["data"]}
        assert (await (await session.get(f"{url}/healthz")).json())["embedding"] == NAME
        wanted = {"model": NAME, "input": ["abc"], "input_type": "passage", "dimensions": DIMENSIONS}
        answer = await (await session.post(f"{url}/v1/embeddings", json=wanted)).json()
        assert answer["data"][0]["embedding"][0] == 3.0
        assert handed == [(["abc"], False)]
        refused = [{"dimensions": 64}, {"input": ["a" * (CHARACTERS_MAX + 1)]}]
        for change, field in zip(refused, ("dimensions", "input"), strict=True):
            answer = await session.post(f"{url}/v1/embeddings", json={**wanted, **change})
            assert (answer.status, (await answer.json())["error"]["param"]) == (400, field)


async def test_without_it_the_server_says_why(start: Start) -> None:
    """The health answer has the reason for the demo to show; the model's name is unknown."""
    url = await start(meaning="this processor has no avx2")
    async with aiohttp.ClientSession() as session:
        health = await (await session.get(f"{url}/healthz")).json()
        assert (health["embedding"], health["why"]) == ("stand-in-embedding", "this processor has no avx2")
        answer = await session.post(f"{url}/v1/embeddings", json={"model": NAME, "input": ["a"]})
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "model_not_found")
