"""One word embedded on trial, because no list of models says which of them makes vectors, or how long they are.

A knowledge base whose model is a chat model, or makes vectors of another length than `dimensions`, would take
documents and fail on the first. The trial is a call of one word that no tenant is billed for; what it found is kept for
hours where it is good, and for a minute where it is not, so that a mended model is seen soon.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Callable

import msgspec

from assistant_gateway.errors import GatewayError
from assistant_gateway.providers import kinds
from assistant_gateway.providers.catalog import Target
from assistant_gateway.providers.openai_wire import Upstream, refusal
from assistant_gateway.tenants.remembered import Key, Remembered
from assistant_gateway.tenants.routing import EmbeddingRoute
from assistant_gateway.wire.decoding import UNREADABLE
from assistant_gateway.wire.fields import encode_fields
from assistant_http.errors import HttpError
from assistant_http.response import Response

SECONDS = 5.0
KEPT_SECONDS = 6 * 3600.0
KEPT_FAILURE_SECONDS = 60.0
LARGEST_ANSWER = 2**20  # bytes; the longest vectors known, 4,096 numbers as text, have less than 100 KiB
BYTES_PER_NUMBER = 4  # of a vector in base64: single precision, as OpenAI's
# What providers answer to a model that makes no embeddings. Other errors may mean that one is busy, or the key wrong.
_REFUSALS = frozenset({400, 404, 405, 422, 501})


class _Item(msgspec.Struct, frozen=True):
    embedding: list[float] | str


class _Answer(msgspec.Struct, frozen=True):
    data: list[_Item]


class TrialEmbeddings:
    """Trials by provider, model and length of vectors."""

    def __init__(self, upstream: Upstream, clock: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream
        self._trials: Remembered[str] = Remembered(_is_good, KEPT_SECONDS, KEPT_FAILURE_SECONDS, clock)

    async def problem(self, route: EmbeddingRoute, target: Target, namespace: str) -> str:
        """Return why a knowledge base could not embed with its model, empty where nothing speaks against it.

        A provider that is busy, away or refuses the key says nothing about the model. Providers that are translated are
        not asked: which of them make embeddings is known.
        """
        if target.settings.kind != kinds.NATIVE:
            return ""
        dimensions = bytes(route.dimensions).decode()
        key: Key = (str(target.embeddings), str(sorted(target.headers.items())), route.to.model, dimensions)
        if target.own:
            key = (*key, namespace)
        return await self._trials.get(key, lambda: self._try(route, target))

    async def _try(self, route: EmbeddingRoute, target: Target) -> str:
        fields = {"model": route.to.model_json, "input": msgspec.Raw(b'["trial"]')}
        if target.settings.embedding_dimensions:
            fields["dimensions"] = route.dimensions
        if types := target.settings.embedding_input_types:
            fields["input_type"] = msgspec.Raw(msgspec.json.encode(types.ingest))
        try:
            async with asyncio.timeout(SECONDS):
                answer = await self._upstream.post(target, target.embeddings, encode_fields(fields), {})
                try:
                    return await _verdict(route, target, answer)
                finally:
                    answer.close()
        except (TimeoutError, HttpError, GatewayError):
            return ""


def _is_good(problem: str) -> bool:
    return not problem


async def _verdict(route: EmbeddingRoute, target: Target, answer: Response) -> str:
    model = repr(route.to.model)
    if answer.status in _REFUSALS:
        refused = await refusal(target, answer)
        if refused.status == 429 or refused.code == "provider_quota_exhausted":
            return ""
        return f"A trial embedding with the model {model} was refused ({answer.status}): {refused.message}"
    if answer.status != 200:
        return ""
    length = _length(await _body(answer))
    wanted = int(bytes(route.dimensions))
    if length is None:
        return f"The model {model} answered a trial embedding without a vector; choose a model that makes embeddings."
    if length != wanted:
        return (
            f"The model {model} makes vectors of {length} numbers, and spec.embedding.dimensions says {wanted}; "
            f"set it to {length}, or choose another model."
        )
    return ""


async def _body(answer: Response) -> bytes:
    body = bytearray()
    while len(body) <= LARGEST_ANSWER and (chunk := await answer.next()):
        body += chunk
    return bytes(body) if len(body) <= LARGEST_ANSWER else b""


def _length(body: bytes) -> int | None:
    """Return how many numbers the first vector of an answer has; None where there is none."""
    try:
        vector = msgspec.json.decode(body, type=_Answer).data[0].embedding
        if isinstance(vector, str):
            return len(base64.b64decode(vector, validate=True)) // BYTES_PER_NUMBER or None
    except (IndexError, binascii.Error, *UNREADABLE):
        return None
    return len(vector) or None
