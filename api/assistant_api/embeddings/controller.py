"""The route of `POST /v1/embeddings`."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from assistant_api.auth.schemas import Identity
from assistant_api.body import BodyCapacity, read_json_body
from assistant_api.clients import Clients
from assistant_api.embeddings import service
from assistant_api.embeddings.openapi import EmbeddingsOperation
from assistant_api.tenant_config import ActiveConfig

MAX_BODY = 1 << 20


class EmbeddingsController(Controller):
    """Embeddings in OpenAI's wire format."""

    path = "/embeddings"
    tags = ["OpenAI"]

    @post(
        "/",
        status_code=200,
        summary="Embed texts",
        operation_class=EmbeddingsOperation,
        media_type="application/json",
        request_max_body_size=MAX_BODY,
    )
    async def embed(
        self,
        request: Request[Identity, Any, State],
        active_config: NamedDependency[ActiveConfig],
        clients: NamedDependency[Clients],
    ) -> ASGIApp:
        """Return a vector for each text, by the embedding model of the knowledge base that `model` names."""
        bodies: BodyCapacity = request.app.state.bodies
        async with bodies.room(request.headers, MAX_BODY):
            body = await read_json_body(request.headers, request.receive, MAX_BODY)
            asked = service.understand(body, active_config)
            return await service.ask(asked, request.auth, clients, request.scope, request.receive)
