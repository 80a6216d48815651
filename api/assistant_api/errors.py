"""Every error a caller can get: its code, its status, and the one place that turns it into a response.

Under `/v1` the body is OpenAI's envelope, so that OpenAI clients raise their own classes; elsewhere it is RFC 9457
problem+json. Codes are stable and never translated; sentences come from `locales/` in the caller's language.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException, MethodNotAllowedException, ValidationException
from litestar.types import Scope

from assistant_api.asgi import JSON, BufferedResponse, headers_of
from assistant_api.disconnect import ClientDisconnectedError
from assistant_api.gateway import GatewayError, GatewayUnreachableError
from assistant_api.i18n import Catalogs
from assistant_api.tenant_config import NotConfiguredError
from assistant_observability import logs

PROBLEM_JSON = "application/problem+json"
OPENAI_PREFIX = "/v1"
CLIENT_DISCONNECTED_CODE = "client_disconnected"
CLIENT_CLOSED_REQUEST = 499  # never sent; the access metric counts it, as nginx does
_BOUND = re.compile(r"Expected `(?P<type>[^`]+)` (?P<length>of length )?(?P<bound>[<>]?=? ?[\d.]+)")
# Members whose values are named when another is given; msgspec names the wrong one only.
_CHOICES = {"role": "system, developer, user, assistant, tool, function"}
_TYPE_PREFIX = "urn:assistantplatform:problem:"

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of error; its sentences are `errors.<code>.title` and `errors.<code>.detail`.

    Each kind registers itself in `KINDS` under its code.
    """

    code: str
    status: int

    def __post_init__(self) -> None:
        if KINDS.setdefault(self.code, self) is not self:
            raise ValueError(f"two kinds of errors have the code {self.code}")


KINDS: dict[str, Kind] = {}


# Any request.
INVALID_FIELD = Kind("invalid_field", 400)  # values: reason; `field` names it
INVALID_REQUEST = Kind("invalid_request", 400)
INVALID_API_KEY = Kind("invalid_api_key", 401)
FORBIDDEN = Kind("forbidden", 403)
NOT_FOUND = Kind("not_found", 404)
METHOD_NOT_ALLOWED = Kind("method_not_allowed", 405)
REQUEST_TIMEOUT = Kind("request_timeout", 408)
CONFLICT = Kind("conflict", 409)
REQUEST_TOO_LARGE = Kind("request_too_large", 413)  # values: limit (bytes)
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported_media_type", 415)  # values: reason
INTERNAL = Kind("internal_error", 500)  # values: request_id
NOT_READY = Kind("not_ready", 503)
SHUTTING_DOWN = Kind("shutting_down", 503)
SERVER_BUSY = Kind("server_busy", 503)

# Assistants and models.
MODEL_NOT_FOUND = Kind("model_not_found", 404)  # values: model
ASSISTANT_NOT_READY = Kind("assistant_not_ready", 503)  # values: model, reason
PROVIDER_UNREACHABLE = Kind("provider_unreachable", 502)
PROVIDER_TIMEOUT = Kind("provider_timeout", 504)
GATEWAY_REFUSED = Kind("gateway_refused", 502)
GATEWAY_UNREACHABLE = Kind("gateway_unreachable", 503)
STREAM_INTERRUPTED = Kind("stream_interrupted", 502)

# Conversations.
CONVERSATION_NOT_FOUND = Kind("conversation_not_found", 404)
MESSAGE_NOT_FOUND = Kind("message_not_found", 404)
CONVERSATION_FULL = Kind("conversation_full", 409)  # values: limit
ANSWER_UNDER_WAY = Kind("answer_under_way", 409)
IDEMPOTENCY_KEY_REUSED = Kind("idempotency_key_reused", 409)
TOO_MANY_CONVERSATIONS = Kind("too_many_conversations", 409)  # values: limit

# Stored responses.
RESPONSE_NOT_FOUND = Kind("response_not_found", 404)
PREVIOUS_RESPONSE_NOT_FOUND = Kind("previous_response_not_found", 400)

# Limits, as the gateway decides them.
RATE_LIMIT_EXCEEDED = Kind("rate_limit_exceeded", 429)
TOKENS_EXHAUSTED = Kind("tokens_exhausted", 429)  # values: reason
BUDGET_EXHAUSTED = Kind("budget_exhausted", 429)  # values: reason
PRICE_UNKNOWN = Kind("price_unknown", 403)
NOT_LIMITABLE = Kind("not_limitable", 400)  # values: cause
LIMITS_UNAVAILABLE = Kind("limits_unavailable", 503)
USAGE_UNAVAILABLE = Kind("usage_unavailable", 503)

