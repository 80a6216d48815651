"""The Responses API, from the caller's request to the caller's answer; nothing is stored here."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from api_world import World, chunk, completion, json_answer, passage, stream_answer

from assistant_api.gateway import GatewayUnreachableError

RESPONSES = "/v1/responses"
DONE = b"data: [DONE]\n\n"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def ask(**members: Any) -> dict[str, Any]:
    return {"model": "plain", "input": "What torque?", "store": False, **members}


def data(**members: Any) -> bytes:
    return b"data: " + json.dumps(members).encode() + b"\n\n"


def call(index: int, **members: Any) -> bytes:
    delta = {"tool_calls": [{"index": index, **members}]}
    return data(choices=[{"index": 0, "delta": delta, "finish_reason": None}])


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        name, content = block.split("\n")
        event = json.loads(content.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


async def test_every_member_that_a_chat_completion_has_reaches_the_model(
    client: httpx.AsyncClient, world: World
) -> None:
    """Under its name there; the assistant's own instructions come first."""
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
    form = {"type": "json_schema", "name": "Weather", "schema": WEATHER}
    answer = await client.post(
        RESPONSES,
        json=ask(
            instructions="In verse.",
            max_output_tokens=9,
            temperature=0.5,
            tools=[tool],
            tool_choice={"type": "function", "name": "weather"},
            parallel_tool_calls=False,
            reasoning={"effort": "low"},
            text={"format": form, "verbosity": "low"},
            metadata={"a": "b"},
            user="ann",
            include=["reasoning.encrypted_content"],
            truncation="disabled",
        ),
    )
    assert answer.status_code == 200, answer.text
    function = {"name": "weather", "parameters": WEATHER, "strict": True}
    assert world.gateway.asked == [
        {
            "model": "plain",
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "system", "content": "In verse."},
                {"role": "user", "content": "What torque?"},
            ],
            "max_completion_tokens": 9,
            "temperature": 0.5,
            "tools": [{"type": "function", "function": function}],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
            "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "Weather", "schema": WEATHER}},
            "verbosity": "low",
            "user": "ann",
        }
    ]
    found = answer.json()
    assert found["metadata"] == {"a": "b"}
    assert (found["instructions"], found["max_output_tokens"], found["tools"]) == ("In verse.", 9, [tool])
    assert found["text"] == {"format": form, "verbosity": "low"}
    assert found["store"] is False


async def test_items_become_messages(client: httpx.AsyncClient, world: World) -> None:
    """Calls belong to the message before them; images and files are parts."""
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be exact."}]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look."},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
            ],
        },
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "One moment.", "annotations": [], "logprobs": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "21"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "22"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    answer = await client.post(RESPONSES, json=ask(input=items))
    assert answer.status_code == 200, answer.text
    calls = [
        {"id": each, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for each in ("c1", "c2")
    ]
    assert world.gateway.asked[0]["messages"][1:] == [
        {"role": "developer", "content": "Be exact."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
            ],
        },
        {"role": "assistant", "content": "One moment.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "21"},
        {"role": "tool", "tool_call_id": "c2", "content": "22"},
        {"role": "assistant", "content": None, "refusal": "No."},
    ]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": 3}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "x", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "f", "deferred": True}]}, "tools[0].deferred"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include[0]"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {"a": "x" * 513}}, "metadata[...]"),
        ({"seed": 7}, "seed"),
    ],
)
async def test_what_cannot_be_carried_over_is_refused_by_name(
    client: httpx.AsyncClient, world: World, members: dict[str, Any], param: str
) -> None:
    """400 in OpenAI's envelope, and nothing is asked."""
    answer = await client.post(RESPONSES, json=ask(**members))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_field", param), error
    assert world.gateway.asked == []


async def test_a_whole_response_has_its_citations_and_its_usage(client: httpx.AsyncClient, world: World) -> None:
    """In the Responses API's names."""
    world.retrieval.passages = [passage(1), passage(2)]
    world.gateway.answer = json_answer(completion("42 Nm [2].", usage=USAGE), x_assistant_model="openai/gpt")
    answer = await client.post(RESPONSES, json=ask(model="support"))
    found = answer.json()
    assert answer.headers["x-assistant-model"] == "openai/gpt"
    assert (found["object"], found["status"], found["model"]) == ("response", "completed", "support")
    assert found["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 8,
    }
    (item,) = found["output"]
    (part,) = item["content"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert part["text"] == "42 Nm [2]."
    (note,) = part["annotations"]
    assert part["text"][note["start_index"] : note["end_index"]] == "[2]"
    assert (note["type"], note["title"]) == ("url_citation", "handbook.pdf")
    assert note["url"].endswith("/content#page=2")
    assert world.gateway.answer.closed


async def test_a_stream_says_everything_in_order(client: httpx.AsyncClient, world: World) -> None:
    """Created first, completed last; what is done repeats what came in pieces."""
    world.retrieval.passages = [passage(1)]
    world.gateway.answer = stream_answer(
        data(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]),
        chunk("42 Nm "),
        chunk("[1]"),
        chunk(finish="stop"),
        data(choices=[], usage=USAGE),
        DONE,
    )
    answer = await client.post(RESPONSES, json=ask(model="support", stream=True))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert world.gateway.asked[0]["stream_options"] == {"include_usage": True}
    found = events(answer)
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["response"]["status"] for event in found if "response" in event] == [
        *("in_progress", "in_progress", "completed")
    ]
    final = found[-1]["response"]
    assert final["output"] == [found[-2]["item"]]
    assert final["output"][0]["content"] == [found[-3]["part"]]
    assert found[-4]["text"] == "42 Nm [1]" == final["output"][0]["content"][0]["text"]
    assert final["output"][0]["content"][0]["annotations"] == [found[6]["annotation"]]
    assert final["usage"]["total_tokens"] == 8
    assert {event["item_id"] for event in found if "item_id" in event} == {final["output"][0]["id"]}
    assert world.gateway.answer.closed


