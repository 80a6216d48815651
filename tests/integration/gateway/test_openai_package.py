"""The official `openai` package and LangChain's `ChatOpenAI`, unchanged, pointed at the gateway.

The key is a ServiceAccount token. Everything of the chat's wire goes to the provider as it was sent, and comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from gateway_provider import BEHAVIOURS, USAGE, WORDS, Provider
from gateway_world import Cluster, Running, policy
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

NAMESPACE = "openai-package"
MESSAGES: list[Any] = [{"role": "user", "content": "Hi"}]
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


class Weather(BaseModel):
    """The weather somewhere."""

    city: str
    degrees: int


def tool(name: str, field: str) -> dict[str, Any]:
    """Return a function that a model may call, with one argument."""
    schema = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
    return {"type": "function", "function": {"name": name, "parameters": schema, "strict": True}}


TOOLS: list[Any] = [tool("weather", "city"), tool("time", "zone")]
CALLED = [("weather", '{"city": "Bern"}'), ("time", '{"zone": "CET"}')]


@pytest.fixture
async def client(cluster: Cluster, gateway: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client as any tenant would make it, without retries of its own."""
    cluster.put_policy(policy(NAMESPACE, sorted(BEHAVIOURS)))
    token = cluster.token(NAMESPACE)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=token, max_retries=0) as made:
        async with asyncio.timeout(30):
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


def sent(upstream: Provider) -> dict[str, Any]:
    """Return the last request as the provider got it, without what the gateway puts in."""
    return {name: value for name, value in upstream.bodies[-1].items() if name != "model"}


async def test_every_field_reaches_the_provider_as_it_was_sent(client: openai.AsyncOpenAI, upstream: Provider) -> None:
    """Also those that this gateway has never heard of, at any depth; and what they do comes back."""
    fields: dict[str, Any] = {
        "messages": [
            {"role": "developer", "content": "Be brief.", "name": "boss"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi", "a_field_of_tomorrow": 1},
                    {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                ],
            },
        ],
        "seed": 7,
        "stop": ["END", "\n\n"],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 99,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.1,
        "logit_bias": {"17": -100},
        "user": "ada",
        "store": False,
        "metadata": {"a": "b"},
        "service_tier": "default",
        "verbosity": "low",
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
        "prediction": {"type": "content", "content": "x"},
        "response_format": {"type": "json_object"},
    }
    more = {"a_field_of_tomorrow": {"a": [1, None, "é"]}}
    answer = await client.chat.completions.create(model="features", **fields, extra_body=more)
    assert sent(upstream) == {**fields, **more}
    assert answer.system_fingerprint == "fp_7"
    assert answer.model_extra == {"an_answer_of_tomorrow": more["a_field_of_tomorrow"]}
    assert answer.choices[0].message.audio.transcript == "Hello"