# Knowledge.
KNOWLEDGE_BASE_NOT_FOUND = Kind("knowledge_base_not_found", 404)  # values: knowledge_base
DOCUMENT_NOT_FOUND = Kind("document_not_found", 404)
KNOWLEDGE_BASE_FULL = Kind("knowledge_base_full", 409)  # values: knowledge_base
DOCUMENT_TOO_LARGE = Kind("document_too_large", 413)  # values: limit (bytes)
KNOWLEDGE_UNAVAILABLE = Kind("knowledge_unavailable", 503)
STORAGE_UNAVAILABLE = Kind("storage_unavailable", 503)
TOO_MANY_UPLOADS = Kind("too_many_uploads", 503)
EMBEDDING_MISMATCH = Kind("embedding_mismatch", 502)

# People.
INVALID_TOKEN = Kind("invalid_token", 401)
INVALID_CREDENTIALS = Kind("invalid_credentials", 401)
INVALID_REFRESH_TOKEN = Kind("invalid_refresh_token", 401)
REFRESH_TOKEN_REUSED = Kind("refresh_token_reused", 401)
ROLE_REQUIRED = Kind("role_required", 403)  # values: role
PERSON_REQUIRED = Kind("person_required", 403)
CROSS_ORIGIN = Kind("cross_origin", 403)
REGISTRATION_CLOSED = Kind("registration_closed", 403)
INVITATION_INVALID = Kind("invitation_invalid", 403)
USER_NOT_FOUND = Kind("user_not_found", 404)
SESSION_NOT_FOUND = Kind("session_not_found", 404)
INVITATION_NOT_FOUND = Kind("invitation_not_found", 404)
EMAIL_TAKEN = Kind("email_taken", 409)
LAST_OWNER = Kind("last_owner", 409)
TOO_MANY_ATTEMPTS = Kind("too_many_attempts", 429)
SIGN_IN_UNAVAILABLE = Kind("sign_in_unavailable", 503)

_OPENAI_TYPES = {TOKENS_EXHAUSTED: "tokens", BUDGET_EXHAUSTED: "insufficient_quota"}  # as OpenAI's own 429s

LIMITS = {
    kind.code: kind
    for kind in (
        *(RATE_LIMIT_EXCEEDED, TOKENS_EXHAUSTED, BUDGET_EXHAUSTED),
        *(PRICE_UNKNOWN, NOT_LIMITABLE, LIMITS_UNAVAILABLE),
    )
}

_BY_STATUS = {
    400: INVALID_REQUEST,
    401: INVALID_API_KEY,
    403: FORBIDDEN,
    404: NOT_FOUND,
    405: METHOD_NOT_ALLOWED,
    408: REQUEST_TIMEOUT,
    409: CONFLICT,
    413: REQUEST_TOO_LARGE,
    415: UNSUPPORTED_MEDIA_TYPE,
    422: INVALID_REQUEST,
    503: NOT_READY,
}


class ApiError(Exception):
    """An error with its code; raise it anywhere below a handler.

    `field` names what is wrong in the request; `retry_after` (seconds) becomes the header; `values` fill the sentence.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        field: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        **values: object,
    ) -> None:
        super().__init__(kind.code)
        self.kind = kind
        self.field = field
        self.values = values
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(math.ceil(retry_after))


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a field is refused: the sentence `reasons.<name>`, with values; a value may be a `types.<name>` key."""

    name: str
    values: Mapping[str, str]


def invalid_field(field: str, reason: str, **values: str) -> ApiError:
    """Return the 400 that names `field`; `reason` is the last part of a `reasons.` key."""
    return ApiError(INVALID_FIELD, field=field, reason=Reason(reason, values))


def content_type_not(expected: str) -> ApiError:
    """Return the 415 for a body whose `Content-Type` is not the expected one."""
    return ApiError(UNSUPPORTED_MEDIA_TYPE, reason=Reason("content_type", {"expected": expected}))


