"""The parts of the OpenAI wire format that the stand-in model server reads, and the errors it answers with."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
STOPS_MAX = 4
INPUTS_MAX = 2048


class ContentPart(msgspec.Struct, frozen=True):
    """A part of a message; only text is understood."""

    type: str
    text: str = ""


class CalledFunction(msgspec.Struct, frozen=True):
    """Which function an earlier answer called."""

    name: str


class ToolCall(msgspec.Struct, frozen=True):
    """A call in an earlier answer."""

    function: CalledFunction


class Message(msgspec.Struct, frozen=True):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        """The message's text, parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream carries besides the answer."""

    include_usage: bool = False


class Function(msgspec.Struct, frozen=True):
    """A function that may be called; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct, frozen=True):
    """A tool; only functions are understood."""

    type: str = "function"
    function: Function | None = None


class NamedSchema(msgspec.Struct, frozen=True):
    """The JSON schema of an answer."""

    name: str
    schema: dict[str, Any] | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """Whether an answer is to be words, an object of JSON, or one that fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """`POST /v1/chat/completions`; fields that are not named here are accepted and have no effect."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    response_format: ResponseFormat | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens the answer may have."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> list[str]:
        """The texts before which the answer ends."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in stops[:STOPS_MAX] if stop]


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """`POST /v1/embeddings`."""

    model: str
    input: str | list[str | int | list[int]]
    dimensions: Annotated[int, msgspec.Meta(ge=8, le=4096)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    input_type: str | None = None  # not OpenAI's: the gateway says `query` or `passage` here

    @property
    def texts(self) -> list[str]:
        """The inputs as texts; token numbers are taken as words."""
        if isinstance(self.input, str):
            return [self.input]
        if self.input and all(isinstance(item, int) for item in self.input):
            return [" ".join(map(str, self.input))]
        return [" ".join(map(str, item)) if isinstance(item, list) else str(item) for item in self.input]


class WireError(Exception):
    """An error that is answered in OpenAI's envelope."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.envelope: dict[str, Any] = {
            "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        }


Request = TypeVar("Request", ChatRequest, EmbeddingRequest)


def decode(body: bytes, kind: type[Request]) -> Request:
    """Return the request in a body, or raise a 400 that names the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        field = where.rstrip("`").lstrip(".") or (message.rsplit("`", 2)[-2] if "required field" in message else None)
        raise WireError(400, f"{message}{f' (in {field})' if field else ''}.", param=field) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(400, f"The body is not valid JSON: {error}.") from None


def event(document: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
