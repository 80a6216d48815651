"""Exact counts of a prompt's tokens, for calls whose hold does not fit when it is bounded by bytes.

The vocabularies come with LiteLLM's package; nothing is downloaded. One takes 45 to 80 MiB and half a second to load,
so that happens when first needed, and counting runs beside the event loop. Where there is no tokenizer for a model the
bound by bytes stands.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from assistant_gateway.counting import Bound, Fields, chat_bound
from assistant_gateway.decoding import UNREADABLE
from assistant_observability import logs

LONGEST_TEXT = 2 * 1024 * 1024  # bytes; counting takes up to a second per MiB, so longer ones keep their bound

MESSAGE_TOKENS = 8  # OpenAI adds three to a message, and the answer begins with three

# Files as tiktoken names them: the SHA-1 of the address that each was published at. tiktoken checks their SHA-256.
_FILES = {
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
}
_BY_MODEL = (
    (re.compile(r"(gpt-4o|chatgpt-4o|gpt-4\.1|gpt-4\.5|gpt-5|o1|o3|o4)([-.].*)?"), "o200k_base"),
    (re.compile(r"(gpt-4|gpt-3\.5-turbo|text-embedding-3|text-embedding-ada-002)([-.].*)?"), "cl100k_base"),
)
# OpenAI's models alone: others that carry such a name elsewhere may be anything.
_FAMILIES = frozenset({"openai", "azure"})

_log = logs.logger(__name__)


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    content: str


_messages = msgspec.json.Decoder(list[_Message])
_NO_MESSAGES = msgspec.Raw(b"[]")


def encoding_of(family: str | None, model: str) -> str | None:
    """Return the name of a model's encoding, None where it is not known for sure."""
    if family not in _FAMILIES:
        return None
    return next((name for pattern, name in _BY_MODEL if pattern.fullmatch(model)), None)


class Tokenizers:
    """The encodings that were needed so far."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._loaded: dict[str, Callable[[str], int] | None] = {}
        self._lock = asyncio.Lock()  # two that load the same one at once would take twice its memory

    @classmethod
    def installed(cls) -> Tokenizers:
        """Use the vocabularies of the installed LiteLLM, which is not imported; none where it is not installed."""
        found = importlib.util.find_spec("litellm")
        if found is None or not found.submodule_search_locations:
            return cls(None)
        return cls(Path(next(iter(found.submodule_search_locations))) / "litellm_core_utils" / "tokenizers")

    async def chat_count(self, fields: Fields, family: str | None, model: str) -> Bound | None:
        """Return a bound of a chat's prompt with its texts counted exactly; None where that is not possible.

        Only the texts of messages are counted. Everything else, such as tools and the template, keeps its bound.
        """
        encoding = encoding_of(family, model)
        messages = _read(bytes(fields.get("messages", b"")))
        if encoding is None or messages is None:
            return None
        others = chat_bound({**fields, "messages": _NO_MESSAGES}, model)
        count = await self._get(encoding)
        if others.unbounded is not None or count is None:
            return None
        exact = await asyncio.to_thread(_count, count, messages)
        return Bound(others.tokens + exact)

    async def _get(self, encoding: str) -> Callable[[str], int] | None:
        async with self._lock:
            if encoding not in self._loaded:
                self._loaded[encoding] = await asyncio.to_thread(self._load, encoding)
        return self._loaded[encoding]

    def _load(self, encoding: str) -> Callable[[str], int] | None:
        if self._folder is None or not (self._folder / _FILES[encoding]).is_file():
            return None
        # tiktoken looks here first; it would otherwise go and fetch the file.
        os.environ["TIKTOKEN_CACHE_DIR"] = str(self._folder)
        try:
            made: Any = importlib.import_module("tiktoken").get_encoding(encoding)  # takes memory: only when needed
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, the bound by bytes stands
            _log.warning("no tokenizer", encoding=encoding, error=str(error))
            return None
        return lambda text: len(made.encode_ordinary(text))


def _read(raw: bytes) -> list[_Message] | None:
    """Return the messages, None where one holds anything but a role and text."""
    if len(raw) > LONGEST_TEXT:
        return None
    try:
        return _messages.decode(raw)
    except UNREADABLE:
        return None


def _count(count: Callable[[str], int], messages: list[_Message]) -> int:
    return sum(count(message.role) + count(message.content) + MESSAGE_TOKENS for message in messages)
