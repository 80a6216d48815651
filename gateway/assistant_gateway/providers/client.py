"""Where a call goes out: straight to a provider that speaks the OpenAI wire, through a translation to any other.

LiteLLM takes seconds and 250 MiB, so it is loaded when the catalogue has a translated provider, and not before: beside
the event loop, once.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from assistant_gateway import errors
from assistant_gateway.providers import kinds
from assistant_gateway.providers.catalog import LOOK_SECONDS, Target
from assistant_gateway.providers.openai_wire import Upstream
from assistant_gateway.wire.fields import encode_fields
from assistant_http.response import Response
from assistant_observability import logs

if TYPE_CHECKING:
    from assistant_gateway.providers.litellm import Translator

_log = logs.logger(__name__)


class ProviderClient:
    """Sends each call the way that its provider wants it."""

    def __init__(self, upstream: Upstream, max_answer_bytes: int) -> None:
        self._upstream = upstream
        self._max_answer_bytes = max_answer_bytes
        self._loading: asyncio.Task[Translator] | None = None

    async def send(
        self, target: Target, *, embedding: bool, fields: dict[str, msgspec.Raw], trace: Mapping[str, str]
    ) -> Response:
        """Send a call and return its answer when it begins; the caller closes it.

        Raises:
            GatewayError: no answer, or a translated provider refused.
        """
        if target.settings.kind == kinds.NATIVE:
            url = target.embeddings if embedding else target.chat
            return await self._upstream.post(target, url, encode_fields(fields), trace)
        translator = await self._translator(target)
        return await translator.send(target, embedding=embedding, fields=fields, trace=trace)

    async def _translator(self, target: Target) -> Translator:
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        try:
            # One caller that hangs up must not end the import for the others.
            return await asyncio.shield(self._loading)
        except (ImportError, OSError) as error:
            _log.error("no translation", provider=target.provider, error=f"{type(error).__name__}: {error}")
            message = f"This gateway cannot translate for provider {target.provider}: LiteLLM is not installed."
            raise errors.GatewayError(502, "translation_unavailable", message, kind=errors.SERVER) from None

    def _load(self) -> Translator:
        return _translations().Translator.load(self._upstream, self._max_answer_bytes)  # type: ignore[no-any-return]


async def preload(targets: Callable[[], Mapping[str, Target]]) -> None:
    """Load LiteLLM as soon as a provider needs it, so that no call has to wait for it.

    Args:
        targets: the catalogue's providers as they are now.
    """
    while all(target.settings.kind == kinds.NATIVE for target in targets().values()):  # noqa: ASYNC110  # from files
        await asyncio.sleep(LOOK_SECONDS)
    try:
        await asyncio.to_thread(lambda: _translations().load())
    except (ImportError, OSError) as error:  # calls say so too
        _log.error("no translation", error=f"{type(error).__name__}: {error}")


def _translations() -> Any:
    return importlib.import_module("assistant_gateway.providers.litellm")