def from_validation(error: Exception) -> ApiError:
    """Return the 400 for a body that msgspec refuses, with the field taken from msgspec's sentence."""
    if not isinstance(error, msgspec.ValidationError):
        return ApiError(INVALID_REQUEST, reason=Reason("malformed_json", {}))
    sentence, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if sentence.startswith("Invalid enum value") and (choices := _CHOICES.get(field.rpartition(".")[2])):
        return invalid_field(field, "choices", choices=choices)
    quoted = sentence.split("`")[1::2]
    for words, reason in (("missing required field", "missing"), ("unknown field", "unknown")):
        if words in sentence:
            return invalid_field(f"{field}.{quoted[0]}" if field else quoted[0], reason)
    return _of_value(field or "body", sentence, quoted)


def _of_value(field: str, sentence: str, quoted: list[str]) -> ApiError:
    if sentence.startswith("Expected `") and len(quoted) == 2:
        return invalid_field(field, "type", expected=_type_of(quoted[0]), actual=_type_of(quoted[1]))
    bounded = _BOUND.match(sentence)
    if bounded is None:
        return invalid_field(field, "value")
    if bounded["length"] and bounded["bound"] == ">= 1":
        return invalid_field(field, "empty")
    reason = "length" if bounded["length"] else "bound"
    return invalid_field(field, reason, expected=_type_of(bounded["type"]), bound=bounded["bound"])


def is_limit(error: GatewayError) -> bool:
    """Whether the gateway refused because of a limit, not because something is broken."""
    return error.code in LIMITS and LIMITS[error.code].status == error.status


def is_translated(error: GatewayError) -> bool:
    """Whether the gateway's error is to be told in our words; of the others only the provider knows more."""
    known = error.code in KINDS and error.status in {429, 502, 504}
    return error.status in {401, 403, 404} or known or is_limit(error)


def from_gateway(error: GatewayError | GatewayUnreachableError, model: str = "") -> ApiError:
    """Return what a caller is told when the gateway refuses or does not answer.

    The gateway's 401 and 403 are about this pod's token and its 404 about a policy that has not arrived yet: none of
    them is the caller's doing, so none is passed on as such.
    """
    if isinstance(error, GatewayUnreachableError):
        return ApiError(GATEWAY_UNREACHABLE, retry_after=2)
    if is_limit(error):
        return _of_limit(LIMITS[error.code], error)
    if error.status in {401, 403}:
        return ApiError(GATEWAY_REFUSED)
    if error.status == 404:
        return ApiError(ASSISTANT_NOT_READY, retry_after=2, model=model, reason=Reason("set_up", {}))
    if error.status == 429:
        return ApiError(RATE_LIMIT_EXCEEDED, retry_after=error.retry_after, headers=error.headers)
    kind = PROVIDER_TIMEOUT if error.status == 504 else PROVIDER_UNREACHABLE
    return ApiError(kind, retry_after=error.retry_after)


def _of_limit(kind: Kind, error: GatewayError) -> ApiError:
    """Say which limit it was, with its numbers: they are in the headers, for programs as for people."""
    values: dict[str, object] = {"cause": error.message[:300]}
    # Without a time to come back there is none: the call does not even fit into the whole limit.
    fits = "waits" if error.retry_after is not None else "never"
    if kind is TOKENS_EXHAUSTED:
        values["reason"] = Reason(
            f"tokens_{fits}", _said(error, "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens")
        )
    elif kind is BUDGET_EXHAUSTED:
        numbers = _said(error, "x-budget-limit", "x-budget-remaining")
        values["reason"] = Reason(f"budget_{fits}", {**numbers, "currency": error.headers.get("x-budget-currency", "")})
    return ApiError(kind, retry_after=error.retry_after, headers=error.headers, field=error.param, **values)


def _said(error: GatewayError, limit: str, remaining: str) -> dict[str, str]:
    return {"limit": error.headers.get(limit, "?"), "remaining": error.headers.get(remaining, "?")}


def respond(request: Request[Any, Any, State], error: Exception) -> Response[bytes]:
    """Turn any exception into the response of its kind; Litestar's handler of every exception."""
    answer = to_response(error, request.scope, request.app.state.catalogs)
    return Response(
        answer.content, status_code=answer.status, media_type=answer.media_type, headers=dict(answer.headers)
    )


def storage_unavailable(request: Request[Any, Any, State], error: Exception) -> Response[bytes]:
    """Tell the caller that a store is away, and the log which one; the handler of what the stores' clients raise."""
    _log.warning("store not available", reason=type(error).__name__)
    return respond(request, ApiError(STORAGE_UNAVAILABLE, retry_after=5))


