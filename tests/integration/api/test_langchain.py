"""LangChain's `ChatOpenAI`, unchanged, pointed at the tenant API: nothing of it knows that this is not OpenAI."""

from __future__ import annotations

import openai
import pytest
from api_gateway import FakeGateway
from api_process import KEY, ApiProcess
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

QUESTION = "How are you?"
ANSWER = "You asked: How are you?"


class Weather(BaseModel):
    """The weather somewhere."""

    city: str
    degrees: int


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"21 degrees in {city}"


@pytest.fixture
def chat(api: ApiProcess) -> ChatOpenAI:
    """The model as a LangChain application would make it."""
    return ChatOpenAI(model="plain", base_url=f"{api.url}/v1", api_key=SecretStr(KEY), max_retries=0, timeout=30)


def test_invoke_gives_the_answer_with_its_usage(chat: ChatOpenAI, gateway: FakeGateway) -> None:
    """The instructions of the assistant are there too, and the user goes with the call."""
    answer = chat.invoke(QUESTION, user="ada")
    assert answer.content == ANSWER
    assert answer.usage_metadata is not None
    assert (answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]) == (1, 5)
    assert answer.response_metadata["finish_reason"] == "stop"
    assert gateway.chats[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert gateway.headers[-1]["x-assistant-user"] == "ada"


def test_stream_gives_words_as_they_come_and_the_usage_in_the_end(chat: ChatOpenAI) -> None:
    """More than one piece, the same words, the usage once."""
    pieces = list(chat.stream(QUESTION, stream_usage=True))
    assert len([piece for piece in pieces if piece.content]) == 5
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert isinstance(whole, AIMessageChunk)
    assert whole.content == f"{ANSWER} "
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 5


async def test_asynchronous_calls_work_as_well(chat: ChatOpenAI) -> None:
    """Invoke and stream."""
    assert (await chat.ainvoke(QUESTION)).content == ANSWER
    assert "".join([str(piece.content) async for piece in chat.astream(QUESTION)]) == f"{ANSWER} "


def test_a_bound_tool_is_called_and_its_result_answered(chat: ChatOpenAI, gateway: FakeGateway) -> None:
    """The model's call comes back with its arguments; the tool's message goes through to the model."""
    bound = chat.bind_tools([weather], tool_choice="auto")
    asked = HumanMessage("The weather in Paris?")
    called = bound.invoke([asked])
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert bound.invoke([asked, called, result]).content == "You asked: 21 degrees in Paris"
    assert [message["role"] for message in gateway.chats[-1]["messages"]] == ["system", "user", "assistant", "tool"]
    assert gateway.chats[-1]["messages"][-1]["tool_call_id"] == call["id"]


def test_a_streamed_tool_call_is_put_together(chat: ChatOpenAI) -> None:
    """Its arguments come in pieces."""
    pieces = list(chat.bind_tools([weather]).stream("The weather in Paris?"))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert isinstance(whole, AIMessageChunk)
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("weather", {"city": "Paris"})]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_an_object(chat: ChatOpenAI, gateway: FakeGateway, method: str) -> None:
    """By JSON schema, which reaches the model as it was sent, and by a tool."""
    structured = chat.with_structured_output(Weather, method=method, include_raw=True)  # type: ignore[arg-type]
    found = structured.invoke("The weather in Paris?")
    assert isinstance(found, dict)
    sent = gateway.chats[-1]
    if method == "json_schema":
        assert found["parsed"] == Weather(city="Paris", degrees=21)
        assert sent["response_format"]["json_schema"]["name"] == "Weather"
    else:  # the stand-in names only the city: what the model says comes through, and LangChain judges it
        assert found["raw"].tool_calls[0]["args"] == {"city": "Paris"}
        assert sent["tool_choice"]["function"]["name"] == "Weather"


def test_a_used_up_budget_raises_the_error_that_applications_handle(chat: ChatOpenAI) -> None:
    """Invoked or streamed: the `openai` package's RateLimitError with the code and the time to wait."""
    for call in (chat.invoke, lambda text: list(chat.stream(text))):
        with pytest.raises(openai.RateLimitError) as caught:
            call("budget_exhausted")
        assert caught.value.code == "budget_exhausted"
        assert caught.value.response.headers["retry-after"] == "86400"


def test_unknown_assistants_and_wrong_keys_have_their_classes(api: ApiProcess) -> None:
    """As LangChain applications know them from OpenAI."""
    url = f"{api.url}/v1"
    with pytest.raises(openai.NotFoundError):
        ChatOpenAI(model="nobody", base_url=url, api_key=SecretStr(KEY), max_retries=0).invoke(QUESTION)
    with pytest.raises(openai.AuthenticationError):
        ChatOpenAI(model="plain", base_url=url, api_key=SecretStr("ak_wrong"), max_retries=0).invoke(QUESTION)
