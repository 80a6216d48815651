"""Health answers. They name dependencies and times, never addresses or credentials."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["healthy", "degraded", "unhealthy"]
Problem = Literal["timeout", "unreachable", "refused", "not_configured"]


class Basic(msgspec.Struct, frozen=True):
    """Of the process alone; nothing outside is asked."""

    status: Status
    service: str = "assistant-api"


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One dependency; `response_ms` is the time until it answered or failed."""

    status: Status
    response_ms: float
    error: Problem | None = None


class Detailed(msgspec.Struct, frozen=True):
    """The process and everything it needs."""

    status: Status
    checks: dict[str, Check]
    service: str = "assistant-api"
