"""What is read of a request of the Responses API. Members that are not listed are refused by name, never dropped.

Source of the format: OpenAI's API reference, `responses`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from assistant_api.chat.schemas import words_of
from assistant_api.errors import ApiError, invalid_field

Count = Annotated[int, Meta(ge=1)]
Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
MAX_OUTPUT_TOKENS = "max_output_tokens"


class Reasoning(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How much a model may think; a summary of it cannot be had from a chat completion."""

    effort: str | None = None
    summary: None = None
    generate_summary: None = None


class Format(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How the answer is written."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Of the answer's text."""

    format: Format | None = None
    verbosity: str | None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing here is obfuscated."""

    include_obfuscation: bool | None = None


class Tool(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A function of the caller's."""

    name: Annotated[str, Meta(min_length=1)]
    type: Literal["function"]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    """The function that has to be called."""

    type: Literal["function"]
    name: Annotated[str, Meta(min_length=1)]


class ResponseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request; what stands for the default of OpenAI's own is taken, what would change an answer is refused."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[msgspec.Raw] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    include: list[str] | None = None
    truncation: str | None = None
    background: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    # Known, and refused unless they are null.
    conversation: Any = None
    prompt: Any = None
    max_tool_calls: Any = None
    top_logprobs: Any = None
    context_management: Any = None
    prompt_cache_retention: Any = None

    @property
    def stored(self) -> bool:
        """Whether the response is kept: yes, unless the caller says no."""
        return self.store is not False

    @property
    def end_user(self) -> str:
        """For whom the caller asks, if it says so."""
        return self.user or self.safety_identifier or ""

    def check(self) -> None:
        """Refuse what a chat completion cannot carry; ApiError names it."""
        for name in (
            "conversation",
            "prompt",
            "max_tool_calls",
            "top_logprobs",
            "context_management",
            "prompt_cache_retention",
        ):
            if getattr(self, name) is not None:
                raise not_supported(name)
        if self.background:
            raise not_supported("background")
        if self.truncation not in {None, "disabled"}:
            raise invalid_field("truncation", "choices", choices="disabled")
        # There are no reasoning items, so none has encrypted content: clients ask for it where they store nothing.
        for position, wanted in enumerate(self.include or ()):
            if wanted != "reasoning.encrypted_content":
                raise not_supported(f"include[{position}]")
        written = self.text and self.text.format
        if written and written.type == "json_schema" and (written.schema is None or not written.name):
            raise invalid_field("text.format.schema" if written.name else "text.format.name", "missing")


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """A message of the input."""

    role: str
    content: str | list[msgspec.Raw]
    type: Literal["message"] | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class FunctionCall(msgspec.Struct, forbid_unknown_fields=True):
    """A call that an earlier response asked for."""

    type: str
    call_id: Annotated[str, Meta(min_length=1)]
    name: Annotated[str, Meta(min_length=1)]
    arguments: str
    id: str | None = None
    status: str | None = None


class FunctionCallOutput(msgspec.Struct, forbid_unknown_fields=True):
    """What the caller's function returned."""

    type: str
    call_id: Annotated[str, Meta(min_length=1)]
    output: str | list[msgspec.Raw]
    id: str | None = None
    status: str | None = None


class TextPart(msgspec.Struct, forbid_unknown_fields=True):
    """Text of either side."""

    type: str
    text: str
    annotations: msgspec.Raw = msgspec.Raw()  # of an answer: for people, not for the model
    logprobs: msgspec.Raw = msgspec.Raw()


class RefusalPart(msgspec.Struct, forbid_unknown_fields=True):
    """A model's refusal."""

    type: str
    refusal: str


class ImagePart(msgspec.Struct, forbid_unknown_fields=True):
    """An image by its address, or in it."""

    type: str
    image_url: str
    detail: str | None = None
    file_id: None = None


class FilePart(msgspec.Struct, forbid_unknown_fields=True):
    """A file that comes with the request."""

    type: str
    file_data: str
    filename: str | None = None
    file_id: None = None
    file_url: None = None


class Typed(msgspec.Struct):
    """What says of which kind something is."""

    type: str | None = None


def not_supported(field: str) -> ApiError:
    """Return the 400 for what a chat completion cannot carry."""
    return invalid_field(field, "not_supported")


# --- what the gateway answers -----------------------------------------------------------------------------------


class CalledFunction(msgspec.Struct):
    """Name and arguments, or the next piece of them."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: CalledFunction | None = None


class Said(msgspec.Struct):
    """A message, or a piece of one."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    annotations: list[dict[str, Any]] | None = None

    def text(self) -> str:
        """Return the words."""
        return words_of(self.content)


class Choice(msgspec.Struct):
    """The only choice: whole or in pieces."""

    index: int | None = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | float | bool | None = None


class Details(msgspec.Struct):
    """Of tokens."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct):
    """In Chat Completions' names."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None


class Completion(msgspec.Struct):
    """A completion, or a chunk of one."""

    choices: list[Choice] | None = None
    usage: ChatUsage | None = None
    error: Any = None
