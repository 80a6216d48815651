"""Every dialect of the OpenAI wire, through tenant API and gateway: the answer, its citations, fallbacks, the ledger.

`dialects.yaml` is the table, with its sources. Whatever a provider's dialect, OpenAI's client reads the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from dialect_chain import Chain, chain
from dialect_provider import TABLE, TEXT
from gateway_world import prepare

from assistant_cluster import stores

pytestmark = pytest.mark.asyncio(loop_scope="module")
# The caller has a system message of its own, and says the length of the answer under both names.
ASKED: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": "How many newton metres does the bottom bracket of the Larkspur take?"},
    ],
    "max_tokens": 60,
    "max_completion_tokens": 50,
}
DIALECTS = pytest.mark.parametrize("dialect", TABLE)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="chain")
async def running_chain(
    kube, redis_store, postgres: stores.Postgres, weaviate_store: stores.Weaviate, tmp_path_factory
) -> AsyncIterator[Chain]:
    """The chain, for all tests of this module."""
    cluster = prepare(kube.url, kube.kubectl, tmp_path_factory.mktemp("dialect-credentials"))
    folder = tmp_path_factory.mktemp("dialects")
    async with chain(cluster, folder, postgres, redis_store, weaviate_store) as running:
        yield running


async def streamed(chain: Chain, model: str) -> tuple[str, list[int], str | None, dict[str, str]]:
    """Ask for a stream; return its text, the passages that it cites, how it finished, and the answer's headers."""
    text, cited, finish = "", [], None
    async with chain.client() as client:
        raw = await client.chat.completions.with_raw_response.create(model=model, stream=True, **ASKED)
        async for chunk in raw.parse():
            assert chunk.choices or chunk.usage is None, "nobody asked for an event with usage alone"
            for choice in chunk.choices:
                assert finish is None or not choice.delta.content, "no text comes after the end"
                text += choice.delta.content or ""
                notes = (choice.delta.model_extra or {}).get("annotations") or []
                cited += [note["file_citation"]["index"] for note in notes]
                finish = choice.finish_reason or finish
    return text, cited, finish, dict(raw.headers)


def cost(dialect: str) -> tuple[int, int, int]:
    """Return the tokens of a dialect's answer, and what they cost."""
    asked, answered = TABLE[dialect]["usage"]
    return asked, answered, asked + 2 * answered


@DIALECTS
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_whole_cited_and_on_the_books(chain: Chain, dialect: str, stream: bool) -> None:
    """The text as text, one citation, an end; one entry in the ledger with the tokens that the provider named."""
    name = f"{dialect}-answer"
    before = len(await chain.entries(name, 0))
    if stream:
        text, cited, finish, _ = await streamed(chain, name)
    else:
        async with chain.client() as client:
            (choice,) = (await client.chat.completions.create(model=name, **ASKED)).choices
        text, finish = choice.message.content, choice.finish_reason
        cited = [note.model_extra["file_citation"]["index"] for note in choice.message.annotations]
    assert (text, cited) == (TEXT, [1])
    assert finish in {"stop", "eos", "COMPLETE"}
    entry = (await chain.entries(name, before + 1))[-1]
    assert entry.outcome == "ok"
    if TABLE[dialect]["usage"] == "estimated":
        assert (entry.source, entry.output) == ("estimated", len(TEXT))
    else:
        assert (entry.source, (entry.input, entry.output, entry.cost)) == ("reported", cost(dialect))


@DIALECTS
async def test_an_error_before_the_answer_is_answered_by_the_fallback(chain: Chain, dialect: str) -> None:
    """With status 200 and events before it: the client sees one whole answer, and the first call costs nothing."""
    name = f"{dialect}-first"
    text, cited, finish, headers = await streamed(chain, name)
    assert (text, cited, finish, headers["x-assistant-model"]) == (TEXT, [1], "stop", "backup/answer")
    first, second = await chain.entries(name, 2)
    assert (first.provider, first.outcome != "ok", first.cost) == (dialect, True, 0)
    assert (second.provider, second.outcome, second.cost) == ("backup", "ok", cost("openai")[2])


@DIALECTS
@pytest.mark.parametrize("how", ["midway", "half"])
async def test_half_an_answer_is_not_taken_for_a_whole_one(chain: Chain, dialect: str, how: str) -> None:
    """The client's library raises; nobody else is asked, and what was written is charged."""
    name = f"{dialect}-{how}"
    asked = len(chain.providers.asked)
    with pytest.raises(openai.APIError) as caught:
        await streamed(chain, name)
    assert caught.value.message
    assert chain.providers.asked[asked:] == [(dialect, how)]
    (entry,) = await chain.entries(name, 1)
    assert entry.outcome != "ok"
    assert entry.output > 0


@DIALECTS
async def test_a_refusal_has_its_class_whatever_its_shape(chain: Chain, dialect: str) -> None:
    """What another provider may do better goes on to it; the request's own fault is the caller's 400."""
    name, told = f"{dialect}-refusal", TABLE[dialect]["refusal"]["told"]
    async with chain.client() as client:
        if told == "fallback":
            answer = await client.chat.completions.create(model=name, **ASKED)
            assert answer.choices[0].message.content == TEXT
        else:
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(model=name, **ASKED)
            assert (caught.value.status_code // 100, caught.value.code) == (4, told)
    entries = await chain.entries(name, 2 if told == "fallback" else 1)
    assert [(entry.cost, entry.outcome == "ok") for entry in entries[:1]] == [(0, False)]


async def test_the_table_has_its_dialects() -> None:
    """Twelve at least, each with where its shapes are from."""
    assert len(TABLE) >= 12
    assert all(dialect["source"].startswith("https://") for dialect in TABLE.values())
