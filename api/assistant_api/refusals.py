"""What the gateway refused, in the form that clients of OpenAI's wire format expect."""

from __future__ import annotations

from typing import Any

import msgspec

from assistant_api import errors
from assistant_api.asgi import BufferedResponse
from assistant_api.decoding import MALFORMED
from assistant_api.gateway import MAX_ERROR_BYTES, ErrorEnvelope, GatewayResponse, error_of, passed_on


def refusal(answer: GatewayResponse, content: bytes, model: str, noted: dict[str, Any]) -> BufferedResponse:
    """Return the gateway's error: translated where we know its code, as it is where only the provider knows."""
    error = error_of(answer.status, content, answer.headers)
    headers = passed_on(answer.headers)
    if errors.is_translated(error) or not _is_envelope(content):
        api_error = errors.from_gateway(error, model)
        api_error.headers = {**headers, **api_error.headers}
        raise api_error
    noted["code"] = error.code
    return BufferedResponse(answer.status, headers, content)


def _is_envelope(content: bytes) -> bool:
    try:
        return len(content) <= MAX_ERROR_BYTES and bool(msgspec.json.decode(content, type=ErrorEnvelope).error.message)
    except MALFORMED:
        return False
