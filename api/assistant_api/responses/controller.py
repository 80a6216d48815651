"""`/v1/responses`."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.types import ASGIApp

from assistant_api import errors
from assistant_api.asgi import JSON
from assistant_api.auth.schemas import Identity
from assistant_api.body import BodyCapacity, read_json_body
from assistant_api.clients import Clients
from assistant_api.database.unavailable import DATABASE_AWAY
from assistant_api.errors import ApiError, invalid_field
from assistant_api.gateway import on_behalf_of
from assistant_api.i18n import Catalogs
from assistant_api.responses import service, store
from assistant_api.responses.openapi import CreateOperation, DeleteOperation, GetOperation, ItemsOperation
from assistant_api.tenant_config import ActiveConfig

MAX_BODY = 1 << 20

ApiRequest = Request[Identity, Any, State]


class ResponseController(Controller):
    """OpenAI's Responses API."""

    path = "/responses"
    tags = ["OpenAI"]
    exception_handlers = DATABASE_AWAY

    @post(
        "/",
        status_code=200,
        summary="Have an assistant respond",
        operation_class=CreateOperation,
        media_type=JSON,
        request_max_body_size=MAX_BODY,
    )
    async def create(
        self, request: ApiRequest, active_config: NamedDependency[ActiveConfig], clients: NamedDependency[Clients]
    ) -> ASGIApp:
        """GatewayResponse, streamed or whole, with the passages that the answer rests on as annotations.

        The response is stored for its owner, unless `store` is false, and can then be continued.
        """
        state = request.app.state
        bodies: BodyCapacity = state.bodies
        async with bodies.room(request.headers, MAX_BODY):
            body = await read_json_body(request.headers, request.receive, MAX_BODY)
            wanted = service.understand(body)
            identity = request.auth
            if wanted.end_user and not identity.is_person:
                on_behalf_of(wanted.end_user)
            work = service.Work(wanted, identity.user, active_config, clients, _failure(request))
            parsed_chat = await work.chat()
            request.scope["state"]["assistant"] = parsed_chat.assistant.name
            return await service.answer(work, parsed_chat, state.retrieve, request.scope, request.receive)

    @get("/{response:str}", summary="Get a stored response", operation_class=GetOperation)
    async def get_response(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        response: FromPath[str],
        stream: FromQuery[bool] = False,
    ) -> Response[bytes]:
        """Return one of the caller's own responses, whole: `stream` may only be false."""
        found = await store.get(clients.database, request.auth.user, response)
        if stream:
            raise invalid_field("stream", "not_supported")
        return Response(found, media_type=JSON)

    @get("/{response:str}/input_items", summary="List the input of a response", operation_class=ItemsOperation)
    async def list_input_items(
        self,
        request: ApiRequest,
        clients: NamedDependency[Clients],
        response: FromPath[str],
        limit: FromQuery[int] = 20,
        order: FromQuery[str] = "desc",
        after: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """Return the items that came with the request of a response, not those of responses before it."""
        page = await store.input_items(
            clients.database, request.auth.user, response, limit=limit, order=order, after=after
        )
        return Response(page, media_type=JSON)

    @delete("/{response:str}", status_code=200, summary="Delete a response", operation_class=DeleteOperation)
    async def delete_response(
        self, request: ApiRequest, clients: NamedDependency[Clients], response: FromPath[str]
    ) -> Response[dict[str, Any]]:
        """Delete one of the caller's own responses at once; those after it can no longer be continued."""
        await store.delete(clients.database, request.auth.user, response)
        return Response({"id": response, "object": "response", "deleted": True})


def _failure(request: ApiRequest) -> str:
    catalogs: Catalogs = request.app.state.catalogs
    language = catalogs.negotiate(request.headers.get("accept-language"))
    return errors.detail(ApiError(errors.STREAM_INTERRUPTED), catalogs, language, errors.request_id(request.scope))
