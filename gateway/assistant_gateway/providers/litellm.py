"""Calls to providers that do not speak the OpenAI wire, translated by LiteLLM as a library.

Used of it: the translation of requests, answers and events. Not used: its connections (`transport`), retries, limits,
prices, caches, logs and callbacks. Of a stream its events are taken before LiteLLM keeps and counts them: what a
provider does not report would otherwise come out as if it had.
"""

from __future__ import annotations

import base64
import functools
import importlib
import logging
import os
import re
import struct
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import msgspec

from assistant_gateway import errors
from assistant_gateway.errors import GatewayError
from assistant_gateway.providers import kinds, litellm_request, openai_wire
from assistant_gateway.providers.catalog import Target
from assistant_gateway.providers.error_bodies import Detail
from assistant_gateway.providers.gc_pause import gc_paused
from assistant_gateway.providers.litellm_response import TranslatedAnswer
from assistant_gateway.providers.openai_wire import Upstream
from assistant_gateway.providers.transport import Exchange, NoTransport, Transport, current
from assistant_gateway.providers.warm_up import WarmUpUpstream, warm_up
from assistant_gateway.wire.sse import DONE, TooLargeError
from assistant_http.errors import HttpError
from assistant_observability import logs

# Before the import: prices, headers and tokenizers from the package's files instead of the network, nothing sent home.
_ENVIRONMENT = {
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_TELEMETRY": "False",
}
# Of an answer: what is OpenAI's; and what is LiteLLM's own, or a second copy.
_KEPT = frozenset({"id", "object", "created", "model", "choices", "data", "usage", "service_tier"})
_LEFT_OUT = frozenset({"provider_specific_fields", "citations", "function_call", "audio", "annotations"})
_NEVER_EMPTY = frozenset({"images", "thinking_blocks"})
_FINISHES = {"COMPLETE": "stop", "STOP_SEQUENCE": "stop", "TOOL_CALL": "tool_calls", "MAX_TOKENS": "length"}
_BILLED = re.compile(rb'"billed_units"\s*:\s*(\{[^{}]*\})')
_COUNTED = re.compile(rb'"usageMetadata"\s*:\s*\{[^{}]*"promptTokenCount"\s*:\s*([0-9]+)')
_encode = msgspec.json.Encoder().encode
_log = logs.logger(__name__)

Fields = Mapping[str, msgspec.Raw]


