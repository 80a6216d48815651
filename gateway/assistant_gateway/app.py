"""The gateway put together: routes, the order of steps in a call, and the one place where errors become answers."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial

import msgspec
from aiohttp import web
from opentelemetry import trace
from prometheus_client import Counter, Histogram

from assistant_crds import contracts, naming
from assistant_crds.gateway_api import PURPOSE_HEADER, Operation, Purpose, embeddings_purpose
from assistant_gateway import errors
from assistant_gateway.calls import intake, payload
from assistant_gateway.calls.delivery import deliver
from assistant_gateway.calls.fallback import Attempt, Fallback
from assistant_gateway.calls.pipeline import REQUEST_ID, Ask, Pipeline
from assistant_gateway.calls.relay import Relay, Result, Sizes
from assistant_gateway.calls.request_log import LINE, Line
from assistant_gateway.calls.streaming import StreamOptions
from assistant_gateway.capacity.connections import Connections
from assistant_gateway.capacity.fairness import STRANGER, Pause, Turns
from assistant_gateway.capacity.memory import LEASE, Memory
from assistant_gateway.capacity.slow_refusals import SlowRefusals
from assistant_gateway.config import Settings
from assistant_gateway.errors import GatewayError
from assistant_gateway.limits.limiter import Limiter
from assistant_gateway.metering.meter import Meter
from assistant_gateway.metering.metered import Metered
from assistant_gateway.providers.bulkhead import Bulkheads
from assistant_gateway.providers.catalog import Catalog
from assistant_gateway.providers.client import ProviderClient
from assistant_gateway.providers.openai_wire import Upstream
from assistant_gateway.tenants.identity import OPERATOR, Authenticator, Identity, SigningKeys, require
from assistant_gateway.tenants.offers import offers
from assistant_gateway.tenants.policies import Policies
from assistant_gateway.tenants.probe_changes import ProbeChanges
from assistant_gateway.tenants.reachability import Prober, Targets
from assistant_gateway.tenants.routing import Tenant
from assistant_gateway.usage.query import parse_query
from assistant_gateway.usage.report import UsageReports, unavailable
from assistant_gateway.wire.decoding import LARGEST_DECODED
from assistant_http.response import Response
from assistant_observability import logs, metrics

SERVER = "assistant-gateway"
INTERNAL = "/internal/"  # the operator's
AT_ONCE = 4  # steps of one tenant's requests in one round of the event loop: some 2 ms of work
ALONE_AT_ONCE = 32  # while no other tenant asks: with few in a round each costs up to a third more processor time
PIECES_AT_ONCE = 2  # pieces of large bodies that are looked at in one round, each of another tenant's
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_log = logs.logger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Clients:
    """What the gateway talks to and knows; made by `serve`, or by a test."""

    keys: SigningKeys
    policies: Policies
    catalog: Catalog
    limiter: Limiter
    upstream: Upstream
    tracer: trace.Tracer | None = None  # None: nothing is exported
    meter: Meter | None = None  # None: with the prices and tokenizers that are installed
    reports: UsageReports | None = None  # None: there is no ledger to ask


class Gateway:
    """The handlers and what they share."""

    def __init__(self, settings: Settings, clients: Clients) -> None:
        self._settings = settings
        self._policies = clients.policies
        self._limiter = clients.limiter
        self._reports = clients.reports
        self._keys = clients.keys
        self._authenticator = Authenticator(clients.keys)
        self._targets: Targets = lambda: clients.catalog.targets
        self.bulkheads = Bulkheads(self._targets)
        attempts = Fallback(self.bulkheads, self._targets)
        meter = clients.meter or Meter(clients.limiter)
        dispatcher = ProviderClient(clients.upstream, settings.max_answer_bytes)
        self._forwarder = Pipeline(attempts, meter, dispatcher, clients.tracer)
        self.memory = Memory(settings.memory_bytes)
        self._turns = Turns(AT_ONCE, alone=ALONE_AT_ONCE)
        self._pieces = Turns(1, PIECES_AT_ONCE)
        self.refusals = SlowRefusals()
        self._prober = Prober(clients.upstream, self._targets, self.bulkheads, meter)
        self._changes = ProbeChanges(self._prober, clients.limiter, clients.policies.get)
        sizes = Sizes(settings.max_answer_bytes, settings.max_event_bytes, settings.max_stream_bytes)
        self.relay = Relay(sizes, self._pieces)
        self.running = 0
        self.connections = Connections()
        self.draining = False
        self.application = self._application()
        metrics.HTTP_IN_FLIGHT.labels("gateway").set_function(lambda: self.running)

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=self._settings.max_request_bytes, middlewares=[self._edge])
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/embeddings", self.embeddings)
        app.router.add_get("/v1/models", self.models, allow_head=False)
        app.router.add_get("/v1/models/{model}", self.model, allow_head=False)
        app.router.add_get("/v1/providers", self.providers, allow_head=False)
        app.router.add_get("/v1/usage", self.usage, allow_head=False)
        app.router.add_get("/internal/v1/tenants/{namespace}/probe", self.probe, allow_head=False)
        app.router.add_post("/internal/v1/probes", self.probes)
        return app

    @web.middleware
    async def _edge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Where every request enters and leaves: its id, its metrics, and errors as answers."""
        started = time.perf_counter()
        given = request.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        request[REQUEST_ID] = request_id
        line = request[LINE] = Line(request_id)
        self.running += 1
        self.connections.busy.add(request.protocol)
        status = 499  # the client went away
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unknown"
        try:
            await self._turns.take(self.connections.owner(request.protocol))
            answer = await self._handled(request, handler, line, route)
            if not answer.prepared:
                if 400 <= answer.status < 500 and not (self.draining or route.startswith(INTERNAL)):
                    started += await self._refuse(request, answer, line)
                answer.headers["x-request-id"] = request_id
                answer.headers["Server"] = SERVER
                if self.draining:
                    answer.force_close()
                answer = await deliver(request, answer)
            status = answer.status
            return answer
        finally:
            self.running -= 1
            if (lease := request.get(LEASE)) is not None:
                lease.release()
            self.connections.busy.discard(request.protocol)
            if self.draining:
                request.protocol.close()  # once this answer is out: nobody may come again on this connection
            method, seconds = metrics.method_label(request.method), time.perf_counter() - started
            requests, duration = _series(method, route, status)
            requests.inc()
            duration.observe(seconds)
            line.write(request, route, status, seconds)

    async def _refuse(self, request: web.Request, answer: web.StreamResponse, line: Line) -> float:
        """Hold a refusal back where its tenant, or its stranger, has had too many; return for how many seconds."""
        if (lease := request.get(LEASE)) is not None:
            lease.release()
        tenant = line.tenant or f"{STRANGER}{request.remote}"
        await self._turns.take(tenant)
        return await self.refusals.wait(request, answer, tenant)

    @staticmethod
    async def _handled(request: web.Request, handler: Handler, line: Line, route: str) -> web.StreamResponse:
        """Have a request answered, if only by what went wrong."""
        try:
            return await handler(request)
        except GatewayError as error:
            errors.let_go(error)
            line.code = error.code
            return _answer(error)
        except web.HTTPException as error:
            translated = _from_http(error)
        except (ConnectionError, asyncio.CancelledError):
            line.code = "client_gone"
            raise
        except Exception as error:  # noqa: BLE001  # the edge: nothing may escape as a traceback
            _log.exception("request failed", route=route, request_id=line.request_id)
            errors.let_go(error)
            translated = GatewayError(500, "internal_error", "The gateway failed.", kind=errors.SERVER)
        line.code = translated.code
        return _answer(translated)

    # --- the tenant's side -------------------------------------------------------------------------------------

    async def _identity(self, request: web.Request) -> Identity:
        if not (self._keys.loaded and self._policies.loaded):  # else the honest would hear 401 or 404
            starting = GatewayError(503, "not_ready", "The gateway is starting. Try again.", kind=errors.SERVER)
            raise errors.not_started(starting)
        identity = await self._authenticator.identify(request.headers.get("Authorization"))
        request[LINE].tenant = identity.namespace
        self.connections.proved(request.protocol, identity.namespace)
        return identity

    async def _tenant(self, request: web.Request) -> tuple[Identity, Tenant | None]:
        identity = await self._identity(request)
        if identity.service_account != naming.API:
            message = f"Only the ServiceAccount {naming.API} of a tenant's namespace may call models."
            raise errors.forbidden("service_account_not_allowed", message)
        tenant = self._policies.get(identity.namespace)
        if tenant is not None:
            require(identity, tenant.service_account_uid)
        return identity, tenant

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        identity, tenant = await self._tenant(request)
        body = payload.parse(await self._next(request, identity), "messages")
        request[LINE].name = body.model
        route = tenant.assistants.get(body.model) if tenant is not None else None
        if route is None:
            raise errors.model_not_found(body.model, identity.namespace)
        chat = payload.chat(body)
        if chat.stream and self.draining:  # it would be cut: whoever asks again reaches a process that stays
            raise errors.not_started(errors.shutting_down())

        async def relay(made: Attempt, metered: Metered, response: Response) -> Result:
            headers = self._headers(request, made)
            if chat.stream:
                options = StreamOptions(chat.wants_usage, headers, made.permit.answered)
                return await self.relay.stream(request, response, made.target, metered, options)
            return await self.relay.answer(request, response, made.target, metered, headers)

        ask = Ask(
            operation=Operation.CHAT,
            purpose=Purpose.CHAT,
            streamed=chat.stream,
            terms=route.terms,
            fields=lambda made: chat.prepare(route, made.to, made.target),
            relay=relay,
            turn=self._turn(identity),
            pause=self._pause(identity),
        )
        return await self._forwarder.answer(request, route.destinations, ask)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/embeddings`."""
        identity, tenant = await self._tenant(request)
        body = payload.parse(await self._next(request, identity), "input")
        request[LINE].name = body.model
        route = tenant.knowledge_bases.get(body.model) if tenant is not None else None
        if route is None:
            raise errors.model_not_found(body.model, identity.namespace, "knowledge base")
        purpose = embeddings_purpose(request.headers.get(PURPOSE_HEADER))
        ask = Ask(
            operation=Operation.EMBEDDINGS,
            purpose=purpose,
            terms=route.terms,
            fields=lambda made: payload.embeddings(body, route, made.target, purpose),
            relay=lambda made, metered, response: self.relay.answer(
                request, response, made.target, metered, self._headers(request, made)
            ),
            turn=self._turn(identity),
            pause=self._pause(identity),
        )
        return await self._forwarder.answer(request, (route.to,), ask)

    async def models(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/models`: the tenant's assistants."""
        identity, tenant = await self._tenant(request)
        names = sorted(tenant.assistants) if tenant is not None else []
        return _json({"object": "list", "data": [_model(name, identity.namespace) for name in names]})

    async def model(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/models/{model}`."""
        identity, tenant = await self._tenant(request)
        name = request.match_info["model"]
        if tenant is None or name not in tenant.assistants:
            raise errors.model_not_found(name, identity.namespace)
        return _json(_model(name, identity.namespace))

    async def providers(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/providers`: what the calling tenant may name in its resources."""
        identity, tenant = await self._tenant(request)
        if tenant is None:
            raise _no_policy(identity.namespace)
        return _json({"data": await offers(tenant, self._targets(), self._prober)})

    async def usage(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/usage`: what the calling tenant used; by its key, so not what a former namespace of its name did."""
        identity, tenant = await self._tenant(request)
        if tenant is None:
            raise _no_policy(identity.namespace)
        limits = tenant.terms.limits
        query = parse_query(request.query.items(), limits.zone, datetime.now(UTC))
        if self._reports is None:
            raise unavailable()
        return _json(await self._reports.report(limits.tenant, tenant.terms.currency, query))

    # --- the operator's side -----------------------------------------------------------------------------------

    async def probe(self, request: web.Request) -> web.StreamResponse:
        """`GET /internal/v1/tenants/{namespace}/probe`."""
        await self._require_operator(request)
        namespace = request.match_info["namespace"]
        tenant = self._policies.get(namespace)
        if tenant is None:
            raise _no_policy(namespace)
        probe, usage = await asyncio.gather(
            self._prober.probe(tenant), self._limiter.usage(tenant.terms, tenant.levels)
        )
        probe = msgspec.structs.replace(probe, usage=usage)
        return web.Response(body=contracts.encode(probe), content_type="application/json")

    def _turn(self, identity: Identity) -> Pause:
        """Return what waits for a tenant's turn."""
        return partial(self._turns.take, identity.namespace)

    def _pause(self, identity: Identity) -> Pause:
        """Return what comes between two pieces of work on a large request of a tenant."""
        return partial(self._pieces.take, identity.namespace)

    async def _read(self, request: web.Request, identity: Identity) -> bytes | bytearray:
        largest, pause = self._settings.max_request_bytes, self._pause(identity)
        return await intake.read(request, self.memory, identity.namespace, largest, pause)

    async def _next(self, request: web.Request, identity: Identity) -> bytes | bytearray:
        """Return the body once it is this tenant's turn."""
        body = await self._read(request, identity)  # room for it comes first: those that wait hold theirs
        await self._turns.take(identity.namespace)
        if len(body) > LARGEST_DECODED:  # to take it apart is work on all of it
            await self._pause(identity)()
        return body

    async def probes(self, request: web.Request) -> web.StreamResponse:
        """`POST /internal/v1/probes`: what is new of many tenants."""
        identity = await self._require_operator(request)
        try:
            asked = msgspec.json.decode(await self._read(request, identity), type=contracts.ProbesQuestion)
        except msgspec.MsgspecError:
            raise errors.invalid_request("The request for probes is not valid.") from None
        answer = await self._changes.since(asked.known)
        return web.Response(body=contracts.encode(answer), content_type="application/json")

    async def _require_operator(self, request: web.Request) -> Identity:
        identity = await self._identity(request)
        if (identity.namespace, identity.service_account) != (self._settings.namespace, OPERATOR):
            raise errors.forbidden("service_account_not_allowed", "Only the platform's operator may ask for probes.")
        require(identity, self._policies.operator_uid)
        return identity

    # --- small things ------------------------------------------------------------------------------------------

    def _headers(self, request: web.Request, made: Attempt) -> dict[str, str]:
        headers = {
            **made.headers,
            "x-request-id": request[REQUEST_ID],
            "x-assistant-model": header_text(made.to.label),
            "Server": SERVER,
        }
        if self.draining:
            headers["Connection"] = "close"
        return headers


@lru_cache(maxsize=1000)
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    requests = metrics.HTTP_REQUESTS.labels("gateway", method, route, str(status))
    return requests, metrics.HTTP_DURATION.labels("gateway", route)


def header_text(text: str) -> str:
    """Return `text` as a header can carry it: a model's name may hold anything."""
    return text.encode("ascii", "replace").decode() if text.isprintable() else "?"


def _no_policy(namespace: str) -> GatewayError:
    return GatewayError(404, "policy_not_found", f"No policy of namespace {namespace} is loaded.")


def _answer(error: GatewayError) -> web.Response:
    headers = {name: header_text(value) for name, value in error.headers.items()}
    return web.Response(status=error.status, body=error.body(), content_type="application/json", headers=headers)


def _from_http(error: web.HTTPException) -> GatewayError:
    if error.status == 413:
        return GatewayError(413, "request_too_large", "The body is larger than the gateway takes.")
    if error.status == 404:
        return GatewayError(404, "not_found", "There is nothing at this address.")
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return GatewayError(error.status, "http_error", error.reason, headers=headers)


def _json(document: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


def _model(name: str, namespace: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": namespace}


def create_app(settings: Settings, clients: Clients) -> Gateway:
    """Return the gateway; nothing runs until its application is served."""
    return Gateway(settings, clients)
