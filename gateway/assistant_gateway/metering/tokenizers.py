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
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from assistant_gateway.capacity.fairness import BusyError, Shares
from assistant_gateway.metering.bounds import Bound, Fields, chat_bound
from assistant_gateway.wire.decoding import UNREADABLE
from assistant_observability import logs

LONGEST_TEXT = 2 * 1024 * 1024  # bytes; counting takes up to a second per MiB, so longer ones keep their bound

THREADS = 4
WAIT_SECONDS = 2.0  # for a thread
MOST_SECONDS = 1.0  # of counting for one tenant, before it waits
FORGOTTEN = 0.1  # of each second that passes: so one tenant has a tenth of a core

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

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        # Not the threads of everything else: whoever has much counted must not hold up the platform's name servers.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tokenizer")
        self._places = Shares(THREADS, ratio=0.5, most_waiting=4, always_one=True)  # one for each tenant
        self._spent: dict[str, tuple[float, float]] = {}  # by tenant: seconds of counting, and when that was
        self._loaded: dict[str, Callable[[str], int] | None] = {}
        self._lock = asyncio.Lock()  # two that load the same one at once would take twice its memory

    @classmethod
    def installed(cls) -> Tokenizers:
        """Use the vocabularies of the installed LiteLLM, which is not imported; none where it is not installed."""
        found = importlib.util.find_spec("litellm")
        if found is None or not found.submodule_search_locations:
            return cls(None)
        return cls(Path(next(iter(found.submodule_search_locations))) / "litellm_core_utils" / "tokenizers")

    async def chat_count(self, fields: Fields, family: str | None, model: str, tenant: str = "") -> Bound | None:
        """Return a bound of a chat's prompt with its texts counted exactly; None where that is not possible.

        Only the texts of messages are counted. Everything else, such as tools and the template, keeps its bound. For a
        tenant that has had much counted in the last seconds nothing is, nor when all threads are taken for too long.
        """
        encoding = encoding_of(family, model)
        if encoding is None or self._spent_by(tenant) > MOST_SECONDS:
            return None
        messages = _read(bytes(fields.get("messages", b"")))
        if messages is None:
            return None
        others = chat_bound({**fields, "messages": _NO_MESSAGES}, model)
        count = await self._get(encoding)
        if others.unbounded is not None or count is None:
            return None
        exact = await self._in_turn(tenant, lambda: _count(count, messages))
        return None if exact is None else Bound(others.tokens + exact)

    async def _in_turn(self, tenant: str, run: Callable[[], int]) -> int | None:
        """Run in a thread when it is the tenant's turn; return nothing when that is not soon."""
        loop = asyncio.get_running_loop()
        try:
            await self._places.take(tenant, 1, loop.time() + WAIT_SECONDS)
        except BusyError:
            return None
        counting = loop.run_in_executor(self._threads, _timed, run)
        # Whoever asked may go away; its place is free when the thread is.
        counting.add_done_callback(lambda done: self._counted(tenant, done))
        return (await asyncio.shield(counting))[0]

    def _counted(self, tenant: str, done: asyncio.Future[tuple[int, float]]) -> None:
        self._places.give(tenant, 1)
        if not done.cancelled() and done.exception() is None:
            self._spent[tenant] = (self._spent_by(tenant) + done.result()[1], self._clock())

    def _spent_by(self, tenant: str) -> float:
        """Return the seconds that a tenant has had counted of late; a tenth of each second is forgotten."""
        spent, at = self._spent.get(tenant, (0.0, 0.0))
        left = spent - (self._clock() - at) * FORGOTTEN
        if left <= 0:
            self._spent.pop(tenant, None)
        return max(0.0, left)

    async def _get(self, encoding: str) -> Callable[[str], int] | None:
        async with self._lock:
            if encoding not in self._loaded:
                loop = asyncio.get_running_loop()
                self._loaded[encoding] = await loop.run_in_executor(self._threads, self._load, encoding)
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


def _timed(run: Callable[[], int]) -> tuple[int, float]:
    began = time.thread_time()
    return run(), time.thread_time() - began


def _count(count: Callable[[str], int], messages: list[_Message]) -> int:
    return sum(count(message.role) + count(message.content) + MESSAGE_TOKENS for message in messages)
