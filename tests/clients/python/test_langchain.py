"""LangChain's `ChatOpenAI`: its answers' sources, and the standard suite of langchain-tests without an exception."""

from __future__ import annotations

import os

import pytest
from conftest import Endpoint
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


def test_sources_reach_the_message(endpoint: Endpoint) -> None:
    """Streamed, too, the words are whole."""
    chat = ChatOpenAI(model="support", base_url=endpoint.url, api_key=endpoint.key, max_retries=0)  # type: ignore[arg-type]
    whole = chat.invoke(endpoint.question)
    assert endpoint.words in whole.text
    pieces = list(chat.stream(endpoint.question))
    streamed = pieces[0]
    for piece in pieces[1:]:
        streamed += piece
    assert isinstance(streamed, AIMessageChunk)
    assert streamed.text == whole.text


class TestStandardSuite(ChatModelIntegrationTests):
    """Everything that LangChain expects of a chat model."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        """The class of the model."""
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, object]:
        """How it is made."""
        return {
            "model": "plain",
            "base_url": os.environ["CLIENTS_URL"],
            "api_key": os.environ["CLIENTS_KEY"],
            "stream_usage": True,
        }

    @property
    def supports_json_mode(self) -> bool:
        """JSON without a schema."""
        return True

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest) -> BaseChatModel:  # type: ignore[override]
        """Without retries: what fails is to be seen."""
        extra = getattr(request, "param", None) or {}
        return self.chat_model_class(**{**self.standard_chat_model_params, **self.chat_model_params, **extra})
