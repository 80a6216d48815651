"""Errors as OpenAI clients understand them: one envelope, stable codes, never a stack trace.

A provider's refusal of the platform's key must not look like a refusal of the caller's: clients would throw their
own credentials away. So the provider's status is translated, not passed on.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

INVALID_REQUEST = "invalid_request_error"
RATE_LIMIT = "rate_limit_error"
SERVER = "server_error"


class ErrorBody(msgspec.Struct, frozen=True):
    """The inside of OpenAI's error envelope."""

    message: str
    type: str
    param: str | None
    code: str | None


class Envelope(msgspec.Struct, frozen=True):
    """OpenAI's error envelope."""

    error: ErrorBody


class GatewayError(Exception):
    """An answer that is not a success: status, envelope and headers."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.kind = kind
        self.param = param
        self.headers = dict(headers or {})
        self.billed = False  # whether a provider may have done the work all the same

    def paid(self) -> GatewayError:
        """Mark it as one after which the provider may send a bill."""
        self.billed = True
        return self

    def body(self) -> bytes:
        """Return the envelope as JSON."""
        return msgspec.json.encode(Envelope(ErrorBody(self.message, self.kind, self.param, self.code)))

    def event(self) -> bytes:
        """Return the envelope as a server-sent event, for a stream whose status has already gone out."""
        return b"data: " + self.body() + b"\n\n"


def invalid_request(message: str, param: str | None = None, *, code: str = "invalid_value") -> GatewayError:
    """Return a 400 that names the field."""
    return GatewayError(400, code, message, param=param)


def invalid_key(message: str) -> GatewayError:
    """Return a 401: the caller did not prove who it is."""
    return GatewayError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})


def forbidden(code: str, message: str) -> GatewayError:
    """Return a 403: the caller is known and may not."""
    return GatewayError(403, code, message)


def model_not_found(name: str, namespace: str, kind: str = "assistant") -> GatewayError:
    """Return a 404 for an assistant or a knowledge base that this tenant does not have."""
    return GatewayError(404, "model_not_found", f"Namespace {namespace} has no {kind} {name!r}.", param="model")


def provider_unreachable(provider: str, why: str) -> GatewayError:
    """Return a 502: no connection to the provider."""
    return GatewayError(502, "provider_unreachable", f"Provider {provider} cannot be reached: {why}.", kind=SERVER)


def provider_error(provider: str, why: str, *, code: str = "provider_error") -> GatewayError:
    """Return a 502: the provider answered, but not with what was asked."""
    return GatewayError(502, code, f"Provider {provider} {why}.", kind=SERVER)


def provider_unauthorized(provider: str, *, own: bool) -> GatewayError:
    """Return a 502 for a refused key; `own` says that it is the tenant's and not the platform's."""
    whose = (
        "the API key of the assistant's own endpoint; check the Secret in its apiKeySecretRef"
        if own
        else "the platform's key; the platform team has to mend it"
    )
    return GatewayError(502, "provider_unauthorized", f"Provider {provider} refused {whose}.", kind=SERVER)


def provider_timeout(provider: str, what: str) -> GatewayError:
    """Return a 504."""
    return GatewayError(504, "provider_timeout", f"Provider {provider} {what}.", kind=SERVER)
