"""Whether a call fits the request rates of its assistant and tenant: one round trip, and an answer without Redis."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from assistant_gateway import errors
from assistant_gateway.limits.gcra import Level, LocalRates, Verdict
from assistant_gateway.limits.redis import SET_UP_SECONDS, Redis, ReplyError, UnavailableError, integers, pack
from assistant_observability import logs, metrics

SCRIPT = (Path(__file__).parent / "gcra.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()

_log = logs.logger(__name__)


class Rates(msgspec.Struct, frozen=True):
    """The levels of one assistant and the Redis command that asks for all of them, made once per policy."""

    tenant: str
    assistant: str
    levels: tuple[Level, ...]
    command: bytes
    full_command: bytes  # carries the script, for a Redis that has lost it

    @classmethod
    def of(cls, tenant: str, assistant: str, levels: Sequence[Level]) -> Rates:
        """Prepare the command; no levels, no limit."""
        keys = [level.key for level in levels]
        numbers = [number for level in levels for number in (level.interval, level.burst)]
        return cls(
            tenant=tenant,
            assistant=assistant,
            levels=tuple(levels),
            command=pack("EVALSHA", SHA, len(keys), *keys, *numbers),
            full_command=pack("EVAL", SCRIPT, len(keys), *keys, *numbers),
        )


async def load_script(redis: Redis) -> None:
    """Make Redis know the script; running it without keys changes nothing."""
    await redis.call(pack("EVAL", SCRIPT, 0), SET_UP_SECONDS)


class Limiter:
    """Asks Redis; decides alone while Redis is away, which is counted and shown in a header."""

    def __init__(self, redis: Redis | None) -> None:
        self._redis = redis
        self._local = LocalRates()
        self._answering = True

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
        except (UnavailableError, ReplyError) as error:
            self._note(error)
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
        if self._redis is None or not self._redis.available:
            raise UnavailableError("not connected")
        try:
            reply = await self._redis.call(rates.command)
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            reply = await self._redis.call(rates.full_command)
        allowed, level, remaining, reset, retry = integers(reply, 5)
        if not 1 <= level <= len(rates.levels):
            raise ReplyError(f"unexpected reply: level {level}")
        self._answering = True
        return Verdict(allowed == 1, level - 1, remaining, reset, retry)

    def _note(self, error: Exception) -> None:
        """Log the first refusal of a row; that Redis is away altogether is logged by the connection."""
        if self._answering and isinstance(error, ReplyError):
            _log.warning("Redis refuses the limits' script: limits are local until it answers", error=str(error))
        self._answering = False


def _duration(microseconds: int) -> str:
    """Return a duration as OpenAI writes it in headers: `120ms`, `6.5s`."""
    if microseconds < 1_000_000:
        return f"{-(-microseconds // 1000)}ms"
    return f"{microseconds / 1_000_000:.3g}s" if microseconds < 60_000_000 else f"{microseconds // 1_000_000}s"
