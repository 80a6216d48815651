"""What may go into a translation: everything that is named, and nothing of LiteLLM's own settings."""

import json
from typing import Any

import msgspec
import pytest

from assistant_gateway.errors import GatewayError
from assistant_gateway.providers import translatable

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def fields(**values: Any) -> dict[str, msgspec.Raw]:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **values}
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}


def chat(**values: Any) -> dict[str, Any]:
    return translatable.chat(fields(**values), "p", {"temperature", "tools", "stop"}.__contains__)


def test_what_is_supported_goes_on() -> None:
    """Known fields as they are; how it is sent, nulls, defaults and what has no effect are left out."""
    made = chat(temperature=0.5, tools=[TOOL], stop=None, stream=True, stream_options={}, user="u", n=1, logprobs=False)
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
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages", "invalid_value"),
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


def test_messages_lose_what_is_not_openais() -> None:
    """Fields of a message that nobody named do not reach LiteLLM."""
    made = chat(messages=[{"role": "assistant", "content": "x", "provider_specific_fields": {}, "annotations": []}])
    assert made["messages"] == [{"role": "assistant", "content": "x"}]


@pytest.mark.parametrize("name", ["a/b", "a?b", "../x", "a..b", "a%2f", "", "http://x", "a b", "agent/x"])
def test_a_models_name_cannot_lead_elsewhere(name: str) -> None:
    """It becomes part of an address, and LiteLLM reads roads from it."""
    with pytest.raises(GatewayError):
        translatable.model(fields(model=name), "p")


@pytest.mark.parametrize(
    "name", ["claude-haiku-4-5", "anthropic.claude-v1:0", "arn:aws:bedrock:eu:1:inference-profile/a.b"]
)
def test_usual_names_are_fine(name: str) -> None:
    """As families write them."""
    assert translatable.model(fields(model=name), "p") == name


def test_embeddings_take_text_only() -> None:
    """Text or texts, with dimensions; packed vectors are made here."""
    body = fields(input="a", dimensions=2, encoding_format="base64")
    del body["messages"]
    assert translatable.embeddings(body, "p") == ({"input": ["a"], "dimensions": 2}, True)
    for wrong in ([[1, 2]], [], 3):
        with pytest.raises(GatewayError):
            translatable.embeddings({**body, "input": msgspec.Raw(json.dumps(wrong).encode())}, "p")