class Translator:
    """Calls through LiteLLM, over the connections that it is given."""

    def __init__(self, library: Any, upstream: Upstream, max_answer_bytes: int) -> None:
        self._library = library
        self._upstream = upstream
        self._max_answer_bytes = max_answer_bytes
        self._supported: dict[tuple[str, str], frozenset[str]] = {}

    @classmethod
    def load(cls, upstream: Upstream, max_answer_bytes: int) -> Translator:
        """Load LiteLLM if that has not been done (see `load`)."""
        return cls(load(), upstream, max_answer_bytes)

    async def send(
        self, target: Target, *, embedding: bool, fields: Fields, trace: Mapping[str, str]
    ) -> TranslatedAnswer:
        """Make a call; return its answer: whole, or at the first event of a stream.

        Raises:
            GatewayError: the request cannot be translated, or the provider refused or did not answer.
        """
        exchange = Exchange(self._upstream, target, trace, self._max_answer_bytes)
        token = current.set(exchange)
        try:
            if embedding:
                return await self._embed(target, fields, exchange)
            return await self._chat(target, fields, exchange)
        except BaseException as error:
            exchange.close()
            if isinstance(error, GatewayError) or not isinstance(error, Exception):
                raise
            raise _failure(target, exchange, error) from None
        finally:
            current.reset(token)

    async def _chat(self, target: Target, fields: Fields, exchange: Exchange) -> TranslatedAnswer:
        family = kinds.FAMILIES[target.settings.kind]
        model = litellm_request.model(fields, target.provider)
        routed = f"converse/{model}" if target.settings.kind == "bedrock" else model
        supported = self._fields(routed, family.library)
        arguments = litellm_request.chat(fields, target.provider, target.settings.kind, supported.__contains__)
        stream = fields.get("stream") is not None and bytes(fields["stream"]) == b"true"
        if stream and arguments.get("n", 1) != 1:
            raise litellm_request.unsupported(target.provider, "n")
        answer = await self._library.acompletion(
            model=routed,
            custom_llm_provider=family.library,
            stream=stream,
            client=self._library.module_level_aclient,
            num_retries=0,
            max_retries=0,
            **target.credentials,
            **arguments,
        )
        if not stream:
            document = _plain(answer)
            _bill(document, exchange.tail)
            return _whole(document, exchange)
        if answer.completion_stream is None:
            await answer.fetch_stream()
        events = _Events(target, exchange, answer)
        return TranslatedAnswer("text/event-stream", events.pull, exchange.interrupt, exchange.close)

    async def _embed(self, target: Target, fields: Fields, exchange: Exchange) -> TranslatedAnswer:
        family = kinds.FAMILIES[target.settings.kind]
        if not family.embeds:
            message = f"Provider {target.provider} makes no embeddings here; choose a model of another provider."
            raise errors.invalid_request(message, "model", code="embeddings_not_supported")
        arguments, packed = litellm_request.embeddings(fields, target.provider)
        answer = await self._library.aembedding(
            model=litellm_request.model(fields, target.provider),
            custom_llm_provider=family.library.removesuffix("_chat"),
            client=self._library.module_level_aclient,
            num_retries=0,
            max_retries=0,
            **target.credentials,
            **arguments,
        )
        document = _plain(answer)
        _bill(document, exchange.tail)
        if target.settings.kind == "gemini":
            _count_gemini(document, exchange.tail)
        document["data"] = [_vector(index, item, packed=packed) for index, item in enumerate(document["data"])]
        return _whole(document, exchange)

    def _fields(self, model: str, library: str) -> frozenset[str]:
        key = (model, library)
        if key not in self._supported:
            if len(self._supported) > 1000:
                self._supported.clear()
            found = self._library.get_supported_openai_params(model, library) or ()
            # LiteLLM lists `n` for families that answer once all the same.
            self._supported[key] = frozenset(found) - (set() if library == "gemini" else {"n"})
        return self._supported[key]


_loading = threading.Lock()


def load() -> Any:
    """Return LiteLLM: imported, without what is not wanted of it, and warmed up; once in a process.

    Takes seconds, and is not for an event loop.

    Raises:
        ImportError: it is not installed.
    """
    with _loading:
        return _loaded()


@functools.cache
def _loaded() -> Any:
    started = time.perf_counter()
    os.environ.update(_ENVIRONMENT)
    with gc_paused():
        library: Any = importlib.import_module("litellm")
        _strip(library)
        importlib.import_module("boto3")
        upstream = WarmUpUpstream()
        problems = warm_up(Translator(library, cast("Upstream", upstream), 2**20).send, upstream)
    seconds = round(time.perf_counter() - started, 1)
    _log.info("translation loaded", seconds=seconds, **({"problems": problems} if problems else {}))
    return library


def _strip(library: Any) -> None:
    """Take from LiteLLM what the gateway has of its own: connections, retries, caches, logs, reports."""
    library.telemetry = False
    library.suppress_debug_info = True
    library.turn_off_message_logging = True
    library.disable_hf_tokenizer_download = True
    library.drop_params = False
    library.cache = None
    library.num_retries = 0
    for callbacks in ("callbacks", "success_callback", "failure_callback", "input_callback"):
        setattr(library, callbacks, [])
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logger = logging.getLogger(name)  # they repeat requests
        logger.handlers.clear()
        logger.propagate = False
        logger.setLevel(logging.CRITICAL + 1)
    handlers: Any = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    handlers.AsyncHTTPHandler.create_async_transport = staticmethod(lambda *_, **__: Transport())
    handlers.AsyncHTTPHandler.create_httpx_proxy_mounts = staticmethod(lambda *_, **__: None)
    handlers.HTTPHandler._create_sync_transport = staticmethod(lambda *_, **__: NoTransport())  # noqa: SLF001
    library.module_level_aclient = handlers.AsyncHTTPHandler()
    library.in_memory_llm_clients_cache.flush_cache()


