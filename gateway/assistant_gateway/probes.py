"""Whether a tenant's models can be reached, for the operator to show on its resources.

A probe asks for the provider's list of models: it costs nothing and proves address, TLS and key. Answers are kept
for a few seconds and shared, so that a thousand assistants with one provider make one call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec
from yarl import URL

from assistant_crds.conditions import Reason
from assistant_crds.contracts import ModelProbe, TenantProbe
from assistant_gateway.breaker import State
from assistant_gateway.catalog import Target
from assistant_gateway.errors import GatewayError
from assistant_gateway.gates import Gates
from assistant_gateway.providers.openai_wire import Upstream
from assistant_gateway.routing import ChatRoute, Destination, Tenant
from assistant_http.answers import Answer
from assistant_http.errors import HttpError

PROBE_SECONDS = 5.0
KEPT_SECONDS = 10.0
KEPT_FAILURE_SECONDS = 3.0  # a mended provider is seen soon
AT_ONCE = 16
ALL_SECONDS = 8.0  # the operator does not wait longer than ten
LARGEST_LIST = 8 * 2**20

Targets: TypeAlias = Callable[[], Mapping[str, Target]]


class _Model(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


class _Answer(msgspec.Struct, frozen=True):
    """What a provider said: a status, or why there is none; and its models, where it listed them."""

    status: int = 0
    problem: str = ""
    models: frozenset[str] = frozenset()


class Prober:
    """Asks providers, at most once every few seconds for the same question."""

    def __init__(
        self, upstream: Upstream, targets: Targets, gates: Gates, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self._targets = targets
        self._gates = gates
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[float, asyncio.Task[_Answer]]] = {}

    async def probe(self, tenant: Tenant) -> TenantProbe:
        """Return what is true of every model of a tenant, and which policy that is based on."""
        # Per call, hence per tenant: one with many dead endpoints holds up only itself.
        turns = _Turns(asyncio.Semaphore(AT_ONCE), asyncio.get_running_loop().time() + ALL_SECONDS)
        assistants = [self._assistant(route, turns) for route in tenant.assistants.values()]
        bases = [self._model(route.to, "knowledge base", turns) for route in tenant.knowledge_bases.values()]
        found = await asyncio.gather(*assistants, *bases)
        return TenantProbe(
            generation=tenant.generation,
            assistants=dict(zip(tenant.assistants, found[: len(assistants)], strict=True)),
            knowledge_bases=dict(zip(tenant.knowledge_bases, found[len(assistants) :], strict=True)),
        )

    async def _assistant(self, route: ChatRoute, turns: _Turns) -> ModelProbe:
        """Return whether an assistant is answered: by its model, or by the first fallback that can be reached."""
        own = await self._model(route.to, "assistant", turns)
        fallbacks = route.destinations[1:]
        if own.reachable or not fallbacks:
            return own
        found = await asyncio.gather(*(self._model(to, "assistant", turns) for to in fallbacks))
        for to, probe in zip(fallbacks, found, strict=True):
            if probe.reachable:
                message = f"It answers by its fallback {to.label}, because: {own.message}"
                return ModelProbe(reachable=True, reason=Reason.REACHABLE, message=message)
        return msgspec.structs.replace(own, message=f"{own.message} None of its fallbacks can be reached either.")

    async def _model(self, to: Destination, kind: str, turns: _Turns) -> ModelProbe:
        target = self._target(to)
        if isinstance(target, ModelProbe):
            return target
        if self._gates.gate(to, target).breaker.state is State.OPEN:
            message = f"{_name(target)} fails too many calls; it is left alone for some seconds, then tried again."
            return _no(Reason.PROVIDER_UNAVAILABLE, message)
        answer = await self._ask(target, target.models, turns)
        verdict = _verdict(target, answer)
        certain = target.settings.lists_models and answer.models and to.model not in answer.models
        if not verdict.reachable or not certain:
            return verdict
        # Lists may be partial, or name models with a tag: only a second no is a no.
        url = URL(f"{target.models}/{quote(to.model, safe='')}", encoded=True)
        if (await self._ask(target, url, turns)).status == 404:
            message = f"{_name(target)} does not know the model {to.model!r}; correct the {kind}'s model name."
            return _no(Reason.MODEL_UNKNOWN, message)
        return verdict

    def _target(self, to: Destination) -> Target | ModelProbe:
        """Return whom to ask, or what is wrong before anyone was asked."""
        if not to.allowed:
            return _no(Reason.MODEL_NOT_ALLOWED, f"The model {to.label} is not in the tenant's spec.models.allow.")
        if to.problem is not None:
            return _no(Reason.PROVIDER_UNREACHABLE, f"The endpoint cannot be used: {to.problem}.")
        target = to.own or self._targets().get(to.provider)
        if target is None:
            known = ", ".join(sorted(self._targets())) or "none"
            return _no(Reason.PROVIDER_UNKNOWN, f"The platform has no provider {to.provider!r}; it has: {known}.")
        if target.missing_key is not None:
            message = f"The platform has no key for provider {to.provider}: add {target.missing_key!r} to its keys."
            return _no(Reason.PROVIDER_UNAUTHORIZED, message)
        return target

    async def _ask(self, target: Target, url: URL, turns: _Turns) -> _Answer:
        key = (str(url), str(sorted(target.headers.items())))
        now = self._clock()
        kept = self._kept.get(key)
        if kept is None or now >= kept[0]:
            self._kept = {known: value for known, value in self._kept.items() if now < value[0]}
            task = asyncio.create_task(self._fetch(target, url, turns))
            task.add_done_callback(lambda done: self._shorten(key, done))
            kept = self._kept[key] = (now + KEPT_SECONDS, task)
        try:
            async with asyncio.timeout_at(turns.until):
                # One that asks and goes away must not end the answer for the others.
                return await asyncio.shield(kept[1])
        except TimeoutError:
            return _Answer(problem=f"{_name(target)} has not answered yet")

    def _shorten(self, key: tuple[str, str], task: asyncio.Task[_Answer]) -> None:
        fine = not task.cancelled() and task.exception() is None and task.result().status == 200
        if not fine and key in self._kept:
            self._kept[key] = (self._clock() + KEPT_FAILURE_SECONDS, task)

    async def _fetch(self, target: Target, url: URL, turns: _Turns) -> _Answer:
        async with turns.at_once:
            try:
                response = await self._upstream.get(target, url, PROBE_SECONDS)
            except GatewayError as error:
                return _Answer(problem=error.message)
            try:
                return _Answer(response.status, models=await _listed(response))
            finally:
                response.close()


class _Turns(NamedTuple):
    """How many questions one probe may ask at once, and until when it waits (the loop's clock)."""

    at_once: asyncio.Semaphore
    until: float


async def _listed(response: Answer) -> frozenset[str]:
    if response.status != 200:
        return frozenset()
    body = b""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            while len(body) < LARGEST_LIST and (chunk := await response.next()):
                body += chunk
        return frozenset(model.id for model in msgspec.json.decode(body, type=_Models).data)
    except (TimeoutError, HttpError, msgspec.MsgspecError, UnicodeDecodeError):
        return frozenset()


def _name(target: Target) -> str:
    return f"The endpoint {target.settings.url}" if target.own else f"Provider {target.provider}"


def _verdict(target: Target, answer: _Answer) -> ModelProbe:
    name = _name(target)
    if answer.problem:
        return _no(Reason.PROVIDER_UNREACHABLE, answer.problem)
    if target.settings.kind == "bedrock" and answer.status < 500:
        message = f"{name} answers; its key has not been checked, as that would take a call of a model."
        return ModelProbe(reachable=True, reason=Reason.REACHABLE, message=message)
    if answer.status in {401, 403}:
        step = (
            "check the Secret named in apiKeySecretRef." if target.own else "the platform team has to replace its key."
        )
        return _no(Reason.PROVIDER_UNAUTHORIZED, f"{name} refused the API key; {step}")
    if answer.status == 400 and target.settings.kind == "gemini":  # its word for a wrong key; a list has no other
        return _no(Reason.PROVIDER_UNAUTHORIZED, f"{name} refused the API key; the platform team has to replace it.")
    if answer.status >= 500 or 300 <= answer.status < 400:
        message = f"{name} answers {answer.status} at /models; check the URL and the server behind it."
        return _no(Reason.PROVIDER_UNREACHABLE, message)
    # Some have no list of models: whoever answers 404 or 405 is there; whoever answers 429 is there, and busy.
    return ModelProbe(reachable=True, reason=Reason.REACHABLE, message=f"{name} answers.")


def _no(reason: Reason, message: str) -> ModelProbe:
    return ModelProbe(reachable=False, reason=reason, message=message)
