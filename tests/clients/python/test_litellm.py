"""LiteLLM, in front of the tenant API as of any server that speaks OpenAI's wire."""

from __future__ import annotations

import contextlib

import litellm
import pytest
from conftest import Endpoint


def ask(endpoint: Endpoint, model: str, **options: object) -> object:
    """One completion."""
    messages = [{"role": "user", "content": endpoint.question}]
    where = {"api_base": endpoint.url, "api_key": endpoint.key, "num_retries": 0}
    return litellm.completion(model=f"openai/{model}", messages=messages, **where, **options)


def test_whole_and_streamed_with_sources(endpoint: Endpoint) -> None:
    """Both have the words and the notes."""
    message = ask(endpoint, "support").choices[0].message  # type: ignore[attr-defined]
    assert endpoint.words in message.content
    assert message.annotations[0]["url_citation"]["title"] == endpoint.title
    chunks = list(ask(endpoint, "support", stream=True))  # type: ignore[call-overload]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    notes = [note for delta in deltas for note in getattr(delta, "annotations", None) or []]
    assert notes[0]["url_citation"]["title"] == endpoint.title


def test_errors_have_their_classes(endpoint: Endpoint) -> None:
    """LiteLLM's own."""
    with pytest.raises(litellm.NotFoundError):
        ask(endpoint, "nobody")
    with contextlib.suppress(litellm.RateLimitError):  # one request a minute, which another test may have had
        ask(endpoint, "limited")
    with pytest.raises(litellm.RateLimitError):
        ask(endpoint, "limited")
