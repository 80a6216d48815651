"""LlamaIndex's `OpenAILike`."""

from __future__ import annotations

import os

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

ASKED = [ChatMessage(role="user", content=os.environ["CLIENTS_QUESTION"])]
WORDS = os.environ["CLIENTS_WORDS"]


def llm(model: str) -> OpenAILike:
    """An assistant as LlamaIndex's model."""
    where = {"api_base": os.environ["CLIENTS_URL"], "api_key": os.environ["CLIENTS_KEY"]}
    return OpenAILike(model=model, **where, is_chat_model=True, is_function_calling_model=True, max_retries=0)


def test_whole_and_streamed() -> None:
    """The same words; the notes are in the raw answer."""
    whole = llm("support").chat(ASKED)
    assert WORDS in (whole.message.content or "")
    assert whole.raw.choices[0].message.annotations[0].url_citation.title == os.environ["CLIENTS_TITLE"]  # type: ignore[union-attr]
    assert list(llm("support").stream_chat(ASKED))[-1].message.content == whole.message.content
    assert WORDS not in str(llm("plain").chat(ASKED).message.content)


def test_a_tool_is_called() -> None:
    """With its argument."""

    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return f"21 degrees in {city}"

    tool = FunctionTool.from_defaults(weather)
    found = llm("plain").predict_and_call([tool], "The weather in 'Bern'?")
    assert str(found) == "21 degrees in Bern"


def test_errors() -> None:
    """Are the `openai` package's."""
    with pytest.raises(openai.NotFoundError):
        llm("nobody").chat(ASKED)
