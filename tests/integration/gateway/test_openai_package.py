"""The official `openai` package, pointed at the gateway with a ServiceAccount token for a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from gateway_provider import BEHAVIOURS, USAGE, WORDS
from gateway_world import Cluster, Running, policy

NAMESPACE = "openai-package"
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def client(cluster: Cluster, gateway: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client as any tenant would make it, without retries of its own."""
    cluster.put_policy(policy(NAMESPACE, sorted(BEHAVIOURS)))
    token = cluster.token(NAMESPACE)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=token, max_retries=0) as made:
        async with asyncio.timeout(5):
            while not (await made.models.list()).data:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield made


async def test_models_chat_and_embeddings(client: openai.AsyncOpenAI) -> None:
    """Models are listed and found, a chat is answered, a text is embedded."""
    assert {model.id async for model in client.models.list()} == set(BEHAVIOURS)
    assert (await client.models.retrieve("good")).owned_by == NAMESPACE
    answer = await client.chat.completions.create(model="good", messages=MESSAGES)
    assert answer.choices[0].message.content == "".join(WORDS)
    assert answer.usage.prompt_tokens == USAGE["prompt_tokens"]
    embedded = await client.embeddings.create(model="handbook", input=["a"], encoding_format="float")
    assert len(embedded.data[0].embedding) == 8


async def test_stream(client: openai.AsyncOpenAI) -> None:
    """A stream is iterated to its end; each of its chunks has a choice."""
    stream = await client.chat.completions.create(model="good", messages=MESSAGES, stream=True)
    assert "".join([chunk.choices[0].delta.content async for chunk in stream]) == "".join(WORDS)


async def test_stream_that_breaks_raises(client: openai.AsyncOpenAI) -> None:
    """A stream that the provider cuts raises an error and does not look like a short answer."""
    with pytest.raises(openai.APIError, match="broke off"):
        async for _ in await client.chat.completions.create(model="cut", messages=MESSAGES, stream=True):
            pass


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("no-such", openai.NotFoundError),
        ("says-400", openai.BadRequestError),
        ("says-401", openai.InternalServerError),
        ("says-429", openai.RateLimitError),
        ("says-500", openai.InternalServerError),
        ("garbage", openai.InternalServerError),
    ],
)
async def test_errors_have_the_packages_classes(model: str, error: type, client: openai.AsyncOpenAI) -> None:
    """Every refusal arrives as the class that callers already handle."""
    with pytest.raises(error) as raised:
        await client.chat.completions.create(model=model, messages=MESSAGES)
    assert raised.value.code
    assert raised.value.request_id


async def test_wrong_token_is_an_authentication_error(gateway: Running) -> None:
    """A key that is no token of this cluster raises the package's class for it."""
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
