"""Build the application: routes, dependencies, errors, start and stop. Nothing is built at import.

Handlers take everything by Litestar's dependency injection, under the names of `services` in `create_app`. Guards and
exception handlers, into which Litestar injects nothing, find the same objects in `app.state`.

`POST /v1/chat/completions` goes around Litestar: `RequestMiddleware` hands it to `chat.endpoint.Chat` itself, because
Litestar's routing, signature model and response take more processor time than the whole relay of a short answer
(decision 21). Litestar knows the route all the same, for OpenAPI, `OPTIONS` and every other spelling of the path, and
ends in the same `Chat`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.routes import HTTPRoute

from assistant_api.assistants.controller import ModelController
from assistant_api.audit.controller import AuditController
from assistant_api.auth.accounts import Accounts, Keys
from assistant_api.auth.browser import BrowserController
from assistant_api.auth.controller import AuthController
from assistant_api.auth.service import require_identity
from assistant_api.body import BodyCapacity
from assistant_api.chat.controller import ChatController
from assistant_api.chat.endpoint import PATH, Chat
from assistant_api.chat.service import Retrieve
from assistant_api.clients import Clients
from assistant_api.conversations.controller import ConversationController
from assistant_api.conversations.message_controller import MessageController
from assistant_api.conversations.turns import Turns
from assistant_api.description import CompleteJson, CompleteYaml
from assistant_api.embeddings.controller import EmbeddingsController
from assistant_api.errors import OPENAI_PREFIX, respond
from assistant_api.health.controller import HealthController
from assistant_api.health.service import Health
from assistant_api.i18n import Catalogs
from assistant_api.knowledge.controller import KnowledgeController
from assistant_api.knowledge.retrieval import retrieve as retrieve_passages
from assistant_api.knowledge.upload import Uploads
from assistant_api.middleware import RequestMiddleware
from assistant_api.page.controller import LocaleController, PageController
from assistant_api.page.files import Files
from assistant_api.providers.controller import ProviderController
from assistant_api.responses.controller import ResponseController
from assistant_api.tenant_config import ActiveConfig, TenantConfigHolder
from assistant_api.usage.controller import UsageController
from assistant_api.users.controller import (
    InvitationController,
    ProfileController,
    RegistrationController,
    UserController,
)
from assistant_observability import logs

VERSION = "0.1.0"
REST_PREFIX = "/api/v1"
MAX_BODY = 1 << 20  # of routes that do not say otherwise

_log = logs.logger(__name__)


def create_app(
    config: TenantConfigHolder,
    clients: Clients,
    catalogs: Catalogs,
    retrieve: Retrieve = retrieve_passages,
    keys: Keys | None = None,
) -> RequestMiddleware:
    """Return the ASGI application. It starts and stops the watch of `config` and closes `clients` at its end.

    Without `keys` nobody can sign in.
    """
    health = Health(clients, config)
    accounts = Accounts(config, clients.database, keys or Keys(), catalogs.languages)
    bodies = BodyCapacity()
    chat = Chat(config, clients, catalogs, retrieve, accounts, bodies)
    turns = Turns(clients.database)
    services: dict[str, object] = {
        "clients": clients,
        "catalogs": catalogs,
        "health": health,
        "accounts": accounts,
        "chat": chat,
        "bodies": bodies,
        "turns": turns,
        "retrieve": retrieve,
        "uploads": Uploads(),
        "page": Files.load(),
    }
    app = Litestar(
        route_handlers=[
            HealthController,
            PageController,
            Router(
                OPENAI_PREFIX,
                route_handlers=[
                    *(ModelController, ChatController, ResponseController),
                    *(EmbeddingsController, UsageController),
                ],
                guards=[require_identity],
            ),
            Router(
                REST_PREFIX,
                route_handlers=[
                    *(ConversationController, MessageController),
                    *(KnowledgeController, ProviderController, UsageController),
                    *(ProfileController, UserController, InvitationController, AuditController),
                ],
                guards=[require_identity],
            ),
            Router(
                REST_PREFIX,
                route_handlers=[AuthController, RegistrationController, BrowserController, LocaleController],
            ),
        ],
        dependencies={
            "active_config": Provide(lambda: config.current, sync_to_thread=False),
            **{name: _provide(value) for name, value in services.items()},
        },
        signature_types=[ActiveConfig, *(type(value) for value in services.values())],
        state=State({**services, "config": config}),
        exception_handlers={Exception: respond},
        lifespan=[_running],
        openapi_config=_openapi(),
        logging_config=None,
        request_max_body_size=MAX_BODY,
    )
    # The framework's own answer to OPTIONS names the methods of one handler only.
    allowed = {
        route.path_format: ", ".join(sorted(route.methods)) for route in app.routes if isinstance(route, HTTPRoute)
    }
    return RequestMiddleware(app, config, catalogs, health.drain, {("POST", PATH): chat}, allowed)


def _provide(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)


@asynccontextmanager
async def _running(app: Litestar) -> AsyncIterator[None]:
    config: TenantConfigHolder = app.state.config
    clients: Clients = app.state.clients
    health: Health = app.state.health
    turns: Turns = app.state.turns
    warming: set[asyncio.Task[None]] = set()

    def warm(active_config: ActiveConfig) -> None:
        # The first question must not wait for the vector store's client to be imported.
        if active_config.knowledge_bases and not warming:
            warming.add(asyncio.create_task(_warm(clients, health)))

    config.subscribe(warm)
    await config.start()
    if config.generation:
        warm(config.current)
    await health.start()
    try:
        yield
    finally:
        for task in warming:
            task.cancel()
        await asyncio.gather(*warming, return_exceptions=True)
        await turns.close()
        await health.stop()
        await config.stop()
        app.state.accounts.close()
        await clients.close()


async def _warm(clients: Clients, health: Health) -> None:
    await health.started.wait()  # importing takes the processor that the start needs
    try:
        await clients.weaviate.client()
    except Exception as error:  # noqa: BLE001  the first question tries again
        _log.info("vector store not connected yet", reason=type(error).__name__)


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Assistant Platform: tenant API",
        version=VERSION,
        description="OpenAI-compatible chat under /v1, conversations, knowledge and usage under /api/v1.",
        path="/schema",
        render_plugins=[CompleteJson(path=["/", "/openapi.json"]), CompleteYaml()],
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http", scheme="bearer", description="An API key (ak_…), or the access token of a sign-in."
                )
            }
        ),
        security=[{"bearer": []}],
    )
