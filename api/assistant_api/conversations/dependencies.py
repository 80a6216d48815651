"""What handlers of conversations take by dependency injection, apart from the application's own objects."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath

from assistant_api.asgi import origin_of
from assistant_api.auth.schemas import Identity
from assistant_api.clients import Clients
from assistant_api.conversations.threads import Shown, Thread
from assistant_api.i18n import Catalogs

ApiRequest = Request[Identity, Any, State]


def thread(request: ApiRequest, clients: NamedDependency[Clients], conversation: FromPath[str]) -> Thread:
    """Return the conversation that the path names, as one of the caller's."""
    return Thread(request.auth.user, clients.database, conversation)


def shown(request: ApiRequest, catalogs: NamedDependency[Catalogs]) -> Shown:
    """Return how messages are shown to the caller: in its language, with links to the host that it called."""
    return Shown(catalogs, catalogs.negotiate(request.headers.get("accept-language")), origin_of(request.scope))


DEPENDENCIES = {"thread": Provide(thread, sync_to_thread=False), "shown": Provide(shown, sync_to_thread=False)}
