"""When a try of one destination is made again: what never arrived, or what the provider asks to have again soon."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from assistant_gateway.calls.fallback import Attempt
from assistant_gateway.calls.streaming import deadline_passed
from assistant_gateway.errors import GatewayError
from assistant_observability import metrics

TRIES = 3  # of one provider
RETRY_SECONDS = (0.1, 1.0)  # full jitter: up to the first, doubling up to the second
LONGEST_RETRY_AFTER = 2.0  # a provider that wants a longer pause is not waited for

T = TypeVar("T")


async def retrying(made: Attempt, send: Callable[[], Awaitable[T]]) -> T:
    """Send, and send again where it is safe: what never arrived, or what the provider asks to have again soon.

    Raises:
        GatewayError: of the last try.
    """
    loop, tries, settings = asyncio.get_running_loop(), 0, made.target.settings
    while True:
        try:
            if loop.time() + settings.connect_seconds + settings.first_byte_seconds < made.deadline:
                return await send()
            return await _within(made, send)
        except GatewayError as error:
            tries += 1
            made.permit.refused(error)
            delay = delay_before(error, tries)
            if delay is None or loop.time() + delay >= made.deadline:
                raise
            reason = "unreachable" if error.unsent else "rate_limited" if error.status == 429 else "unavailable"
            metrics.PROVIDER_RETRIES.labels(made.target.provider, reason).inc()
        await asyncio.sleep(delay)


async def _within(made: Attempt, send: Callable[[], Awaitable[T]]) -> T:
    """Send, and wait for the answer's head no longer than the request may take in all."""
    try:
        async with asyncio.timeout_at(made.deadline):
            return await send()
    except TimeoutError:
        raise deadline_passed(made.target).paid() from None


def delay_before(error: GatewayError, tries: int) -> float | None:
    """Return how long to wait before the next try after so many, None when there is to be none."""
    if tries >= TRIES or error.billed:
        return None
    jitter = random.uniform(0, min(RETRY_SECONDS[0] * 2 ** (tries - 1), RETRY_SECONDS[1]))  # noqa: S311
    if error.unsent:
        return jitter
    if not error.again or error.retry_after is None or error.retry_after > LONGEST_RETRY_AFTER:
        return None
    return error.retry_after + jitter