class _Events:
    """The events of one stream: each of the provider's becomes at most one of OpenAI's, in the same order."""

    def __init__(self, target: Target, exchange: Exchange, wrapper: Any) -> None:
        self._target = target
        self._exchange = exchange
        self._wrapper = wrapper
        cohere = target.settings.kind == "cohere"
        self._source = _cohere(wrapper.completion_stream) if cohere else aiter(wrapper.completion_stream)
        self._finish: str | None = None
        self._tools = False
        self._head: dict[str, Any] = {}
        self._last: deque[bytes] = deque()
        self._ended = False
        self._usage: dict[str, Any] = {}

    async def pull(self) -> bytes:
        """Return the next event, nothing after the last.

        Raises:
            HttpError, TimeoutError, TooLargeError: the provider broke off, or sent too much.
            GatewayError: it sent an error, or what cannot be translated.
        """
        token = current.set(self._exchange)
        try:
            while not self._ended:
                event = await self._next()
                if event:
                    self._exchange.used()
                    return event
        except Exception as error:  # noqa: BLE001  # whatever a translation raises ends the stream as an event
            self._ended = True
            self._exchange.close()
            if self._exchange.broken is not None:
                raise self._exchange.broken from None
            raise error if isinstance(error, GatewayError) else _midway(self._target, error) from None
        finally:
            current.reset(token)
        return self._last.popleft() if self._last else b""

    async def _next(self) -> bytes:
        try:
            said = await anext(self._source)
        except StopAsyncIteration:
            self._end()
            return b""
        if said is None:
            return b""
        usage = said.get("usage") if isinstance(said, dict) else getattr(said, "usage", None)
        if usage is not None:  # after its end LiteLLM would keep it to itself
            _add_greatest(self._usage, usage if isinstance(usage, dict) else usage.model_dump(exclude_none=True))
        self._note_finish(said)
        try:
            chunk = self._wrapper.chunk_creator(chunk=said)
        except StopIteration:
            return b""
        return self._event(_plain(chunk)) if chunk is not None else b""

    def _note_finish(self, said: Any) -> None:
        choices = said.get("choices") if isinstance(said, dict) else said.choices
        if choices:
            self._finish = choices[0].finish_reason or self._finish
            self._tools = self._tools or bool(choices[0].delta.tool_calls)

    def _event(self, document: dict[str, Any]) -> bytes:
        """Return an event without usage and reason to finish, which come once, at the end; nothing if that was all."""
        _add_greatest(self._usage, document.pop("usage", None) or {})
        self._head = document
        for choice in document.get("choices", ()):
            choice["finish_reason"] = None
        return _sse(document) if any(choice.get("delta") for choice in document.get("choices", ())) else b""

    def _end(self) -> None:
        """Prepare what follows the last event: how it finished, what was used, and that this was all."""
        self._ended = True
        if not self._exchange.finished:
            return  # cut short: the relay says so
        wrapper, finish = self._wrapper, self._finish or "stop"
        if wrapper.received_finish_reason is not None or wrapper.intermittent_finish_reason is not None:
            finish = wrapper.finish_reason_handler().choices[0].finish_reason
        finish = _FINISHES.get(finish, finish)
        if finish == "stop" and self._tools:
            finish = "tool_calls"
        head = {**self._head, "object": "chat.completion.chunk"}
        self._last.append(_sse({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}))
        if self._usage:
            document = {**head, "choices": [], "usage": self._usage}
            _bill(document, self._exchange.tail)
            self._last.append(_sse(document))
        self._last.append(DONE)


