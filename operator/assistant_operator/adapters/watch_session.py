"""The HTTP session of the watches: it asks the API server for the metadata of objects, never for their content.

Metadata is enough to enqueue a tenant. Secrets, ConfigMaps and instructions are for tenants to write: many
large ones, read in whole by every operator that starts, would be more than its memory.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import kopf

_ACCEPT = "application/json;as={};g=meta.k8s.io;v=v1,application/json"


async def metadata_only(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Ask for metadata where objects are listed or watched; everything else, such as what kinds there are, as it is."""
    path = request.url.path.strip("/").split("/")
    # api/v1/<kind> or apis/<group>/<version>/<kind>, in all namespaces
    if request.method == "GET" and len(path) == (3 if path[0] == "api" else 4):
        watched = request.url.query.get("watch") == "true"
        request.headers["Accept"] = _ACCEPT.format("PartialObjectMetadata" + ("" if watched else "List"))
    return await handler(request)


class Response(aiohttp.ClientResponse):
    """A response whose empty list is a list: for metadata the API server sends null then, on which kopf fails."""

    async def json(self, **options: Any) -> Any:
        """Return the decoded body."""
        body = await super().json(**options)
        if isinstance(body, dict) and body.get("kind") == "PartialObjectMetadataList" and body.get("items") is None:
            body["items"] = []
        return body


def session(connection: kopf.ConnectionInfo) -> kopf.AiohttpSession:
    """Return kopf's way to the API server with such a session; call it from kopf's own loop."""
    return kopf.AiohttpSession(
        server=connection.server,
        default_namespace=connection.default_namespace,
        priority=connection.priority,
        expiration=connection.expiration,
        aiohttp_session=aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=connection.as_ssl_context()),
            headers=connection.as_http_headers(),
            proxy=connection.proxy_url,
            trust_env=connection.trust_env,
            response_class=Response,
            middlewares=(metadata_only,),
        ),
    )