async def test_several_answers_with_probabilities(client: openai.AsyncOpenAI, upstream: Provider) -> None:
    """`n`, `logprobs` and `top_logprobs`, whole and as a stream whose pieces come in turns."""
    fields: dict[str, Any] = {"messages": MESSAGES, "n": 2, "logprobs": True, "top_logprobs": 2}
    answer = await client.chat.completions.create(model="features", **fields)
    assert sent(upstream) == fields
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [
        (0, "".join(WORDS)),
        (1, "".join(WORDS)),
    ]
    token = answer.choices[1].logprobs.content[0]
    assert (token.token, token.logprob, token.bytes) == (WORDS[0], -0.1, list(WORDS[0].encode()))
    assert [top.token for top in token.top_logprobs] == list(WORDS[:2])
    texts, tokens, turns = ["", ""], [[], []], []
    async for chunk in await client.chat.completions.create(model="features", stream=True, **fields):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            turns.append(choice.index)
            if choice.logprobs:
                tokens[choice.index] += [token.token for token in choice.logprobs.content]
    assert texts == ["".join(WORDS)] * 2
    assert tokens == [list(WORDS)] * 2
    assert turns == [0, 1] * (len(turns) // 2)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_called_at_once(client: openai.AsyncOpenAI, upstream: Provider, stream: bool) -> None:
    """Two calls, in a stream with their arguments in pieces, as the package puts them together."""
    choice = {"type": "function", "function": {"name": "weather"}}
    fields: dict[str, Any] = {"messages": MESSAGES, "tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": True}
    if stream:
        async with client.chat.completions.stream(model="features", **fields) as events:
            kinds = [event.type async for event in events]
        made = (await events.get_final_completion()).choices[0]
        assert kinds.count("tool_calls.function.arguments.delta") >= 4
    else:
        made = (await client.chat.completions.create(model="features", **fields)).choices[0]
    assert {name: value for name, value in sent(upstream).items() if name in fields} == fields
    assert made.finish_reason == "tool_calls"
    assert [(call.function.name, call.function.arguments) for call in made.message.tool_calls] == CALLED
    assert [call.id for call in made.message.tool_calls] == ["call_0", "call_1"]


async def test_answers_that_follow_a_schema(client: openai.AsyncOpenAI, upstream: Provider) -> None:
    """As the package's `parse` does it."""
    answer = await client.chat.completions.parse(model="features", messages=MESSAGES, response_format=Weather)
    assert answer.choices[0].message.parsed == Weather(city="Bern", degrees=21)
    assert sent(upstream)["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize("asked", [False, True])
async def test_reasoning_and_usage_of_a_stream(client: openai.AsyncOpenAI, upstream: Provider, asked: bool) -> None:
    """Thoughts come apart from the answer; usage is the last chunk's if it was asked for, and not seen otherwise."""
    fields: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    stream = await client.chat.completions.create(
        model="features", messages=MESSAGES, reasoning_effort="low", stream=True, **fields
    )
    chunks = [chunk async for chunk in stream]
    assert upstream.bodies[-1]["reasoning_effort"] == "low"
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas) == "Hm."
    assert "".join(delta.content or "" for delta in deltas) == "".join(WORDS)
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert [usage.completion_tokens_details.reasoning_tokens for usage in usages] == ([3] if asked else [])
    assert (chunks[-1].usage is not None) is asked
    whole = await client.chat.completions.create(model="features", messages=MESSAGES, reasoning_effort="high")
    assert whole.choices[0].message.model_extra["reasoning_content"] == "Hm."
    assert whole.usage.completion_tokens_details.reasoning_tokens == 3


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_batches_of_embeddings(client: openai.AsyncOpenAI, upstream: Provider, encoding: str | None) -> None:
    """Hundreds at once, in order, of the knowledge base's size, in either form (the package's default is packed)."""
    texts = ["x" * number for number in range(1, 301)]
    fields: dict[str, Any] = {"encoding_format": encoding} if encoding else {}
    made = await client.embeddings.create(model="handbook", input=texts, dimensions=8, **fields)
    assert [vector.index for vector in made.data] == list(range(300))
    assert (upstream.bodies[-1]["dimensions"], upstream.bodies[-1]["input"]) == (8, texts)
    if encoding == "base64":
        assert all(isinstance(vector.embedding, str) for vector in made.data)
        return
    assert [vector.embedding for vector in made.data] == [[float(number), *[0.5] * 7] for number in range(1, 301)]


# --- LangChain --------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(client: openai.AsyncOpenAI, cluster: Cluster, gateway: Running) -> ChatOpenAI:
    """The model as a LangChain application would make it."""
    token = SecretStr(cluster.token(NAMESPACE))
    return ChatOpenAI(model="features", base_url=f"{gateway.url}/v1", api_key=token, max_retries=0, max_tokens=99)


async def test_langchain_gets_text_thoughts_and_usage(chat: ChatOpenAI, upstream: Provider) -> None:
    """Whole and streamed; its settings arrive as it names them."""
    chat = chat.bind(seed=7, stop=["END"], n=1, logprobs=True, top_logprobs=2)
    answer = await chat.ainvoke("Hi", reasoning_effort="low")
    assert answer.content == "".join(WORDS)
    assert answer.usage_metadata["output_token_details"]["reasoning"] == 3
    assert answer.response_metadata["logprobs"]["content"][0]["token"] == WORDS[0]
    assert answer.response_metadata["system_fingerprint"] == "fp_7"
    got = sent(upstream)
    assert (got["max_completion_tokens"], got["stop"], got["reasoning_effort"]) == (99, ["END"], "low")
    pieces = [piece async for piece in chat.astream("Hi", stream_usage=True)]
    assert "".join(str(piece.content) for piece in pieces) == "".join(WORDS)
    assert [piece.usage_metadata["total_tokens"] for piece in pieces if piece.usage_metadata] == [15]


@pytest.mark.parametrize("stream", [False, True])
async def test_langchain_calls_tools(chat: ChatOpenAI, upstream: Provider, stream: bool) -> None:
    """Two at once; their results go back."""
    bound = chat.bind_tools(TOOLS, tool_choice="any", parallel_tool_calls=True)
    asked = HumanMessage("The weather and the time?")
    called: Any = None
    if stream:
        async for piece in bound.astream([asked]):
            called = piece if called is None else called + piece
        assert isinstance(called, AIMessageChunk)
    else:
        called = await bound.ainvoke([asked])
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [
        ("weather", {"city": "Bern"}),
        ("time", {"zone": "CET"}),
    ]
    assert upstream.bodies[-1]["tool_choice"] == "required"
    results = [ToolMessage(f"result {call['name']}", tool_call_id=call["id"]) for call in called.tool_calls]
    await chat.ainvoke([asked, called, *results])
    assert [message["role"] for message in upstream.bodies[-1]["messages"]] == ["user", "assistant", "tool", "tool"]


async def test_langchain_gets_objects_and_sends_pictures(chat: ChatOpenAI, upstream: Provider) -> None:
    """By a JSON schema; with a picture in the request and one at an address."""
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in (PIXEL, "https://pictures.example/a.png")]
    asked = HumanMessage([{"type": "text", "text": "Where?"}, *pictures])  # type: ignore[list-item]
    assert await chat.with_structured_output(Weather).ainvoke([asked]) == Weather(city="Bern", degrees=21)
    assert upstream.bodies[-1]["messages"][0]["content"][1:] == pictures


async def test_langchain_embeds(chat: ChatOpenAI, cluster: Cluster, gateway: Running) -> None:
    """In batches, as texts."""
    embeddings = OpenAIEmbeddings(
        model="handbook",
        base_url=f"{gateway.url}/v1",
        api_key=SecretStr(cluster.token(NAMESPACE)),
        check_embedding_ctx_length=False,
        chunk_size=2,
    )
    made = await embeddings.aembed_documents(["a", "bb", "ccc"])
    assert [vector[0] for vector in made] == [1, 2, 3]


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
