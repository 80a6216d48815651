"""Exact counts: only where the tokenizer is known for sure, and never at the cost of a call."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assistant_gateway.metering import tokenizers as module
from assistant_gateway.metering.bounds import chat_bound
from assistant_gateway.metering.tokenizers import MOST_SECONDS, Tokenizers, encoding_of


def chat(content: Any, **more: Any) -> dict[str, msgspec.Raw]:
    body = {"messages": [{"role": "user", "content": content}], **more}
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}


@pytest.mark.parametrize(
    ("family", "model", "encoding"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", "o200k_base"),
        ("openai", "gpt-4.1", "o200k_base"),
        ("azure", "gpt-4", "cl100k_base"),
        ("openai", "text-embedding-3-small", "cl100k_base"),
        ("openai", "gpt-40", None),
        ("openai", "gpt-99", None),
        ("openrouter", "gpt-4o", None),
        (None, "gpt-4o", None),
    ],
)
def test_encodings_are_known_for_openais_models_only(family: str | None, model: str, encoding: str | None) -> None:
    """The same name elsewhere may be any model."""
    assert encoding_of(family, model) == encoding


async def test_without_a_vocabulary_the_bound_by_bytes_stands(tmp_path: Path) -> None:
    """No package or no file: no count and no error."""
    for tokenizers in (Tokenizers(None), Tokenizers(tmp_path)):
        assert await tokenizers.chat_count(chat("Hi"), "openai", "gpt-4o") is None


async def test_only_plain_text_is_counted() -> None:
    """Parts, tool calls and unknown models keep their bound."""
    tokenizers = Tokenizers.installed()
    assert await tokenizers.chat_count(chat([{"type": "text", "text": "Hi"}]), "openai", "gpt-4o") is None
    assert await tokenizers.chat_count(chat("Hi"), "openai", "gpt-99") is None
    assert await tokenizers.chat_count(chat("Hi", models=["other"]), "openai", "gpt-4o") is None


async def test_counts_are_close_and_never_above_the_bound() -> None:
    """English takes about a quarter of its bytes; text that pretends to be a control token is text."""
    pytest.importorskip("tiktoken", reason="the tokenizer is an option of the gateway's environment")
    tokenizers = Tokenizers.installed()
    for text in ("The quick brown fox jumps over the lazy dog. " * 200, "<|endoftext|>" * 50, "👋🏽 Grüße " * 50):
        counted = await tokenizers.chat_count(chat(text), "openai", "gpt-4")
        if counted is None:
            pytest.skip("no vocabularies are installed")
        assert counted.tokens <= chat_bound(chat(text), "gpt-4").tokens + 16
    english = await tokenizers.chat_count(
        chat("The quick brown fox jumps over the lazy dog. " * 200), "openai", "gpt-4"
    )
    assert english is not None
    assert 2000 <= english.tokens <= 2000 + 600


async def test_a_tenant_that_has_much_counted_is_not_counted_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused calls cost no requests, so counting has a share of its own; other tenants are counted meanwhile."""
    now = 1000.0
    tokenizers = Tokenizers(None, lambda: now)
    tokenizers._loaded["o200k_base"] = len
    monkeypatch.setattr(module, "_timed", lambda run: (run(), MOST_SECONDS * 0.6))
    for _ in range(2):
        assert await tokenizers.chat_count(chat("Hi"), "openai", "gpt-4o", "greedy") is not None
        await asyncio.sleep(0)
    assert await tokenizers.chat_count(chat("Hi"), "openai", "gpt-4o", "greedy") is None
    assert await tokenizers.chat_count(chat("Hi"), "openai", "gpt-4o", "other") is not None
    now += 60
    assert await tokenizers.chat_count(chat("Hi"), "openai", "gpt-4o", "greedy") is not None


async def test_long_counts_of_one_tenant_hold_up_no_other() -> None:
    """It has one place of a few threads; another's text is counted while it waits."""
    slow = threading.Event()

    def count(text: str) -> int:
        if "slow" in text:
            slow.wait(20)
        return len(text)

    tokenizers = Tokenizers(None)
    tokenizers._loaded["o200k_base"] = count
    greedy = [asyncio.create_task(tokenizers.chat_count(chat("slow"), "openai", "gpt-4o", "greedy")) for _ in range(4)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            assert await tokenizers.chat_count(chat("Hi"), "openai", "gpt-4o", "other") is not None
    finally:
        slow.set()
        await asyncio.gather(*greedy)
