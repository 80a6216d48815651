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
from assistant_gateway.wire.decoding import UNREADABLE

# What has no effect on an answer, and OpenAI's defaults: left out where a family has no such field.
_WITHOUT_EFFECT = frozenset(
    {"user", "store", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
_DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "parallel_tool_calls": (True,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("auto",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "service_tier": ("auto", "default"),
    "encoding_format": ("float",),
}
# What LiteLLM takes for a family and then leaves out: names of fields, and the forms of their values (`_form`).
_LOST: Mapping[str, frozenset[tuple[str, str]]] = {
    "anthropic": frozenset({("response_format", "json_object")}),
    "gemini": frozenset({("parallel_tool_calls", "false")}),
    "bedrock": frozenset({("response_format", "json_object"), ("tool_choice", "none")}),
    "cohere": frozenset({("tool_choice", "none"), ("tool_choice", "required"), ("tool_choice", "function")}),
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
_MESSAGE = frozenset({"role", "content", "tool_calls", "tool_call_id"})
_THOUGHTS = frozenset({"reasoning_content", "thinking_blocks"})
# What answers have and requests repeat, without an effect on the next answer.
_REPEATED = frozenset(
    {"refusal", "annotations", "provider_specific_fields", "reasoning", "reasoning_details", "images"}
)
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_TEXT = frozenset({"type", "text", "cache_control"})
_IMAGE = frozenset({"type", "image_url", "cache_control"})
# A model's name becomes part of an address; what LiteLLM reads before a slash would choose another route.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]*|arn:[A-Za-z0-9._:/-]+")

Fields = Mapping[str, msgspec.Raw]


def chat(fields: Fields, provider: str, kind: str, supported: Callable[[str], bool]) -> dict[str, Any]:
    """Return a chat's arguments.

    Args:
        fields: of the request.
        provider: its name, for messages.
        kind: the family.
        supported: whether LiteLLM takes a field for this model.

    Raises:
        GatewayError: 400, naming the field.
    """
    said = _decoded(fields)
    messages = _list(said.pop("messages"), "messages")
    arguments: dict[str, Any] = {"messages": [_message(value, provider, kind) for value in messages]}
    for name in ("stream", "stream_options"):  # how an answer is sent is decided elsewhere
        said.pop(name, None)
    lost = _LOST[kind] | _lost_on_bedrock(said, supported) if kind == "bedrock" else _LOST[kind]
    for name, value in said.items():
        if (name, _form(value)) in lost:
            raise unsupported(provider, name, _form(value))
        if name in _CHAT and supported(name):
            arguments[name] = value
        elif name not in _WITHOUT_EFFECT and value not in _DEFAULTS.get(name, ()):
            raise unsupported(provider, name)
    return arguments


def _lost_on_bedrock(said: Mapping[str, Any], supported: Callable[[str], bool]) -> frozenset[tuple[str, str]]:
    """Return what is lost besides: there it depends on the model.

    Claude's models take JSON schemas and a word on parallel calls. For others LiteLLM makes a tool of the schema and
    has it chosen: where no tool can be chosen, or others are there to choose from, the schema or those would be lost.
    """
    if supported("output_config"):
        return frozenset()
    lost = {("parallel_tool_calls", "false")}
    if said.get("tools") or not supported("tool_choice"):
        lost.add(("response_format", "json_schema"))
    return frozenset(lost)


def _form(value: object) -> str:
    """Return what kind of a value it is, in a word: its type where it has one."""
    if isinstance(value, dict):
        return str(value.get("type"))[:40]
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)[:40]


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
        elif name not in _WITHOUT_EFFECT and value not in _DEFAULTS.get(name, ()):
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


def unsupported(provider: str, name: str, form: str | None = None) -> GatewayError:
    """Return a 400 for a field, or a value of one, whose effect would be lost."""
    what = repr(name) if form is None else f"{name!r} of the kind {form!r}"
    message = f"Provider {provider} has nothing like {what}; leave it out."
    return errors.invalid_request(message, name, code="unsupported_parameter")


def _decoded(fields: Fields) -> dict[str, Any]:
    said = {}
    for name, raw in fields.items():
        try:
            value = msgspec.json.decode(raw)
        except UNREADABLE:
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


def _message(value: object, provider: str, kind: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("role") not in _ROLES:
        raise errors.invalid_request(f"Each message needs a role: {', '.join(sorted(_ROLES))}.", "messages")
    message = {}
    for name, inner in value.items():
        if name in _MESSAGE or (name in _THOUGHTS and kind != "cohere"):
            message[name] = inner
        elif name == "name" and value["role"] == "tool":
            pass  # the call's id says which it was
        elif inner and name not in _REPEATED and name not in _THOUGHTS:
            raise _lost_in_message(provider, f"a message's {name[:40]!r}")
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [_part(part, provider) for part in content]
    elif content is not None and not isinstance(content, str):
        raise errors.invalid_request("A message's content has to be text or an array of parts.", "messages")
    return message


def _part(value: object, provider: str) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(value, dict) and kind == "text" and isinstance(value.get("text"), str):
        return {name: inner for name, inner in value.items() if name in _TEXT}
    if isinstance(value, dict) and kind == "image_url":
        image = value.get("image_url")
        address = image.get("url") if isinstance(image, dict) else image
        if not isinstance(address, str) or not address.startswith("data:image/"):
            message = "For this provider pictures have to be in the request, as data: URLs; none is fetched."
            raise errors.invalid_request(message, "messages", code="image_not_embedded")
        if isinstance(image, dict) and image.get("detail") not in {None, "auto"}:
            raise _lost_in_message(provider, "an image's 'detail'")
        part = {name: inner for name, inner in value.items() if name in _IMAGE}
        return {**part, "image_url": {"url": address}}
    message = f"Provider {provider} takes parts of type 'text' and 'image_url' only, not {str(kind)[:40]!r}."
    raise errors.invalid_request(message, "messages", code="unsupported_parameter")


def _lost_in_message(provider: str, what: str) -> GatewayError:
    message = f"Provider {provider} has nothing like {what}; leave it out."
    return errors.invalid_request(message, "messages", code="unsupported_parameter")
