"""Complete the OpenAPI description with what no handler's signature says: errors, who needs no key, limits of values.

One place, because one place makes the errors (`errors.py`): a client that was generated from the description meets no
answer that it does not know. `tests/integration/clients` holds the description against the running API.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litestar.connection import Request
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin

from assistant_api.asgi import JSON
from assistant_api.errors import PROBLEM_JSON, is_openai

Json = dict[str, Any]
_METHODS = ("get", "post", "put", "patch", "delete")
_SAID = {
    400: "A member of the request is wrong; `field`, or `param`, names it.",
    401: "The API key, access token, refresh token or password is missing or not right.",
    403: "The caller's role does not allow it; or a budget applies, and the price of the model is unknown.",
    404: "There is nothing of this name.",
    408: "The body did not arrive in time.",
    409: "A limit of what is kept is reached, the address is taken, or something else stands against it.",
    413: "The body is too large, or holds too much.",
    415: "The body is of another type than it has to be.",
    429: "A limit is reached; `Retry-After` says when to come back.",
    500: "Something went wrong here; name the request id when you ask for help.",
    502: "The model's provider failed.",
    503: "Something that is needed is away at the moment; `Retry-After` says when to come back.",
    504: "The model's provider did not answer in time.",
}
_ALWAYS = (400, 401, 500, 503)
_BODY = (408, 413, 415)
_MODEL = (403, 429, 502, 504)  # whatever asks the gateway
_PEOPLE = ("/api/v1/auth/", "/api/v1/users", "/api/v1/invitations", "/api/v1/audit")
_UNAUTHENTICATED = frozenset(f"/api/v1/auth/{name}" for name in ("login", "refresh", "register", "jwks"))
# By the end of the path, beside what is said of every path.
_FURTHER: dict[str, tuple[int, ...]] = {
    "/login": (429,),
    "/register": (403, 409, 429),
    "/password": (429,),
    "/deletion": (409, 429),
    "/users/{user}": (409,),
}
_SEQUENCE_CURSOR: Json = {"type": "string", "pattern": "^[A-Za-f][A-Za-z0-9_-]{10}$"}
# What a handler checks itself, to say in words what is wrong.
_PARAMETERS: dict[tuple[str, str], Json] = {
    ("/documents", "limit"): {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    ("/documents", "cursor"): _SEQUENCE_CURSOR,
    ("/{response}", "stream"): {"const": False, "default": False},
    ("/input_items", "limit"): {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    ("/input_items", "order"): {"enum": ["asc", "desc"], "default": "desc"},
    ("/conversations", "limit"): {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    ("/conversations", "cursor"): {"type": "string", "pattern": "^[A-Za-z0-9_-]{34}$"},
    ("/messages", "limit"): {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    ("/messages", "cursor"): {"type": "string", "format": "uuid"},
    ("/export", "format"): {"enum": ["json", "markdown"], "default": "json"},
    ("/conversations", "q"): {"type": "string", "maxLength": 200, "pattern": r"^[^\x00]*$"},
    ("/users", "limit"): {"type": "integer", "minimum": 1, "maximum": 100, "default": 50},
    ("/audit", "limit"): {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    ("/audit", "cursor"): _SEQUENCE_CURSOR,
    ("/audit", "since"): {"type": "string", "format": "date-time"},
    ("/audit", "until"): {"type": "string", "format": "date-time"},
}
# What an assistant's answer comes of.
_ANSWERS = ("/messages", "/edit", "/regenerate")
_TEXT: Json = {"type": "string"}
_NULLABLE: Json = {"type": ["string", "null"]}
_SCHEMAS: Json = {
    "Problem": {
        "type": "object",
        "title": "Problem",
        "description": "RFC 9457; `code` is stable, sentences are in the caller's language.",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            **dict.fromkeys(("title", "detail", "code", "request_id", "field"), _TEXT),
            "type": {"type": "string", "format": "uri"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
        },
    },
    "OpenAIError": {
        "type": "object",
        "title": "OpenAIError",
        "description": "OpenAI's envelope.",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type"],
                "properties": {
                    "message": _TEXT,
                    "type": _NULLABLE,
                    "param": _NULLABLE,
                    "code": {"type": ["string", "integer", "null"]},
                },
            }
        },
    },
}


class CompleteJson(JsonRenderPlugin):
    """The description as JSON."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: Json) -> bytes:
        """See `JsonRenderPlugin`."""
        return super().render(request, complete(openapi_schema))


class CompleteYaml(YamlRenderPlugin):
    """The description as YAML."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: Json) -> bytes:
        """See `YamlRenderPlugin`."""
        return super().render(request, complete(openapi_schema))


def complete(description: Json) -> Json:
    """Return the framework's description with everything that it lacks; the one that is given stays as it is."""
    paths = {
        path: {method: _operation(path, method, operation) for method, operation in item.items()}
        for path, item in description["paths"].items()
    }
    components = description.get("components", {})
    schemas = {**components.get("schemas", {}), **_SCHEMAS}
    return {**description, "paths": paths, "components": {**components, "schemas": schemas}}


def _operation(path: str, method: str, operation: Any) -> Any:
    if method not in _METHODS:
        return operation
    # The framework's own 400 is of another shape than ours.
    responses = {status: found for status, found in operation["responses"].items() if status != "400"}
    if _is_open(path):
        return {**operation, "security": [], "responses": {**responses, **_health(path, responses)}}
    kept = {**{str(status): _error(path, status) for status in _statuses(path, method, operation)}, **responses}
    described = {**operation, "responses": dict(sorted(kept.items()))}
    if parameters := operation.get("parameters"):
        described["parameters"] = [_parameter(path, parameter) for parameter in parameters]
    if path in _UNAUTHENTICATED:
        described["security"] = []
    return described


def _parameter(path: str, parameter: Json) -> Json:
    known = _PARAMETERS.get((path[path.rfind("/") :], parameter["name"]))
    return {**parameter, "schema": known} if known else parameter


def _statuses(path: str, method: str, operation: Json) -> Iterator[int]:
    asks_gateway = path.endswith(("/chat/completions", "/embeddings", "/responses", "/search", "/usage", "/providers"))
    asks_gateway = asks_gateway or (method == "post" and path.endswith(_ANSWERS))
    yield from _ALWAYS
    if "{" in path or path.endswith(("/chat/completions", "/embeddings", "/responses", "/conversations")):
        yield 404
    if "requestBody" in operation:
        yield from _BODY
    if method == "post" and path.endswith(("/documents", "/conversations", *_ANSWERS)):
        yield 409
    if path.startswith(_PEOPLE) or (method != "get" and "/documents" in path):
        yield 403
    yield from _FURTHER.get(
        path.removeprefix("/api/v1/auth").removeprefix("/api/v1/users/me").removeprefix("/api/v1"), ()
    )
    if asks_gateway:
        yield from _MODEL


def _error(path: str, status: int) -> Json:
    media_type, name = (JSON, "OpenAIError") if is_openai(path) else (PROBLEM_JSON, "Problem")
    response: Json = {
        "description": _SAID[status],
        "content": {media_type: {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }
    if status == 401:
        response["headers"] = {"www-authenticate": {"schema": {"const": "Bearer"}, "required": True}}
    return response


def _is_open(path: str) -> bool:
    return not path.startswith(("/v1", "/api"))


def _health(path: str, responses: Json) -> Json:
    """Return the further answers of a health path: 503 looks as 200 does."""
    if path == "/livez":
        return {}
    away = {**responses["200"], "description": "Not healthy, or not ready."}
    return {"503": away, **({"404": _error(path, 404)} if "{" in path else {})}