def to_response(error: Exception, scope: Scope, catalogs: Catalogs) -> BufferedResponse:
    """Return what the caller is told of an exception."""
    if isinstance(error, ClientDisconnectedError):
        scope["state"]["code"] = CLIENT_DISCONNECTED_CODE
        return BufferedResponse(CLIENT_CLOSED_REQUEST, {}, b"")
    api_error = _as_api_error(error, scope)
    scope["state"]["code"] = api_error.kind.code
    language = catalogs.negotiate(headers_of(scope).get("accept-language"))
    openai = is_openai(scope["path"])
    content = (openai_envelope if openai else problem)(api_error, catalogs, language, request_id(scope))
    headers = {
        **api_error.headers,
        "content-language": language,
        "vary": "Accept-Language",
        "cache-control": "no-store",
    }
    if api_error.kind.status == 401:
        headers["www-authenticate"] = "Bearer"
    return BufferedResponse(api_error.kind.status, headers, content, JSON if openai else PROBLEM_JSON)


def is_openai(path: str) -> bool:
    """Whether the path speaks OpenAI's wire format."""
    return path == OPENAI_PREFIX or path.startswith(f"{OPENAI_PREFIX}/")


def request_id(scope: Scope) -> str:
    """Return the id of the request, which every answer carries in `x-request-id`."""
    return str(scope["state"].get("request_id", ""))


def openai_envelope(error: ApiError, catalogs: Catalogs, language: str, request_id: str) -> bytes:
    """Return the error in OpenAI's envelope."""
    return msgspec.json.encode(
        {
            "error": {
                "message": detail(error, catalogs, language, request_id),
                "type": _OPENAI_TYPES.get(error.kind) or _openai_type(error.kind.status),
                "param": error.field,
                "code": error.kind.code,
            }
        }
    )


def problem(error: ApiError, catalogs: Catalogs, language: str, request_id: str) -> bytes:
    """Return the error as RFC 9457 problem details; `code`, `field` and `request_id` are our members."""
    content: dict[str, object] = {
        "type": f"{_TYPE_PREFIX}{error.kind.code}",
        "title": catalogs.text(language, f"errors.{error.kind.code}.title"),
        "status": error.kind.status,
        "detail": detail(error, catalogs, language, request_id),
        "code": error.kind.code,
        "request_id": request_id,
    }
    if error.field is not None:
        content["field"] = error.field
    return msgspec.json.encode(content)


def detail(error: ApiError, catalogs: Catalogs, language: str, request_id: str) -> str:
    """Return the sentence of an error in `language`."""
    values: dict[str, object] = {"field": error.field or "", "request_id": request_id, **error.values}
    reason = values.get("reason")
    if isinstance(reason, Reason):
        words = {
            name: catalogs.text(language, value) if catalogs.has(value) else value
            for name, value in reason.values.items()
        }
        values["reason"] = catalogs.text(language, f"reasons.{reason.name}", words)
    else:
        values.setdefault("reason", catalogs.text(language, "reasons.value"))
    return catalogs.text(language, f"errors.{error.kind.code}.detail", values)


def _as_api_error(error: Exception, scope: Scope) -> ApiError:
    match error:
        case ApiError():
            return error
        case GatewayError() | GatewayUnreachableError():
            return from_gateway(error)
        case NotConfiguredError():
            return ApiError(NOT_READY, retry_after=1)
        case ValidationException(extra=[{"key": str(key)}, *_]):
            return invalid_field(key, "value")
        case HTTPException() if error.status_code in _BY_STATUS:
            return _of_litestar(error, scope)
    _log.error("request failed unexpectedly", request_id=request_id(scope), exc_info=error)
    return ApiError(INTERNAL)


def _of_litestar(error: HTTPException, scope: Scope) -> ApiError:
    kind = _BY_STATUS[error.status_code]
    if kind is REQUEST_TOO_LARGE:
        handler = scope.get("route_handler")
        return ApiError(kind, limit=getattr(handler, "request_max_body_size", None) or "")
    if kind is UNSUPPORTED_MEDIA_TYPE:
        return content_type_not(JSON)
    return ApiError(kind, headers=error.headers if isinstance(error, MethodNotAllowedException) else None)


def _openai_type(status: int) -> str:
    if status == 429:
        return "requests"
    return "server_error" if status >= 500 else "invalid_request_error"


def _type_of(name: str) -> str:
    # msgspec joins alternatives with " | "; the first says enough.
    return f"types.{name.split(' | ', maxsplit=1)[0]}"
