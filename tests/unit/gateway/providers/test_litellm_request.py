"""What may go into a translation: everything that is named, and nothing of LiteLLM's own settings."""

import json
from typing import Any

import msgspec
import pytest

from assistant_gateway.errors import GatewayError
from assistant_gateway.providers import litellm_request

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def fields(**values: Any) -> dict[str, msgspec.Raw]:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **values}
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}


def chat(
    kind: str = "anthropic", supported: tuple[str, ...] = ("temperature", "tools", "stop"), **values: Any
) -> dict[str, Any]:
    return litellm_request.chat(fields(**values), "p", kind, supported.__contains__)


def test_what_is_supported_goes_on() -> None:
    """Known fields as they are; how it is sent, nulls, defaults and what has no effect are left out."""
    harmless = {"user": "u", "n": 1, "logprobs": False, "modalities": ["text"], "service_tier": "auto"}
    made = chat(temperature=0.5, tools=[TOOL], stop=None, stream=True, stream_options={}, **harmless)
    messages = [{"role": "user", "content": "Hi"}]
    assert made == {"messages": messages, "temperature": 0.5, "tools": [TOOL]}


@pytest.mark.parametrize(
    ("values", "param", "code"),
    [
        ({"api_base": "http://x"}, "api_base", "unsupported_parameter"),
        ({"seed": 3}, "seed", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools", "invalid_value"),
        ({"tools": 3}, "tools", "invalid_value"),
        ({"messages": [{"role": "root", "content": "x"}]}, "messages", "invalid_value"),
        ({"messages": ["x"]}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio", "unsupported_parameter"),
        ({"prediction": {"type": "content"}}, "prediction", "unsupported_parameter"),
        ({"web_search_options": {"a": 1}}, "web_search_options", "unsupported_parameter"),
        ({"service_tier": "priority"}, "service_tier", "unsupported_parameter"),
        ({"verbosity": "low"}, "verbosity", "unsupported_parameter"),
        ({"logit_bias": {"3": 1}}, "logit_bias", "unsupported_parameter"),
    ],
)
def test_what_would_be_lost_or_misused_is_refused_by_name(values: dict[str, Any], param: str, code: str) -> None:
    """A 400 that says which field."""
    with pytest.raises(GatewayError) as caught:
        chat(**values)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/", "https://x.example/a.png", "gs://b/c", "file:///etc/passwd"]
)
@pytest.mark.parametrize("role", ["user", "tool"])
def test_no_picture_is_fetched(url: str, role: str) -> None:
    """LiteLLM would fetch it, from inside the platform."""
    for image in ({"url": url}, url):
        with pytest.raises(GatewayError) as caught:
            chat(messages=[{"role": role, "content": [{"type": "image_url", "image_url": image}]}])
        assert caught.value.code == "image_not_embedded"
        assert url not in caught.value.message


EVERYTHING = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "output_config", "stop")
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}
NAMED = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("kind", "values", "lacks", "param"),
    [
        ("anthropic", {"response_format": {"type": "json_object"}}, "", "response_format"),
        ("anthropic", {"response_format": SCHEMA, "tool_choice": "none", "parallel_tool_calls": False}, "", None),
        ("gemini", {"parallel_tool_calls": False}, "", "parallel_tool_calls"),
        ("gemini", {"response_format": {"type": "json_object"}, "tool_choice": NAMED}, "", None),
        ("cohere", {"tool_choice": "required"}, "", "tool_choice"),
        ("cohere", {"tool_choice": "none"}, "", "tool_choice"),
        ("cohere", {"tool_choice": NAMED}, "", "tool_choice"),
        ("cohere", {"tool_choice": "auto"}, "", None),
        ("bedrock", {"tool_choice": "none"}, "", "tool_choice"),
        ("bedrock", {"response_format": {"type": "json_object"}}, "", "response_format"),
        ("bedrock", {"response_format": SCHEMA, "tools": [TOOL], "parallel_tool_calls": False}, "", None),
        ("bedrock", {"parallel_tool_calls": False}, "output_config", "parallel_tool_calls"),
        ("bedrock", {"response_format": SCHEMA}, "output_config", None),
        ("bedrock", {"response_format": SCHEMA, "tools": [TOOL]}, "output_config", "response_format"),
        ("bedrock", {"response_format": SCHEMA}, "output_config tool_choice", "response_format"),
    ],
)
def test_what_litellm_takes_and_leaves_out_is_refused(
    kind: str, values: dict[str, Any], lacks: str, param: str | None
) -> None:
    """By family, and on Bedrock by what LiteLLM says of the model."""
    supported = tuple(name for name in EVERYTHING if name not in lacks.split())
    if param is None:
        assert values.items() <= chat(kind, supported, **values).items()
        return
    with pytest.raises(GatewayError) as caught:
        chat(kind, supported, **values)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"role": "user", "content": "x", "name": "ada"}, "name"),
        ({"role": "assistant", "content": None, "audio": {"id": "a"}}, "audio"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}, "function_call"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "input_audio"),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,", "detail": "low"}}],
            },
            "detail",
        ),
    ],
)
def test_what_would_be_lost_in_a_message_is_named(message: dict[str, Any], named: str) -> None:
    """Sound, names, calls of the old kind, and how closely to look at a picture."""
    with pytest.raises(GatewayError, match=named) as caught:
        chat(messages=[message])
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "messages", "unsupported_parameter")


def test_thoughts_of_earlier_answers_go_back_where_there_is_a_place_for_them() -> None:
    """Cohere's messages have none."""
    message = {"role": "assistant", "content": "x", "reasoning_content": "hm", "refusal": None, "audio": None}
    assert chat("gemini", messages=[message])["messages"][0]["reasoning_content"] == "hm"
    assert chat("cohere", messages=[message])["messages"] == [{"role": "assistant", "content": "x"}]


def test_messages_lose_what_is_not_openais() -> None:
    """Fields of a message that nobody named do not reach LiteLLM."""
    made = chat(messages=[{"role": "assistant", "content": "x", "provider_specific_fields": {}, "annotations": []}])
    assert made["messages"] == [{"role": "assistant", "content": "x"}]


@pytest.mark.parametrize("name", ["a/b", "a?b", "../x", "a..b", "a%2f", "", "http://x", "a b", "agent/x"])
def test_a_models_name_cannot_lead_elsewhere(name: str) -> None:
    """It becomes part of an address, and LiteLLM reads routes from it."""
    with pytest.raises(GatewayError):
        litellm_request.model(fields(model=name), "p")


@pytest.mark.parametrize(
    "name", ["claude-haiku-4-5", "anthropic.claude-v1:0", "arn:aws:bedrock:eu:1:inference-profile/a.b"]
)
def test_usual_names_are_fine(name: str) -> None:
    """As families write them."""
    assert litellm_request.model(fields(model=name), "p") == name


def test_embeddings_take_text_only() -> None:
    """Text or texts, with dimensions; packed vectors are made here."""
    body = fields(input="a", dimensions=2, encoding_format="base64")
    del body["messages"]
    assert litellm_request.embeddings(body, "p") == ({"input": ["a"], "dimensions": 2}, True)
    for wrong in ([[1, 2]], [], 3):
        with pytest.raises(GatewayError):
            litellm_request.embeddings({**body, "input": msgspec.Raw(json.dumps(wrong).encode())}, "p")
