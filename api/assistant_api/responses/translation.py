"""A request of the Responses API as one of Chat Completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from assistant_api.decoding import MALFORMED
from assistant_api.errors import from_validation, invalid_field
from assistant_api.responses.schemas import (
    FilePart,
    Format,
    FunctionCall,
    FunctionCallOutput,
    ImagePart,
    Message,
    RefusalPart,
    ResponseRequest,
    TextOptions,
    TextPart,
    Tool,
    ToolChoice,
    Typed,
)

Decoded = TypeVar("Decoded")
Json = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_ITEMS = ("message", "function_call", "function_call_output")
_PARTS = {
    "user": ("input_text", "input_image", "input_file"),
    "system": ("input_text",),
    "developer": ("input_text",),
    "assistant": ("output_text", "refusal", "input_text"),
    "tool": ("input_text",),
}
_SAME = ("temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key", "service_tier")

_typed = msgspec.json.Decoder(Typed).decode
_message = msgspec.json.Decoder(Message).decode
_call = msgspec.json.Decoder(FunctionCall).decode
_output = msgspec.json.Decoder(FunctionCallOutput).decode
_tool = msgspec.json.Decoder(Tool).decode
_text, _refusal = msgspec.json.Decoder(TextPart).decode, msgspec.json.Decoder(RefusalPart).decode
_image, _file = msgspec.json.Decoder(ImagePart).decode, msgspec.json.Decoder(FilePart).decode


def chat_request(request: ResponseRequest, items: Sequence[msgspec.Raw]) -> Json:
    """Return the members of a chat completion.

    Args:
        request: the request, which has been checked.
        items: the whole input, with that of earlier responses. Errors name the last ones as the request's own.
    """
    own = len(request.input) if isinstance(request.input, list) else 1
    members: Json = {"model": request.model, "messages": messages_of(items, len(items) - own)}
    if request.instructions:
        members["messages"].insert(0, {"role": "system", "content": request.instructions})
    for name in _SAME:
        members[name] = getattr(request, name)
    members["max_completion_tokens"] = request.max_output_tokens
    if request.stream:
        members |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.tools:
        members["tools"] = [_tool_of(raw, f"tools[{position}]") for position, raw in enumerate(request.tools)]
    members["tool_choice"] = _choice(request)
    members["reasoning_effort"] = request.reasoning and request.reasoning.effort
    members |= _written(request.text)
    return _given(members)


def _choice(request: ResponseRequest) -> Json | str | None:
    if isinstance(request.tool_choice, ToolChoice):
        return {"type": "function", "function": {"name": request.tool_choice.name}}
    # What says nothing is refused by some models where there are no tools.
    return request.tool_choice if request.tools or request.tool_choice == "required" else None


def _written(text: TextOptions | None) -> Json:
    if text is None:
        return {}
    form = text.format if text.format and text.format.type != "text" else None
    return {"response_format": form and _format(form), "verbosity": text.verbosity}


def messages_of(items: Sequence[msgspec.Raw], earlier: int = 0) -> list[Json]:
    """Return the messages of a chat; the first `earlier` items are not the request's own."""
    messages: list[Json] = []
    for position, raw in enumerate(items):
        path = f"input[{position - earlier}]"
        kind = decoded(_typed, raw, path).type or "message"
        if kind == "message":
            messages.append(_message_of(decoded(_message, raw, path), path))
        elif kind == "function_call":
            call = decoded(_call, raw, path)
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            function = {"name": call.name, "arguments": call.arguments}
            messages[-1].setdefault("tool_calls", []).append(
                {"id": call.call_id, "type": "function", "function": function}
            )
        elif kind == "function_call_output":
            returned = decoded(_output, raw, path)
            content = _content(returned.output, "tool", f"{path}.output")
            messages.append({"role": "tool", "tool_call_id": returned.call_id, "content": content})
        else:
            raise invalid_field(f"{path}.type", "choices", choices=", ".join(_ITEMS))
    return messages


def decoded(decode: Callable[[msgspec.Raw], Decoded], raw: msgspec.Raw, path: str) -> Decoded:
    """Return what `raw` says; the ApiError names what is wrong from the request's beginning."""
    try:
        return decode(raw)
    except MALFORMED as error:
        api_error = from_validation(error)
        if api_error.field:
            api_error.field = path if api_error.field == "body" else f"{path}.{api_error.field}"
        raise api_error from error


def _message_of(message: Message, path: str) -> Json:
    if message.role not in _ROLES:
        raise invalid_field(f"{path}.role", "choices", choices=", ".join(_ROLES))
    content = _content(message.content, message.role, f"{path}.content")
    if isinstance(content, list) and len(content) == 1 and content[0]["type"] == "refusal":
        return {"role": message.role, "content": None, "refusal": content[0]["refusal"]}
    return {"role": message.role, "content": content}


def _content(content: str | list[msgspec.Raw], role: str, path: str) -> str | list[Json]:
    if isinstance(content, str):
        return content
    parts = [_part(raw, role, f"{path}[{position}]") for position, raw in enumerate(content)]
    if not parts:
        raise invalid_field(path, "empty")
    return str(parts[0]["text"]) if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(raw: msgspec.Raw, role: str, path: str) -> Json:
    kind = decoded(_typed, raw, path).type
    if kind not in _PARTS[role]:
        raise invalid_field(f"{path}.type", "choices", choices=", ".join(_PARTS[role]))
    if kind == "refusal":
        return {"type": "refusal", "refusal": decoded(_refusal, raw, path).refusal}
    if kind == "input_image":
        image = decoded(_image, raw, path)
        return {"type": "image_url", "image_url": _given({"url": image.image_url, "detail": image.detail})}
    if kind == "input_file":
        file = decoded(_file, raw, path)
        return {"type": "file", "file": _given({"filename": file.filename, "file_data": file.file_data})}
    return {"type": "text", "text": decoded(_text, raw, path).text}


def _tool_of(raw: msgspec.Raw, path: str) -> Json:
    if decoded(_typed, raw, path).type != "function":
        raise invalid_field(f"{path}.type", "choices", choices="function")
    tool = decoded(_tool, raw, path)
    members = {name: getattr(tool, name) for name in ("name", "description", "parameters", "strict")}
    return {"type": "function", "function": _given(members)}


def _format(written: Format) -> Json:
    if written.type == "json_object":
        return {"type": "json_object"}
    members = {name: getattr(written, name) for name in ("name", "description", "schema", "strict")}
    return {"type": "json_schema", "json_schema": _given(members)}


def _given(members: Json) -> Json:
    return {name: value for name, value in members.items() if value is not None}
