"""What a translated provider's refusal means: the same classes as those of the OpenAI wire.

The provider's own words are read, not LiteLLM's, whose texts repeat requests.
"""

from __future__ import annotations

import re

from assistant_gateway.errors import GatewayError
from assistant_gateway.providers import pauses
from assistant_gateway.providers.catalog import Target
from assistant_gateway.providers.error_bodies import Detail
from assistant_gateway.providers.openai_wire import error_detail, translate

_TOO_LONG = re.compile(
    r"(prompt|input|context|request|conversation)\b.{0,40}\b(too long|too many|exceed|larger than|maximum)"
    r"|too many (input )?tokens|exceeds? .{0,40}(context|number of) .{0,20}(tokens|window|length)",
    re.IGNORECASE | re.DOTALL,
)
_FILTERED = re.compile(
    r"content (filter|management|policy)|blocked by .{0,40}(safety|filter|policy|guardrail)|safety (settings|reasons)",
    re.IGNORECASE,
)


def map_error(target: Target, status: int, body: bytes, retry_after: str | None) -> GatewayError:
    """Return what to tell the client for a refusal, without any of the keys in it."""
    for secret in target.credentials.values():
        body = body.replace(secret.encode(), b"***") if len(secret) >= 16 else body  # short ones are names
    detail = error_detail(target, body) or Detail()
    said = detail.message if isinstance(detail.message, str) else ""
    code: object = None
    if status in {400, 413, 422}:
        if _TOO_LONG.search(said):
            status, code = 400, "context_length_exceeded"
        elif _FILTERED.search(said):
            status, code = 400, "content_filter"
    param = "messages" if code is not None else detail.param
    pause = pauses.of_headers({"retry-after": retry_after or ""}, detail.pause)
    return translate(target, status, Detail(detail.message, param, code), pause)
