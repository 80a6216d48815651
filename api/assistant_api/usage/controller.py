"""`/v1/usage` and `/api/v1/usage`: one answer, errors in the envelope of the path."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from litestar import Controller, Request, Response, get
from litestar.datastructures import State
from litestar.di import NamedDependency

from assistant_api.auth.roles import ADMIN, needs
from assistant_api.clients import Clients
from assistant_api.errors import invalid_field
from assistant_api.usage import service
from assistant_api.usage.schemas import MAX_ROWS, UsageOperation

FORMAT = "format"


class UsageController(Controller):
    """Requests, tokens and money of the whole tenant."""

    path = "/usage"
    tags = ["Usage"]
    guards = [needs(ADMIN)]

    @get("/", summary="What was used, and what it cost", operation_class=UsageOperation)
    async def usage(self, request: Request[Any, Any, State], clients: NamedDependency[Clients]) -> Response[bytes]:
        """Return sums by day, assistant, user, model, provider, operation or purpose, as JSON or CSV."""
        # In the caller's order, which the framework's own reading loses; what is no text is the gateway's to refuse.
        parameters = parse_qsl(request.scope["query_string"].decode(errors="replace"), keep_blank_values=True)
        as_csv = _as_csv([value for name, value in parameters if name == FORMAT], request.headers.get("accept"))
        asked = [(name, value) for name, value in parameters if name != FORMAT]
        if as_csv and all(name != "limit" for name, _ in asked):
            asked.append(("limit", str(MAX_ROWS)))  # who wants a table wants all of it
        content = await service.ask(clients.gateway, asked)
        if not as_csv:
            return Response(content, media_type="application/json", headers={"vary": "Accept"})
        report = service.read(content)
        headers = {
            "content-disposition": 'attachment; filename="usage.csv"',
            "vary": "Accept",
            "x-usage-as-of": report.as_of,
            "x-usage-pending-requests": service.pending(report),
            **({"x-next-cursor": report.next_cursor} if report.next_cursor else {}),
        }
        return Response(service.table(report).encode(), media_type="text/csv", headers=headers)


def _as_csv(formats: list[str], accept: str | None) -> bool:
    if not formats:
        return service.prefers_csv(accept)
    if len(formats) > 1:
        raise invalid_field(FORMAT, "repeated")
    if formats[0] not in {"json", "csv"}:
        raise invalid_field(FORMAT, "choices", choices="json, csv")
    return formats[0] == "csv"