async def test_calls_of_the_callers_functions_come_back_as_items(client: httpx.AsyncClient, world: World) -> None:
    """Two at once, mixed, after some words."""
    world.gateway.answer = stream_answer(
        chunk("Looking."),
        call(0, id="c1", type="function", function={"name": "weather", "arguments": ""}),
        call(1, id="c2", type="function", function={"name": "time", "arguments": ""}),
        call(0, function={"arguments": '{"city":'}),
        call(1, function={"arguments": "{}"}),
        call(0, function={"arguments": '"Bern"}'}),
        chunk(finish="tool_calls"),
        DONE,
    )
    answer = await client.post(RESPONSES, json=ask(stream=True, tools=[{"type": "function", "name": "weather"}]))
    final = events(answer)[-1]["response"]
    assert final["status"] == "completed"
    message, *calls = final["output"]
    assert message["content"][0]["text"] == "Looking."
    assert [(each["type"], each["call_id"], each["name"], each["arguments"], each["status"]) for each in calls] == [
        ("function_call", "c1", "weather", '{"city":"Bern"}', "completed"),
        ("function_call", "c2", "time", "{}", "completed"),
    ]
    done = [event for event in events(answer) if event["type"] == "response.function_call_arguments.done"]
    assert [event["arguments"] for event in done] == ['{"city":"Bern"}', "{}"]


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [("length", "incomplete", "max_output_tokens"), ("content_filter", "incomplete", "content_filter")],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_is_incomplete(
    client: httpx.AsyncClient, world: World, reason: str, status: str, why: str, *, stream: bool
) -> None:
    """With the reason."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Four"}, "finish_reason": reason}
    whole = json_answer(completion("", choices=[choice]))
    world.gateway.answer = stream_answer(chunk("Four"), chunk(finish=reason), DONE) if stream else whole
    answer = await client.post(RESPONSES, json=ask(stream=stream))
    found = events(answer)[-1] if stream else {"type": f"response.{status}", "response": answer.json()}
    assert found["type"] == f"response.{status}"
    assert (found["response"]["status"], found["response"]["incomplete_details"]) == (status, {"reason": why})
    assert found["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(
    "last", [GatewayUnreachableError("cut"), b'data: {"error": {"message": "secret", "code": "x"}}\n\n']
)
async def test_an_answer_that_breaks_off_has_failed(
    client: httpx.AsyncClient, world: World, last: bytes | Exception
) -> None:
    """In the caller's language, and with what there is."""
    world.gateway.answer = stream_answer(chunk("Four"), last)
    answer = await client.post(RESPONSES, json=ask(stream=True), headers={"accept-language": "de"})
    final = events(answer)[-1]
    assert final["type"] == "response.failed"
    assert final["response"]["error"]["code"] == "server_error"
    assert "Die Antwort" in final["response"]["error"]["message"]
    assert final["response"]["output"][0]["content"][0]["text"] == "Four"
    assert "secret" not in answer.text


async def test_a_refusal_is_a_part_of_its_own(client: httpx.AsyncClient, world: World) -> None:
    """As OpenAI writes it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "refusal": "No."}, "finish_reason": "stop"}
    world.gateway.answer = json_answer(completion("", choices=[choice]))
    answer = await client.post(RESPONSES, json=ask())
    assert answer.json()["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]


async def test_a_provider_that_does_not_stream_is_told_in_events(client: httpx.AsyncClient, world: World) -> None:
    """All at once."""
    world.gateway.answer = json_answer(completion("Hello."))
    answer = await client.post(RESPONSES, json=ask(stream=True))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events(answer)[-1]["response"]["output"][0]["content"][0]["text"] == "Hello."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_gateway_is_told_as_it_is_for_chats(
    client: httpx.AsyncClient, world: World, *, stream: bool
) -> None:
    """With the time to come back."""
    world.gateway.answer = json_answer({"error": {"message": "m", "code": "budget_exhausted"}}, 429, retry_after="5")
    answer = await client.post(RESPONSES, json=ask(stream=stream))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_exhausted")
    assert answer.headers["retry-after"] == "5"


async def test_an_answer_without_end_fails_instead_of_filling_the_memory(
    client: httpx.AsyncClient, world: World
) -> None:
    """What is beyond the bound is not kept."""
    world.gateway.answer = stream_answer(*[chunk("x" * 1_000_000)] * 4, DONE)
    answer = await client.post(RESPONSES, json=ask(stream=True))
    assert events(answer)[-1]["type"] == "response.failed"


@pytest.mark.parametrize("identity", ["resp_1", "resp_" + "0" * 31 + "G", "msg_" + "0" * 32, "0" * 32])
async def test_an_id_that_nobody_has_is_404(client: httpx.AsyncClient, identity: str) -> None:
    """The database is not even asked."""
    for answer in (
        await client.get(f"{RESPONSES}/{identity}"),
        await client.delete(f"{RESPONSES}/{identity}"),
        await client.get(f"{RESPONSES}/{identity}/input_items"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "response_not_found")
    answer = await client.post(RESPONSES, json=ask(previous_response_id=identity))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "previous_response_not_found")
