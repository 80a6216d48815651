"""An upper bound of the tokens a request can use, from its bytes, at next to no cost.

Why it holds. A tokenizer makes no token of less than one byte of the text it is given, so a text has no more tokens
than bytes. Some normalise first, which may lengthen what is not ASCII: the bound takes the longest of the forms that
are in use. Chat templates add a few tokens to every message; in JSON a message has more bytes than that around its
text (`{"role":"user","content":""}` are 28). Templates that add a system prompt of their own are covered by a constant.
What has no text that could be counted (images, sound, files, searches) is bounded by a rule or not at all: `unbounded`
then says what it is, and a call under a limit has to be refused.

Bytes are about four times the tokens of English prose. That costs nothing but the size of the hold: calls are settled
on what was used. Where a hold does not fit, `tokenizers` counts exactly and the call is tried once more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from assistant_gateway.capacity.fairness import Pause, next_round
from assistant_gateway.metering.forms import has_escapes, long_form, longest_form
from assistant_gateway.wire import shape
from assistant_gateway.wire.decoding import LARGEST_DECODED, UNREADABLE, is_absent, is_array, is_one_of

TEMPLATE_TOKENS = 512  # system prompts that templates add: Llama's and Qwen's are below 60, gpt-oss's below 200
TOOLS_TOKENS = 1024  # what comes with tools, whatever they are: Anthropic's are below 700, Llama's below 200
VALUES_AT_ONCE = 1000  # messages, or parts of one, that are looked at without a pause
ITEM_TOKENS = 4  # start and end markers of one text to embed

# Where text other than the plain kind may hide in messages. A name can be written with escapes, so those count too.
_CONTENT_IN_PARTS = re.compile(rb'"content"\s*:\s*[\[{]')

# Fields whose cost cannot be told from the request: other models, searches, sound, templates that may say anything.
_UNBOUNDED_FIELDS = {
    "audio",
    "models",
    "route",
    "plugins",
    "fallbacks",
    "prediction",
    "chat_template",
    "web_search",
    "web_search_options",
    "search_parameters",
    "documents",
    "mm_processor_kwargs",
    "previous_response_id",
}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking", "reasoning"})
_IMAGE_PARTS = frozenset({"image_url", "input_image"})
_TOOL_KINDS = frozenset({"function", "custom"})

# Models whose images are cut into at most eight tiles: a base and a price per tile (OpenAI's guide to images). Newer
# ones take an image at full size, so their bound has to come from the catalogue (`maxImageTokens`).
_TILED = (
    (re.compile(r"(chatgpt-4o-latest|gpt-4o(-20[0-9-]+)?|gpt-4\.1(-20[0-9-]+)?|gpt-4-turbo.*)"), 85 + 8 * 170),
    (re.compile(r"gpt-4o-mini(-20[0-9-]+)?"), 2833 + 8 * 5667),
    (re.compile(r"(o1|o1-pro|o3)(-20[0-9-]+)?"), 75 + 8 * 150),
)

_NO_PARTS = frozenset({b'"', b"n"})  # how content begins that is text, or nothing
_UNSET = frozenset({b"null", b"[]", b"{}", b"false"})

_anything = msgspec.json.Decoder(object)
_DATA_URL = re.compile(rb'"data:[^"]{0,100};base64,')
_encode = msgspec.json.Encoder().encode

Fields = Mapping[str, msgspec.Raw]


class Bound(msgspec.Struct, frozen=True):
    """No more than `tokens`, unless `unbounded` says why nobody can tell."""

    tokens: int
    unbounded: str | None = None


def chat_bound(fields: Fields, model: str, image_tokens: int | None = None) -> Bound:
    """Return the most tokens that the prompt of a chat request can have.

    Of a large one the texts are not looked at, nor is what could make it unbounded; `bound_of` does.

    Args:
        fields: the body's fields as they go to the provider.
        model: as the provider calls it.
        image_tokens: the most tokens of one image, from the catalogue.
    """
    tokens = TEMPLATE_TOKENS
    if _is_set(fields, "tools") or _is_set(fields, "functions"):
        tokens += TOOLS_TOKENS
    problem = _problem(fields)
    for name, value in fields.items():
        raw = bytes(value)
        if name != "messages":
            tokens += longest_form(raw)  # schemas, names, and whatever a provider may put into the prompt
            continue
        found = _messages(raw, image_tokens or _tiled(model))
        tokens += found.tokens
        problem = problem or found.unbounded
    return Bound(tokens, problem)


def _problem(fields: Fields) -> str | None:
    """Return why nobody can tell what a chat costs, as far as that can be seen without its messages."""
    problem = next((f"the field {name!r}" for name in _UNBOUNDED_FIELDS & fields.keys() if _is_set(fields, name)), None)
    if _is_set(fields, "modalities") and _decoded(fields["modalities"]) != ["text"]:
        problem = problem or "the field 'modalities' asks for more than text"
    if _is_set(fields, "tools") or _is_set(fields, "functions"):
        problem = problem or _tools(fields.get("tools"))
    return problem


def embedding_bound(fields: Fields) -> Bound:
    """Return the most tokens that a request for embeddings can have: texts, or tokens as numbers.

    Of a large input it is not looked at whether it is text; `bound_of` does.
    """
    raw = bytes(fields.get("input", b""))
    problem = "messages" if _is_set(fields, "messages") else None
    if b"{" in raw and len(raw) <= LARGEST_DECODED:
        items = _decoded(raw)
        if not isinstance(items, str | list) or any(isinstance(item, dict) for item in items):
            problem = problem or "input that is not text"
    return Bound(longest_form(raw) + _markers(raw), problem)


async def bound_of(
    fields: Fields, model: str, image_tokens: int | None = None, *, embedding: bool, pause: Pause = next_round
) -> Bound:
    """Return the bound of a request of any size: a large one is looked at piece by piece, and others have their turn.

    Args:
        fields, model, image_tokens: as of `chat_bound`.
        embedding: whether embeddings are asked for.
        pause: lets others have their turn.
    """
    if sum([len(memoryview(raw)) for raw in fields.values()]) <= LARGEST_DECODED:
        return embedding_bound(fields) if embedding else chat_bound(fields, model, image_tokens)
    if embedding:
        return await _large_input(fields, pause)
    tokens, problem = TEMPLATE_TOKENS + TOOLS_TOKENS, _problem(fields)
    for name, value in fields.items():
        tokens += await long_form(value, pause)
        if name == "messages" and problem is None:
            found = await _large_messages(value, image_tokens or _tiled(model), pause)
            tokens, problem = tokens + found.tokens, found.unbounded
    return Bound(tokens, problem)


async def _large_input(fields: Fields, pause: Pause) -> Bound:
    """Return the bound of a large input of embeddings."""
    raw = fields.get("input", b"")
    problem = "messages" if _is_set(fields, "messages") else None
    commas = 0
    async for outside, _ in shape.structure(raw, pause):
        commas += outside.count(b",")
        if b"{" in outside:
            problem = problem or "input that is not text"
    return Bound(await long_form(raw, pause) + ITEM_TOKENS * (commas + 1), problem)


def _markers(raw: bytes) -> int:
    return ITEM_TOKENS * (raw.count(b",") + 1)  # there are as many commas between the items, or more


def _messages(raw: bytes, image_tokens: int | None) -> Bound:
    if len(raw) > LARGEST_DECODED:
        blobs = [(found.end(), raw.find(b'"', found.end())) for found in _DATA_URL.finditer(raw)]
        bare = len(raw) - sum(max(0, end - begin) for begin, end in blobs)
        grown = longest_form(raw) - len(raw)
        return Bound(bare + grown + len(blobs) * (image_tokens or 0))
    if b"\\u" not in raw and b'"audio"' not in raw and not _CONTENT_IN_PARTS.search(raw):
        return Bound(longest_form(raw))
    messages = _decoded(raw)
    if not isinstance(messages, list):
        return Bound(len(raw), "messages that cannot be read")
    images, problem = 0, None
    for message in messages:
        for part in _parts(message):
            kind = part.get("type")
            if kind in _IMAGE_PARTS and image_tokens is not None:
                images += 1
                part[kind] = None  # its bytes are not text
            elif kind not in _TEXT_PARTS:
                problem = problem or _why(kind)
        if isinstance(message, dict) and message.get("audio") is not None:
            problem = problem or "sound"
    try:
        plain = _encode(messages) if images else raw
    except RecursionError:
        return Bound(len(raw), "messages that cannot be read")
    return Bound(longest_form(plain) + images * (image_tokens or 0), problem)


class _LargeMessage(msgspec.Struct, frozen=True):
    content: msgspec.Raw = msgspec.Raw(b"null")
    audio: msgspec.Raw = msgspec.Raw(b"null")


class _LargePart(msgspec.Struct, frozen=True):
    type: str | None = None
    image_url: msgspec.Raw = msgspec.Raw(b"null")
    input_image: msgspec.Raw = msgspec.Raw(b"null")


_large_messages_of = msgspec.json.Decoder(list[_LargeMessage])
_large_part = msgspec.json.Decoder(_LargePart | str)
_values = msgspec.json.Decoder(list[msgspec.Raw])


async def _large_messages(raw: msgspec.Raw, image_tokens: int | None, pause: Pause) -> Bound:
    """Return what messages hold beside their text (less what is no text of it); nothing of the text is decoded."""
    tokens, problem = 0, None
    await pause()
    try:
        for number, message in enumerate(_large_messages_of.decode(raw)):
            if number % VALUES_AT_ONCE == VALUES_AT_ONCE - 1:
                await pause()
            if not is_absent(message.audio):
                problem = problem or "sound"
            if bytes(memoryview(message.content)[:1]) in _NO_PARTS:
                continue
            found = await _large_content(message.content, image_tokens, pause)
            tokens, problem = tokens + found.tokens, problem or found.unbounded
    except UNREADABLE:
        return Bound(0, "messages that cannot be read")
    return Bound(tokens, problem)


async def _large_content(content: msgspec.Raw, image_tokens: int | None, pause: Pause) -> Bound:
    """Return the same of one message.

    Raises:
        UNREADABLE: it holds something else than parts.
    """
    if not is_array(content):
        return Bound(0, _why("content of an unknown kind"))
    tokens, problem = 0, None
    if len(memoryview(content)) > LARGEST_DECODED:
        await pause()
    for number, one in enumerate(_values.decode(content)):
        if number % VALUES_AT_ONCE == VALUES_AT_ONCE - 1 or len(memoryview(one)) > LARGEST_DECODED:
            await pause()
        part = _large_part.decode(one)
        if isinstance(part, str) or part.type in _TEXT_PARTS:
            continue
        if part.type not in _IMAGE_PARTS or image_tokens is None:
            problem = problem or _why(part.type)
            continue
        image = bytes(part.image_url if part.type == "image_url" else part.input_image)
        tokens += image_tokens - (len(image) if image.isascii() and not has_escapes(image) else 0)
    return Bound(tokens, problem)


def _parts(message: object) -> list[dict[str, Any]]:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return [] if content is None or isinstance(content, str) else [{"type": "content of an unknown kind"}]
    return [part if isinstance(part, dict) else {"type": "text"} for part in content]


def _why(kind: object) -> str:
    if kind in _IMAGE_PARTS:
        return "images for a model whose maxImageTokens the catalogue does not have"
    return f"a part of the kind {str(kind)[:40]!r}"


def _tools(raw: msgspec.Raw | None) -> str | None:
    if raw is not None and len(memoryview(raw)) > LARGEST_DECODED:
        return f"tools of more than {LARGEST_DECODED} bytes"
    tools = _decoded(raw) if raw is not None else None
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type", "function") if isinstance(tool, dict) else None
        if kind not in _TOOL_KINDS:  # searches and the like, which the provider runs and charges for
            return f"a tool of the kind {str(kind)[:40]!r}"
    return None


def _tiled(model: str) -> int | None:
    return next((most for pattern, most in _TILED if pattern.fullmatch(model)), None)


def _is_set(fields: Fields, name: str) -> bool:
    raw = fields.get(name)
    return raw is not None and not is_one_of(raw, _UNSET)


def _decoded(raw: bytes | msgspec.Raw) -> object:
    if len(memoryview(raw)) > LARGEST_DECODED:
        return None
    try:
        return _anything.decode(raw)
    except UNREADABLE:
        return None