async def _cohere(translation: Any) -> AsyncIterator[Any]:
    """Yield Cohere's events: LiteLLM's own loop stumbles over lines that name them, and looks for data elsewhere."""
    async for line in translation.streaming_response:
        if line.startswith("data:") and line[5:].strip() != "[DONE]":
            event = msgspec.json.decode(line[5:])
            yield translation.chunk_parser({**event, "event": event.get("type"), "data": event})


def _bill(document: dict[str, Any], tail: bytes) -> None:
    """Put what Cohere bills in the place of what it counted: LiteLLM has no word for it."""
    found = _BILLED.findall(tail)
    if not found:
        return
    units = msgspec.json.decode(found[-1])
    asked, answered = units.get("input_tokens", 0), units.get("output_tokens", 0)
    document["usage"] = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
    if searches := units.pop("search_units", 0):
        document["usage"]["web_search_requests"] = searches
    others = {name: value for name, value in units.items() if value and not name.endswith("_tokens")}
    document["usage"].update(others)  # pictures and the like, which have no price here


def _count_gemini(document: dict[str, Any], tail: bytes) -> None:
    """Take away LiteLLM's own count of texts to embed, which would stand in the ledger as reported."""
    del document["usage"]
    if found := _COUNTED.findall(tail):
        document["usage"] = {"prompt_tokens": int(found[-1]), "total_tokens": int(found[-1])}


def _sse(document: dict[str, Any]) -> bytes:
    return b"data: " + _encode(document) + b"\n\n"


def _whole(document: dict[str, Any], exchange: Exchange) -> TranslatedAnswer:
    pieces = deque([_encode(document)])

    async def pull() -> bytes:
        return pieces.popleft() if pieces else b""

    return TranslatedAnswer("application/json", pull, exchange.interrupt, exchange.close)


def _plain(answer: Any) -> dict[str, Any]:
    """Return one of LiteLLM's objects as OpenAI would have written it."""
    document: dict[str, Any] = answer.model_dump(exclude_none=True)
    for choice in document.get("choices", ()):
        for place in (choice, choice.get("message"), choice.get("delta")):
            for name in _LEFT_OUT.intersection(place or ()):
                del place[name]
            for name in _NEVER_EMPTY.intersection(place or ()):
                if not place[name]:
                    del place[name]
    return {name: value for name, value in document.items() if name in _KEPT}


def _vector(index: int, item: Mapping[str, Any], *, packed: bool) -> dict[str, Any]:
    numbers = item["embedding"]
    if packed:
        numbers = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    return {"object": "embedding", "index": index, "embedding": numbers}


def _add_greatest(known: dict[str, Any], said: Mapping[str, Any]) -> None:
    """Join statements of usage: families repeat and complete them, and none takes anything back."""
    for name, value in said.items():
        if isinstance(value, dict):
            _add_greatest(known.setdefault(name, {}), value)
        elif isinstance(value, str) or (isinstance(value, int | float) and value >= known.get(name, 0)):
            known[name] = value  # texts: tier, mode and region, which change the bill


def _failure(target: Target, exchange: Exchange, error: Exception) -> GatewayError:
    """Return what went wrong before there was an answer; nothing of LiteLLM's texts, which repeat the request."""
    if exchange.refusal is not None:
        return exchange.refusal
    broken = exchange.broken
    if isinstance(broken, TimeoutError):
        return errors.provider_timeout(target.provider, f"sent nothing for {target.settings.idle_seconds:g} s").paid()
    if isinstance(broken, TooLargeError):
        return errors.provider_error(target.provider, "sent more than the gateway takes").paid()
    if isinstance(broken, HttpError):
        return errors.provider_error(target.provider, "broke off in the middle of the answer").paid()
    if exchange.answered:
        what = f"answered with something that cannot be translated ({type(error).__name__})"
        return errors.provider_error(target.provider, what).paid()
    message = f"The request cannot be translated for provider {target.provider} ({type(error).__name__})."
    return errors.invalid_request(message, code="not_translatable")


def _midway(target: Target, error: Exception) -> GatewayError:
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        return openai_wire.translate(target, status, Detail("it ended the stream with an error"), None)
    return errors.provider_error(target.provider, "sent an event that cannot be translated")
