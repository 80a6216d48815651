"""JSON bodies of REST routes: read within a size and a time, and described in OpenAPI by the same type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema

from assistant_api.asgi import JSON
from assistant_api.body import read_json_as

MAX_BODY_BYTES = 16 * 1024
Model = TypeVar("Model", bound=msgspec.Struct)


async def read(request: Request[Any, Any, State], model: type[Model]) -> Model:
    """Return the body; ApiError that names what is wrong with it."""
    decode = msgspec.json.Decoder(model).decode
    return await read_json_as(decode, request.headers, request.receive, MAX_BODY_BYTES)


def takes(model: type[msgspec.Struct]) -> type[Operation]:
    """Return the class of an operation whose body is `model`, a struct without structs in it."""

    @dataclass
    class Takes(Operation):
        def __post_init__(self) -> None:
            schema = msgspec.json.schema(model)["$defs"][model.__name__]
            # The framework writes what is no object of its own as it is.
            media = OpenAPIMediaType(schema=cast("Schema", schema))
            self.request_body = RequestBody(required=True, content={JSON: media})

    return Takes
