"""Responses that are kept for their owners, so that they can be read, continued and deleted."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import msgspec

from assistant_api import errors
from assistant_api.clients import Database
from assistant_api.database.errors import DATABASE_ERRORS
from assistant_api.errors import ApiError, invalid_field
from assistant_api.parameters import check_limit
from assistant_api.responses import repository
from assistant_api.responses.repository import Stored
from assistant_observability import logs

DAYS = 30
MAX_STORED = 10_000  # of one owner
MAX_CHAIN = 200  # responses that follow each other
MAX_CHAIN_BYTES = 1 << 20
PREFIX = "resp_"

_log = logs.logger(__name__)


class _Output(msgspec.Struct):
    output: list[msgspec.Raw]


_output = msgspec.json.Decoder(_Output).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_objects = msgspec.json.Decoder(list[dict[str, Any]]).decode


async def earlier(database: Database, owner: str, previous: str) -> list[msgspec.Raw]:
    """Return all items of the response `previous` and of those before it; ApiError when one is not there."""
    missing = ApiError(errors.PREVIOUS_RESPONSE_NOT_FOUND, field="previous_response_id")
    identity = _identity(previous)
    if identity is None:
        raise missing
    async with database.reading() as connection:
        found = await repository.chain(connection, owner, identity, MAX_CHAIN_BYTES, MAX_CHAIN)
    if found is None:
        raise missing
    if not found.whole:
        raise invalid_field("previous_response_id", "chain", responses=str(MAX_CHAIN), bytes=str(MAX_CHAIN_BYTES))
    items: list[msgspec.Raw] = []
    for stored in found.responses:
        items += _items(stored.input.encode())
        items += _output(stored.response.encode()).output
    return items


async def save(database: Database, owner: str, response: dict[str, Any], items: list[msgspec.Raw]) -> bool:
    """Keep a response that is complete; return whether it could be kept, because it is paid for in any case."""
    identity = UUID(response["id"].removeprefix(PREFIX))
    named = [_with_id(raw) for raw in items]
    stored = Stored(
        _identity(response["previous_response_id"] or ""),
        msgspec.json.encode(named).decode(),
        msgspec.json.encode(response).decode(),
    )
    try:
        async with database.transaction() as connection:
            await repository.insert(connection, owner, identity, stored, days=DAYS, most=MAX_STORED)
    except DATABASE_ERRORS as error:
        _log.warning("response not stored", response=response["id"], reason=type(error).__name__)
        return False
    return True


async def get(database: Database, owner: str, response: str) -> bytes:
    """Return a response as JSON."""
    return (await _find(database, owner, response)).response.encode()


async def input_items(
    database: Database, owner: str, response: str, *, limit: int, order: str, after: str | None
) -> bytes:
    """Return a page of the items that came with a response, as JSON, the newest first unless `order` is `asc`."""
    check_limit(limit)
    if order not in {"asc", "desc"}:
        raise invalid_field("order", "choices", choices="asc, desc")
    items = _objects((await _find(database, owner, response)).input.encode())
    if order == "desc":
        items.reverse()
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise invalid_field("after", "value")
        items = items[places[0] + 1 :]
    page = items[:limit]
    return msgspec.json.encode(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else "",
            "last_id": page[-1]["id"] if page else "",
            "has_more": len(items) > limit,
        }
    )


async def delete(database: Database, owner: str, response: str) -> None:
    """Delete a response at once; those that follow it can be read, but no longer be continued."""
    identity = _identity(response)
    if identity is not None:
        async with database.transaction() as connection:
            if await repository.delete(connection, owner, identity):
                return
    raise ApiError(errors.RESPONSE_NOT_FOUND)


async def _find(database: Database, owner: str, response: str) -> Stored:
    identity = _identity(response)
    if identity is not None:
        async with database.reading() as connection:
            if (found := await repository.get(connection, owner, identity)) is not None:
                return found
    raise ApiError(errors.RESPONSE_NOT_FOUND)


def _identity(response: str) -> UUID | None:
    name = response.removeprefix(PREFIX)
    try:
        identity = UUID(name)
    except ValueError:
        return None
    return identity if response == PREFIX + identity.hex else None


def _with_id(raw: msgspec.Raw) -> dict[str, Any]:
    """Return an item of the input as it is listed: with an id, its type, and its content in parts."""
    item: dict[str, Any] = msgspec.json.decode(raw)
    kind = item.setdefault("type", "message") or "message"
    item["type"] = kind
    prefix = {"message": "msg", "function_call": "fc"}.get(kind, "fco")
    item["id"] = item.get("id") or f"{prefix}_{uuid4().hex}"
    item["status"] = item.get("status") or "completed"
    if kind == "message" and isinstance(item.get("content"), str):
        part = "output_text" if item["role"] == "assistant" else "input_text"
        item["content"] = [{"type": part, "text": item["content"]}]
        if part == "output_text":
            item["content"][0]["annotations"] = []
    return item
