"""What is read of the OpenAI wire: as little as the work needs. Everything else passes through untouched.

Source of the format: OpenAI's API reference, `chat/completions`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

MAX_CHOICES = 128  # of the format
Count = Annotated[int, Meta(ge=1)]


class Part(msgspec.Struct):
    """One part of a message's content; only text parts have `text`."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    def text(self) -> str:
        """Return the message's words, without images and other parts."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or [] if part.type == "text" and part.text)


class StreamOptions(msgspec.Struct):
    """Options of a stream."""

    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    """The members of a request that are checked here, so that a mistake is named before a provider is paid.

    The bytes sent on are the caller's own, so members that are not listed reach the provider all the same.
    """

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    user: str | None = None
    safety_identifier: str | None = None  # what OpenAI calls `user` now

    @property
    def end_user(self) -> str:
        """For whom the caller asks, if it says so."""
        return self.user or self.safety_identifier or ""


def words_of(content: object) -> str:
    """Return the words of an answer's content: text, or a list of parts as some providers send it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return "".join(text for text in texts if isinstance(text, str))


class Delta(msgspec.Struct):
    """New words of a streamed choice."""

    content: str | list[Any] | None = None

    def text(self) -> str:
        """Return the words."""
        return words_of(self.content)


class Choice(msgspec.Struct):
    """One choice of a streamed chunk."""

    index: int | None = 0
    delta: Delta | None = None
    finish_reason: str | float | bool | None = None


class StreamChunk(msgspec.Struct):
    """One event of a stream, as far as citations need it."""

    choices: list[Choice] | None = None
    id: msgspec.Raw = msgspec.Raw()
    created: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()


class FileCitation(msgspec.Struct, frozen=True):
    """The passage behind a marker `[index]` in the answer. `score` is 0 to 1; `page` is null for text documents."""

    index: int
    file_id: str
    filename: str
    page: int | None
    knowledge_base: str
    score: float
    quote: str


class UrlCitation(msgspec.Struct, frozen=True):
    """Where a marker is in the answer, and what opens the passage behind it.

    The indices count Unicode characters (code points) of the whole text; `end_index` is the first one after the marker.
    """

    start_index: int
    end_index: int
    url: str
    title: str


class Annotation(msgspec.Struct, frozen=True):
    """A member of `annotations` of a message or delta.

    Chat Completions knows this one type, and typed clients refuse any other; `file_citation` is an addition to it.
    """

    url_citation: UrlCitation
    file_citation: FileCitation
    type: Literal["url_citation"] = "url_citation"
