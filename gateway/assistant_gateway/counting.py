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

import functools
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import msgspec

TEMPLATE_TOKENS = 512  # system prompts that templates add: Llama's and Qwen's are below 60, gpt-oss's below 200
TOOLS_TOKENS = 1024  # what comes with tools, whatever they are: Anthropic's are below 700, Llama's below 200
LONGEST_EXPANSION = 11  # bytes that normalising makes of one: U+FDFA, three bytes, becomes 33 (a test tries them all)
USUAL_GROWTH = 2  # accents, kana; looking at each character once is a tenth of the work of normalising a text
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

_anything = msgspec.json.Decoder(object)
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_encode = msgspec.json.Encoder().encode

Fields = Mapping[str, msgspec.Raw]


class Bound(msgspec.Struct, frozen=True):
    """No more than `tokens`, unless `unbounded` says why nobody can tell."""

    tokens: int
    unbounded: str | None = None


def chat_bound(fields: Fields, model: str, image_tokens: int | None = None) -> Bound:
    """Return the most tokens that the prompt of a chat request can have.

    Args:
        fields: the body's fields as they go to the provider.
        model: as the provider calls it.
        image_tokens: the most tokens of one image, from the catalogue.
    """
    problem = next(
        (f"the field {name!r}" for name in fields if name in _UNBOUNDED_FIELDS and _is_set(fields, name)), None
    )
    if _is_set(fields, "modalities") and _decoded(fields["modalities"]) != ["text"]:
        problem = problem or "the field 'modalities' asks for more than text"
    tokens = TEMPLATE_TOKENS
    for name, raw in fields.items():
        if name == "messages":
            found = _messages(bytes(raw), image_tokens or _tiled(model))
            tokens += found.tokens
            problem = problem or found.unbounded
        else:
            tokens += longest_form(bytes(raw))  # schemas, names, and whatever a provider may put into the prompt
    if _is_set(fields, "tools") or _is_set(fields, "functions"):
        tokens += TOOLS_TOKENS
        problem = problem or _tools(fields.get("tools"))
    return Bound(tokens, problem)


def embedding_bound(fields: Fields) -> Bound:
    """Return the most tokens that a request for embeddings can have: texts, or tokens as numbers."""
    raw = bytes(fields.get("input", b""))
    problem = "messages" if _is_set(fields, "messages") else None
    if b"{" in raw:
        items = _decoded(raw)
        if not isinstance(items, str | list) or any(isinstance(item, dict) for item in items):
            problem = problem or "input that is not text"
    items_at_most = raw.count(b",") + 1  # there are as many commas between the items, or more
    return Bound(longest_form(raw) + ITEM_TOKENS * items_at_most, problem)


def output_bound(fields: Fields, default: int | None) -> int | None:
    """Return the most tokens that the answers can have together, None where nothing limits them.

    Args:
        fields: the body's fields as they go to the provider.
        default: the model's own maximum, where it is known.
    """
    asked = [_number(fields, name) for name in ("max_completion_tokens", "max_tokens", "max_output_tokens")]
    limits = [limit for limit in asked if limit is not None]
    # Whoever sends two may be served by the greater one. A model's own maximum is no more than what it is billed for.
    most = max(limits) if limits else default
    if most is None:
        return None
    answers = max(1, *(_number(fields, name) or 1 for name in ("n", "best_of")))
    return most * answers


def longest_form(raw: bytes) -> int:
    """Return the bytes of a text, in the longest of the forms that tokenizers bring it into.

    Escapes in JSON are longer than what they stand for, except where normalising lengthens it: those are decoded.
    """
    escaped = b"\\u" in raw
    if raw.isascii() and not escaped:
        return len(raw)
    try:
        text = _encode(_anything.decode(raw)).decode() if escaped else raw.decode()
    except _UNREADABLE:
        return len(raw) * LONGEST_EXPANSION
    # At most so many bytes are not ASCII: such a character has at least one byte more than there are characters.
    written = len(raw) if not escaped else len(text.encode())
    beyond = min(written, 2 * (written - len(text)))
    if beyond * (LONGEST_EXPANSION - 1) <= written // 2:
        return max(len(raw), written + beyond * (LONGEST_EXPANSION - 1))  # languages with a few accents
    growth = max(map(_growth, set(text)))
    if growth <= USUAL_GROWTH:
        return max(len(raw), written + beyond * (growth - 1))
    forms = (unicodedata.normalize(form, text).encode() for form in ("NFD", "NFKD"))
    return max(len(raw), *(len(form) for form in forms))


@functools.lru_cache(maxsize=32_768)
def _growth(char: str) -> int:
    """Return how many times its bytes a character can become, rounded up."""
    longest = max(len(unicodedata.normalize(form, char).encode()) for form in ("NFD", "NFKD"))
    return -(-longest // len(char.encode()))


def _messages(raw: bytes, image_tokens: int | None) -> Bound:
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
    plain = _encode(messages) if images else raw
    return Bound(longest_form(plain) + images * (image_tokens or 0), problem)


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
    return raw is not None and bytes(raw) not in {b"null", b"[]", b"{}", b"false"}


def _number(fields: Fields, name: str) -> int | None:
    """Return a whole number that a request holds. Some servers take "5" and 5.0 for 5, so they are counted as that."""
    value = _decoded(fields[name]) if name in fields else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = math.ceil(float(value))
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None


def _decoded(raw: bytes | msgspec.Raw) -> object:
    try:
        return _anything.decode(raw)
    except _UNREADABLE:
        return None
