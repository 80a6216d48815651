"""Whether a call fits the request rates of its assistant and tenant: one round trip, and an answer without Redis."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from assistant_gateway import errors
from assistant_gateway.limits.gcra import Level, LocalRates, Verdict
from assistant_gateway.limits.redis import Redis, UnavailableError
from assistant_observability import metrics

SCRIPT = (Path(__file__).parent / "gcra.lua").read_bytes()


class Rates(msgspec.Struct, frozen=True):
    """The levels of one assistant and what the script is asked, made once per policy."""

    tenant: str
    assistant: str
    levels: tuple[Level, ...]
    arguments: tuple[bytes, ...]  # number of keys, keys, then interval and burst of each level

    @classmethod
    def of(cls, tenant: str, assistant: str, levels: Sequence[Level]) -> Rates:
        """Prepare the arguments; no levels, no limit."""
        keys = [level.key for level in levels]
        numbers = [number for level in levels for number in (level.interval, level.burst)]
        arguments = tuple(str(argument).encode() for argument in (len(keys), *keys, *numbers))
        return cls(tenant, assistant, tuple(levels), arguments)


class Limiter:
    """Asks Redis; decides alone while Redis is away, which is counted and shown in a header."""

    def __init__(self, redis: Redis | None) -> None:
        self._redis = redis
        self._local = LocalRates()

    @property
    def degraded(self) -> bool:
        """Whether limits are local now although they should be shared."""
        return self._redis is not None and not self._redis.available

    async def admit(self, rates: Rates) -> dict[str, str]:
        """Take one request from every level and return the headers that say what remains.

        Raises:
            GatewayError: 429, naming the limit that binds and when to come back.
        """
        if not rates.levels:
            return {}
        degraded = False
        try:
            verdict = await self._ask(rates)
        except UnavailableError:
            metrics.LIMIT_DEGRADED.inc()
            degraded = True
            verdict = self._local.admit(rates.levels, time.monotonic_ns() // 1000)
        level = rates.levels[verdict.level]
        headers = {
            "x-ratelimit-limit-requests": str(level.requests_per_minute),
            "x-ratelimit-remaining-requests": str(verdict.remaining),
            "x-ratelimit-reset-requests": _duration(verdict.reset),
        }
        if degraded:
            headers["x-ratelimit-degraded"] = "1"
        if verdict.allowed:
            return headers
        metrics.LIMIT_REFUSALS.labels(rates.tenant, rates.assistant, f"{level.name}_requests").inc()
        seconds = -(-verdict.retry // 1_000_000)
        headers["retry-after"] = str(seconds)
        headers["retry-after-ms"] = str(-(-verdict.retry // 1000))
        whose = f"assistant {rates.assistant!r}" if level.name == "assistant" else f"tenant {rates.tenant!r}"
        raise errors.GatewayError(
            429,
            "rate_limit_exceeded",
            f"The {whose} has reached its limit of {level.requests_per_minute} requests per minute. "
            f"Try again in {seconds} s.",
            kind=errors.RATE_LIMIT,
            headers=headers,
        )

    async def _ask(self, rates: Rates) -> Verdict:
        if self._redis is None:
            raise UnavailableError("not configured")
        reply = await self._redis.run_script(rates.arguments)
        try:
            allowed, level, remaining, reset, retry = reply
            return Verdict(allowed == 1, level - 1, remaining, reset, retry)
        except (TypeError, ValueError):
            raise UnavailableError(f"unexpected reply: {reply!r:.100}") from None


def _duration(microseconds: int) -> str:
    """Return a duration as OpenAI writes it in headers: `120ms`, `6.5s`."""
    if microseconds < 1_000_000:
        return f"{-(-microseconds // 1000)}ms"
    return f"{microseconds / 1_000_000:.3g}s" if microseconds < 60_000_000 else f"{microseconds // 1_000_000}s"
