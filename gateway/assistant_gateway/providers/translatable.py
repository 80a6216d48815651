"""What of an OpenAI request may go into a translation, field by field.

LiteLLM takes its own settings as arguments beside the request's: addresses, keys, callbacks. It also fetches pictures
from addresses inside messages, past the gateway's guards. So only what is named here is handed to it, and a field whose
effect would be lost is refused by name rather than dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from assistant_gateway import errors
from assistant_gateway.errors import GatewayError

# What has no effect on an answer, and OpenAI's defaults: left out where a family has no such field.
_WITHOUT_EFFECT = frozenset(
    {"user", "store", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"}
)
_DEFAULTS: Mapping[str, object] = {
    "n": 1,
    "parallel_tool_calls": True,
    "logprobs": False,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "tools": [],
    "tool_choice": "auto",
    "response_format": {"type": "text"},
    "encoding_format": "float",
}
_CHAT = frozenset(
    {
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "n",
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "logprobs",
        "top_logprobs",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "thinking",
    }
)
_MESSAGE = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "thinking_blocks"})
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_TEXT = frozenset({"type", "text", "cache_control"})
_IMAGE = frozenset({"type", "image_url", "cache_control"})
# A model's name becomes part of an address; what LiteLLM reads before a slash would choose another road.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]*|arn:[A-Za-z0-9._:/-]+")

Fields = Mapping[str, msgspec.Raw]


def chat(fields: Fields, provider: str, supported: Callable[[str], bool]) -> dict[str, Any]:
    """Return a chat's arguments; `supported` says whether the family has a field.

    Raises:
        GatewayError: 400, naming the field.
    """
    said = _decoded(fields)
    arguments: dict[str, Any] = {"messages": [_message(value) for value in _list(said.pop("messages"), "messages")]}
    for name in ("stream", "stream_options"):  # how an answer is sent is decided elsewhere
        said.pop(name, None)
    for name, value in said.items():
        if name in _CHAT and supported(name):
            arguments[name] = value
        elif name not in _WITHOUT_EFFECT and value != _DEFAULTS.get(name):
            raise unsupported(provider, name)
    return arguments


def embeddings(fields: Fields, provider: str) -> tuple[dict[str, Any], bool]:
    """Return the arguments for embeddings, and whether vectors are wanted in base64.

    Raises:
        GatewayError: 400, naming the field.
    """
    said = _decoded(fields)
    arguments: dict[str, Any] = {"input": _texts(said.pop("input"))}
    packed = said.get("encoding_format") == "base64"
    if packed:
        del said["encoding_format"]
    for name, value in said.items():
        if name == "dimensions":
            arguments[name] = value
        elif name not in _WITHOUT_EFFECT and value != _DEFAULTS.get(name):
            raise unsupported(provider, name)
    return arguments, packed


def model(fields: Fields, provider: str) -> str:
    """Return the model's name.

    Raises:
        GatewayError: 502: it is none that could be part of an address.
    """
    name = msgspec.json.decode(fields["model"], type=str)
    if not _MODEL.fullmatch(name) or ".." in name:
        raise errors.provider_error(provider, "has no model of this name", code="provider_model_not_found")
    return name


def unsupported(provider: str, name: str) -> GatewayError:
    """Return a 400 for a field whose effect would be lost."""
    message = f"Provider {provider} has nothing like {name!r}; leave it out."
    return errors.invalid_request(message, name, code="unsupported_parameter")


def _decoded(fields: Fields) -> dict[str, Any]:
    said = {}
    for name, raw in fields.items():
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise errors.invalid_request(f"{name!r} is not JSON.", name) from None
        if value is not None and name != "model":
            said[name] = value
    for name, value in said.items():
        if name == "tools":
            said[name] = [_tool(tool) for tool in _list(value, "tools")]
    return said


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise errors.invalid_request(f"{name!r} has to be an array.", name)
    return value


def _texts(value: object) -> list[str]:
    texts: list[Any] = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise errors.invalid_request("'input' has to be text, or an array of texts.", "input")
    return texts


def _tool(value: object) -> dict[str, Any]:
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise errors.invalid_request("Each of 'tools' has to be a function with a name.", "tools")
    return {"type": "function", "function": function}


def _message(value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("role") not in _ROLES:
        raise errors.invalid_request(f"Each message needs a role: {', '.join(sorted(_ROLES))}.", "messages")
    message = {name: inner for name, inner in value.items() if name in _MESSAGE}
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [_part(part) for part in content]
    elif content is not None and not isinstance(content, str):
        raise errors.invalid_request("A message's content has to be text or an array of parts.", "messages")
    return message


def _part(value: object) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(value, dict) and kind == "text" and isinstance(value.get("text"), str):
        return {name: inner for name, inner in value.items() if name in _TEXT}
    if isinstance(value, dict) and kind == "image_url":
        image = value.get("image_url")
        address = image.get("url") if isinstance(image, dict) else image
        if not isinstance(address, str) or not address.startswith("data:image/"):
            message = "For this provider pictures have to be in the request, as data: URLs; none is fetched."
            raise errors.invalid_request(message, "messages", code="image_not_embedded")
        part = {name: inner for name, inner in value.items() if name in _IMAGE}
        return {**part, "image_url": {"url": address}}
    raise errors.invalid_request("This provider takes parts of type 'text' and 'image_url' only.", "messages")
