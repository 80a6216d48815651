"""The stand-in model calls tools and writes JSON as it is asked to, the same each time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from assistant_demo.calling import document, tool_call
from assistant_demo.filling import instance
from assistant_demo.wire import ChatRequest, WireError, decode

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city"],
}
TOOLS = [
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": WEATHER}},
]


def chat(*messages: dict[str, Any], **members: Any) -> ChatRequest:
    return decode(json.dumps({"model": "stand-in", "messages": messages, **members}).encode(), ChatRequest)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def called(name: str) -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "21"}
ASKED = "How is the weather in 'Bern' in the next 3 days, in F?"


def test_the_fitting_tool_is_called_with_what_the_question_says() -> None:
    """By its words; arguments by their types."""
    call = tool_call(chat(user(ASKED), tools=TOOLS), ASKED)
    assert call is not None
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Bern", "days": 3, "unit": "F"})
    assert call == tool_call(chat(user(ASKED), tools=TOOLS), ASKED)
    streamed = [delta["tool_calls"][0]["function"]["arguments"] for delta in call.deltas()]
    assert "".join(streamed) == call.arguments
    assert len(streamed) > 2


@pytest.mark.parametrize(
    ("history", "choice", "name"),
    [
        ([], "none", None),
        ([], "auto", "get_weather"),
        ([], {"type": "function", "function": {"name": "get_time"}}, "get_time"),
        ([called("get_weather"), RESULT], None, None),
        ([called("get_weather"), RESULT], "required", "get_time"),
        ([called("get_weather"), RESULT, called("get_time"), RESULT], "required", "get_weather"),
    ],
)
def test_when_it_calls(history: list[dict[str, Any]], choice: Any, name: str | None) -> None:
    """After a user's message, not after a tool's, unless it has to: then what was not called yet."""
    call = tool_call(chat(user(ASKED), *history, tools=TOOLS, tool_choice=choice), ASKED)
    assert (call and call.name) == name


def test_a_tool_that_is_not_there_is_refused() -> None:
    """As OpenAI does."""
    choice = {"type": "function", "function": {"name": "nothing"}}
    with pytest.raises(WireError):
        tool_call(chat(user("Hi"), tools=TOOLS, tool_choice=choice), "Hi")


def test_json_by_schema() -> None:
    """References, optional parts, lists and bounds; a schema that leads to itself has an end."""
    node = {"type": "object", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/Node"}}}
    schema = {
        "$defs": {"Node": node},
        "type": "object",
        "properties": {
            "node": {"$ref": "#/$defs/Node"},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]},
            "many": {"type": "array", "items": {"type": "number", "maximum": 5}, "minItems": 2},
            "kind": {"const": "x"},
            "nullable": {"type": ["null", "boolean"]},
        },
        "required": ["unnamed"],
    }
    made = instance(schema, 'Call it "A", 7 and 2.5')
    assert made["node"]["name"] == "A"
    assert (made["maybe"], made["many"], made["kind"], made["nullable"]) == ("Cal", [5.0, 2.5], "x", True)
    assert made["unnamed"].startswith("Call it")


@pytest.mark.parametrize(
    ("form", "question", "keys"),
    [
        ({"type": "json_schema", "json_schema": {"name": "W", "schema": WEATHER}}, ASKED, {"city", "days", "unit"}),
        ({"type": "json_object"}, "JSON with the keys 'setup' and 'punchline'", {"setup", "punchline"}),
        ({"type": "json_object"}, f"As in {json.dumps(WEATHER)}", {"city", "days", "unit"}),
        ({"type": "text"}, ASKED, None),
        (None, ASKED, None),
    ],
)
def test_the_response_format_is_kept(form: Any, question: str, keys: set[str] | None) -> None:
    """By schema, by the keys that are named, by a schema in the words; otherwise words."""
    written = document(chat(user(question), response_format=form), question)
    assert (None if written is None else set(json.loads(written))) == keys
