"""Errors as OpenAI clients understand them: one envelope, stable codes, never a stack trace.

A provider's refusal of the platform's key must not look like a refusal of the caller's: clients would throw their
own credentials away. So the provider's status is translated, not passed on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from assistant_crds.contracts import NOT_STARTED_HEADER

INVALID_REQUEST = "invalid_request_error"
RATE_LIMIT = "rate_limit_error"
SERVER = "server_error"
OWN_ENDPOINT = "The tenant's own endpoint"  # in messages


def let_go(error: BaseException | None) -> None:
    """Have an error, and those before it, hold no frames any more.

    Frames hold the request's body and often the error itself: such a circle stays in memory until the garbage collector
    looks, which is seldom.
    """
    seen = 0
    while error is not None and seen < 100:
        error.__traceback__ = None
        error, seen = error.__cause__ or error.__context__, seen + 1


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
        self.said = ""  # by a provider, for the log alone
        self.billed = False  # whether a provider may have done the work all the same
        self.unsent = False  # whether the request surely never reached the provider
        self.again = False  # whether the provider turned it away unread: 429 or 503
        self.pause: float | None = None  # seconds that a provider asks for; its header has them rounded up
        self.local = False  # whether a rule of this gateway's refused it: that says nothing of the provider

    @property
    def retry_after(self) -> float | None:
        """After how many seconds it is worth asking again, where somebody said so."""
        if self.pause is not None:
            return self.pause
        try:
            seconds = float(self.headers.get("retry-after", ""))
        except ValueError:
            return None
        return max(0.0, seconds) if math.isfinite(seconds) else None

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


def request_too_large(most: int) -> GatewayError:
    """Return a 413 that says how much would have been taken."""
    return GatewayError(413, "request_too_large", f"The body is larger than {most} bytes.")


def memory_used_up(*, own: bool) -> GatewayError:
    """Return why a request is not read now: its tenant's requests in flight, or those of all, fill the memory."""
    if own:
        message = "This tenant's requests in flight fill its share of the gateway's memory. Try again in a moment."
        return _come_back(GatewayError(429, "too_many_bytes_in_flight", message, kind=RATE_LIMIT), 1)
    message = "The gateway is busy. Try again in a moment."
    return _come_back(GatewayError(503, "gateway_busy", message, kind=SERVER), 1)


def model_not_found(name: str, namespace: str, kind: str = "assistant") -> GatewayError:
    """Return a 404 for an assistant or a knowledge base that this tenant does not have."""
    return GatewayError(404, "model_not_found", f"Namespace {namespace} has no {kind} {name!r}.", param="model")


def _who(provider: str) -> str:
    """Return what people call a provider of the catalogue, or a tenant's own endpoint."""
    return OWN_ENDPOINT if provider == "endpoint" else f"Provider {provider}"


def not_started(error: GatewayError) -> GatewayError:
    """Return a 503 that says that nothing was done: the tenant API asks again on another connection."""
    error.headers[NOT_STARTED_HEADER] = "true"
    return error


def shutting_down() -> GatewayError:
    """Return a 503 for a stream that would not end before this process does."""
    message = "The gateway is restarting. Try again in a moment."
    return _come_back(GatewayError(503, "shutting_down", message, kind=SERVER), 1)


def provider_unreachable(provider: str, why: str, *, unsent: bool = False) -> GatewayError:
    """Return a 502: no connection to the provider. `unsent`: nothing was sent, so it may be tried again."""
    error = GatewayError(502, "provider_unreachable", f"{_who(provider)} cannot be reached: {why}.", kind=SERVER)
    error.unsent = unsent
    return error


def provider_not_allowed(provider: str, why: str) -> GatewayError:
    """Return a 502: the provider's address is not one that a tenant may reach."""
    error = provider_unreachable(provider, why)
    error.local = True
    return error


def provider_error(provider: str, why: str, *, code: str = "provider_error") -> GatewayError:
    """Return a 502: the provider answered, but not with what was asked."""
    return GatewayError(502, code, f"{_who(provider)} {why}.", kind=SERVER)


def provider_unauthorized(provider: str, *, own: bool) -> GatewayError:
    """Return a 502 for a refused key; `own` says that it is the tenant's and not the platform's."""
    whose = (
        "the API key of the assistant's own endpoint; check the Secret in its apiKeySecretRef"
        if own
        else "the platform's API key; the platform team has to replace it"
    )
    return GatewayError(502, "provider_unauthorized", f"{_who(provider)} rejected {whose}.", kind=SERVER)


def provider_timeout(provider: str, what: str) -> GatewayError:
    """Return a 504."""
    return GatewayError(504, "provider_timeout", f"{_who(provider)} {what}.", kind=SERVER)


def provider_unavailable(provider: str, seconds: float) -> GatewayError:
    """Return a 503: too many calls have failed, so nobody asks for a while."""
    message = f"{_who(provider)} failed too often and is paused. Try again later."
    return _come_back(GatewayError(503, "provider_unavailable", message, kind=SERVER), seconds)


def provider_busy(provider: str) -> GatewayError:
    """Return a 503: as many calls run as the catalogue allows."""
    message = f"{_who(provider)} has reached its limit of concurrent calls. Try again in a moment."
    return _come_back(GatewayError(503, "provider_busy", message, kind=SERVER), 1)


def provider_rate_limited(provider: str, why: str, seconds: float | None = None) -> GatewayError:
    """Return a 429 that comes from the provider, not from the tenant's limits."""
    message = f"{_who(provider)} limits the request rate: {why}."
    error = GatewayError(429, "provider_rate_limit_exceeded", message, kind=RATE_LIMIT)
    return error if seconds is None else _come_back(error, seconds)


def provider_quota_exhausted(provider: str, *, own: bool) -> GatewayError:
    """Return a 503: the account that pays the provider has nothing left. Not the tenant's limits, so no 429."""
    whose = (
        "The account of the assistant's own endpoint has used up its quota"
        if own
        else f"The platform's account with provider {provider} is used up. The platform team has to top it up"
    )
    return GatewayError(503, "provider_quota_exhausted", f"{whose}.", kind=SERVER)


def context_too_long(provider: str, said: str, param: str | None = None) -> GatewayError:
    """Return the 400 that OpenAI clients know: the request is longer than the model can take."""
    message = f"Provider {provider} rejected the request: {said}."
    return GatewayError(400, "context_length_exceeded", message, param=param or "messages")


def content_filtered(provider: str, said: str, param: str | None = None) -> GatewayError:
    """Return the 400 that OpenAI clients know: the provider does not answer such a request."""
    return GatewayError(400, "content_filter", f"Provider {provider} rejected the request: {said}.", param=param)


def _come_back(error: GatewayError, seconds: float) -> GatewayError:
    error.headers["retry-after"] = str(max(1, math.ceil(seconds)))
    return error
