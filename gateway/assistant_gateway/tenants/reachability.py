"""What a call of each of a tenant's models would meet now, for the operator to show on its resources.

What refuses a call before it is sent (allowed models, missing key, breaker, unknown price) is asked for with the same
functions as in a call. Whether the provider answers is found out by asking for its list of models: it costs nothing
and proves address, TLS and key. Whether a model makes embeddings only a trial shows. Answers are kept and shared, so
that a thousand assistants with one provider make one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple, TypeAlias
from urllib.parse import quote
from weakref import WeakValueDictionary

import msgspec
from yarl import URL

from assistant_crds.conditions import Reason
from assistant_crds.contracts import ModelProbe, TenantProbe
from assistant_gateway import errors
from assistant_gateway.errors import GatewayError
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.metering.meter import Meter
from assistant_gateway.providers import kinds
from assistant_gateway.providers.breaker import State
from assistant_gateway.providers.bulkhead import Bulkheads
from assistant_gateway.providers.catalog import Target
from assistant_gateway.providers.egress import asking
from assistant_gateway.providers.openai_wire import Upstream
from assistant_gateway.tenants.remembered import Key, Remembered
from assistant_gateway.tenants.routing import ChatRoute, Destination, EmbeddingRoute, Tenant, resolve
from assistant_gateway.tenants.trial_embedding import TrialEmbeddings
from assistant_gateway.wire.decoding import UNREADABLE
from assistant_http.errors import HttpError
from assistant_http.response import Response

PROBE_SECONDS = 5.0
KEPT_SECONDS = 10.0
KEPT_FAILURE_SECONDS = 3.0  # a mended provider is seen soon
AT_ONCE = 16
ALL_SECONDS = 8.0  # the operator does not wait longer than ten
LARGEST_LIST = 2 * 2**20  # bytes of a list of models of the platform's providers; OpenRouter's has less than one MiB
LARGEST_OWN_LIST = 256 * 1024  # of a tenant's own endpoint, which may send what it likes
OWN_AT_ONCE = 8  # questions to the endpoints of one tenant
ALL_AT_ONCE = 32  # the same of all tenants together

# What refuses a call before its provider is asked, by the code that the call would get.
_REFUSALS = {
    "model_not_allowed": Reason.MODEL_NOT_ALLOWED,
    "provider_unknown": Reason.PROVIDER_UNKNOWN,
    "provider_unauthorized": Reason.PROVIDER_UNAUTHORIZED,
    "provider_unavailable": Reason.PROVIDER_UNAVAILABLE,
    "price_unknown": Reason.PRICE_UNKNOWN,
}
# Refusals of an assistant's own model after which no fallback is asked.
_FINAL = frozenset({Reason.MODEL_NOT_ALLOWED, Reason.PRICE_UNKNOWN})

Targets: TypeAlias = Callable[[], Mapping[str, Target]]


class _Model(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


class _Answer(msgspec.Struct, frozen=True):
    """What a provider said: a status, or why there is none; and its models, where it listed them."""

    status: int = 0
    problem: str = ""
    listed: bool = False  # whether it has any models
    models: frozenset[str] = frozenset()  # of a tenant's own endpoint: those that the tenant uses


class Prober:
    """Asks providers, at most once every few seconds for the same question."""

    def __init__(
        self,
        upstream: Upstream,
        targets: Targets,
        bulkheads: Bulkheads,
        meter: Meter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._meter = meter
        self._targets = targets
        self._bulkheads = bulkheads
        self._answers: Remembered[_Answer] = Remembered(_is_good, KEPT_SECONDS, KEPT_FAILURE_SECONDS, clock)
        self._trials = TrialEmbeddings(upstream, clock)
        self._own = asyncio.Semaphore(ALL_AT_ONCE)
        self._own_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def probe(self, tenant: Tenant) -> TenantProbe:
        """Return what is true of every model of a tenant, and which policy that is based on."""
        turns = self._turns(tenant)
        assistants = [self._assistant(route, turns) for route in tenant.assistants.values()]
        bases = [self._knowledge_base(route, turns) for route in tenant.knowledge_bases.values()]
        found = await asyncio.gather(*assistants, *bases)
        return TenantProbe(
            generation=tenant.generation,
            assistants=dict(zip(tenant.assistants, found[: len(assistants)], strict=True)),
            knowledge_bases=dict(zip(tenant.knowledge_bases, found[len(assistants) :], strict=True)),
        )

    async def listed(self, target: Target, tenant: Tenant) -> frozenset[str] | None:
        """Return the names in a provider's list of models, empty where it has none; None when it does not answer."""
        if target.missing_key is not None:
            return None
        answer = await self._ask(target, target.models, self._turns(tenant))
        return answer.models if _verdict(target, answer).reachable else None

    def _turns(self, tenant: Tenant) -> _Turns:
        # Per call, hence per tenant: one with many dead endpoints holds up only itself.
        own = self._own_of.setdefault(tenant.namespace, asyncio.Semaphore(OWN_AT_ONCE))
        until = asyncio.get_running_loop().time() + ALL_SECONDS
        return _Turns(asyncio.Semaphore(AT_ONCE), own, until, tenant, _own_models(tenant))

    async def _assistant(self, route: ChatRoute, turns: _Turns) -> ModelProbe:
        """Return whether a call would be answered: by the assistant's model, or by the first fallback that can be."""
        own, *fallbacks = await asyncio.gather(
            *(self._model(to, "assistant", route.terms, turns) for to in route.destinations)
        )
        if own.reachable or not fallbacks:
            return msgspec.structs.replace(own, fallbacks=fallbacks)
        if own.reason in _FINAL:
            message = f"{own.message} No fallback is asked after such a refusal."
            return msgspec.structs.replace(own, message=message, fallbacks=fallbacks)
        for probe in fallbacks:
            if probe.reachable:
                message = f"It answers by its fallback {probe.model}, because: {own.message}"
                return msgspec.structs.replace(
                    own, reachable=True, reason=Reason.REACHABLE, message=message, fallbacks=fallbacks
                )
        reasons = " ".join(f"Fallback {probe.model}: {probe.message}" for probe in fallbacks)
        message = f"{own.message} None of its fallbacks can answer either. {reasons}"
        return msgspec.structs.replace(own, message=message, fallbacks=fallbacks)

    async def _knowledge_base(self, route: EmbeddingRoute, turns: _Turns) -> ModelProbe:
        probe = await self._model(route.to, "knowledge base", route.terms, turns)
        if not probe.reachable:
            return probe
        problem = await self._trial(route, turns)
        return msgspec.structs.replace(_no(Reason.MODEL_UNSUITABLE, problem), model=probe.model) if problem else probe

    async def _trial(self, route: EmbeddingRoute, turns: _Turns) -> str:
        """Return why the model makes no embeddings, as far as that is known in time."""
        try:
            async with asyncio.timeout_at(turns.until):
                target = resolve(route.to, self._targets())
                async with self._place(target, turns):
                    return await self._trials.problem(route, target, turns.tenant.namespace)
        except (TimeoutError, GatewayError):  # the catalogue may have changed meanwhile
            return ""

    @contextlib.asynccontextmanager
    async def _place(self, target: Target, turns: _Turns) -> AsyncIterator[None]:
        """Hold a place among the questions that may be asked at once, in the name of the tenant."""
        async with contextlib.AsyncExitStack() as places:
            for place in (turns.own, self._own) if target.own else (turns.at_once,):
                await places.enter_async_context(place)
            asking.set(turns.tenant.namespace)
            yield

    async def _model(self, to: Destination, kind: str, terms: LimitSet, turns: _Turns) -> ModelProbe:
        found = self._before(to, kind, terms)
        probe = found if isinstance(found, ModelProbe) else await self._provider(to, kind, found, turns)
        return msgspec.structs.replace(probe, model=to.label)

    def _before(self, to: Destination, kind: str, terms: LimitSet) -> Target | ModelProbe:
        """Return whom to ask, or what refuses a call before anyone is asked."""
        try:
            target = resolve(to, self._targets())
            if (refused := self._meter.price_refusal(terms, target, to.model)) is not None:
                raise refused
            bulkhead = self._bulkheads.bulkhead(to.tenant, target)
            # A provider that asked for a short pause is there, and busy.
            if bulkhead.breaker.state is State.OPEN and (refused := bulkhead.refusal(to.model)) is not None:
                raise refused
        except GatewayError as error:
            return _no(_REFUSALS.get(error.code, Reason.PROVIDER_UNREACHABLE), error.message)
        family = kinds.FAMILIES.get(target.settings.kind)
        if kind != "assistant" and family is not None and not family.embeds:
            message = f"{_name(target)} makes no embeddings here; choose a model of another provider."
            return _no(Reason.MODEL_UNSUITABLE, message)
        return target

    async def _provider(self, to: Destination, kind: str, target: Target, turns: _Turns) -> ModelProbe:
        """Return what the provider says of itself and of the model."""
        answer = await self._ask(target, target.models, turns)
        verdict = _verdict(target, answer)
        certain = target.settings.lists_models and answer.listed and to.model not in answer.models
        if not verdict.reachable or not certain:
            return verdict
        # Lists may be partial, or name models with a tag: only a second no is a no.
        url = URL(f"{target.models}/{quote(to.model, safe='')}", encoded=True)
        if (await self._ask(target, url, turns)).status == 404:
            message = f"{_name(target)} does not know the model {to.model!r}; correct the {kind}'s model name."
            return _no(Reason.MODEL_UNKNOWN, message)
        return verdict

    async def _ask(self, target: Target, url: URL, turns: _Turns) -> _Answer:
        key: Key = (str(url), str(sorted(target.headers.items())))
        if target.own:  # what is kept of its list depends on what the tenant uses
            key = (*key, turns.tenant.namespace, turns.tenant.generation)
        try:
            async with asyncio.timeout_at(turns.until):
                return await self._answers.get(key, lambda: self._fetch(target, url, turns))
        except TimeoutError:
            return _Answer(problem=f"{_name(target)} has not answered yet")

    async def _fetch(self, target: Target, url: URL, turns: _Turns) -> _Answer:
        async with self._place(target, turns):
            try:
                response = await self._upstream.get(target, url, PROBE_SECONDS)
            except GatewayError as error:
                return _Answer(problem=error.message.replace(errors.OWN_ENDPOINT, _name(target), 1))
            try:
                models = await _listed(response, LARGEST_OWN_LIST if target.own else LARGEST_LIST)
                kept = models & turns.models if target.own else models
                return _Answer(response.status, listed=bool(models), models=kept)
            finally:
                response.close()


def _is_good(answer: _Answer) -> bool:
    return answer.status == 200


class _Turns(NamedTuple):
    """How many questions one probe may ask at once, until when it waits (the loop's clock), and for whom."""

    at_once: asyncio.Semaphore
    own: asyncio.Semaphore  # of the tenant's own endpoints
    until: float
    tenant: Tenant
    models: frozenset[str]


def _own_models(tenant: Tenant) -> frozenset[str]:
    chats = (to for route in tenant.assistants.values() for to in route.destinations)
    return frozenset(to.model for to in (*chats, *(base.to for base in tenant.knowledge_bases.values())) if to.own)


async def _listed(response: Response, largest: int) -> frozenset[str]:
    """Return the names of a list of models, none when it is larger than `largest` bytes or no such list."""
    if response.status != 200:
        return frozenset()
    body = bytearray()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            while chunk := await response.next():
                body += chunk
                if len(body) > largest:
                    return frozenset()
        return frozenset(model.id for model in msgspec.json.decode(body, type=_Models).data)
    except (TimeoutError, HttpError, *UNREADABLE):
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
