"""What clients are told of limits: headers with what remains, and the 429s.

The headers mean what OpenAI's mean: limit and remaining are of one and the same bucket, and reset is the time until it
is as in the beginning, on a 429 too; when to come back is said by `retry-after`. A limit of requests per minute is a
bucket of as many requests as may come at once (`gcra.Level.burst`).
"""

from __future__ import annotations

from assistant_gateway import errors
from assistant_gateway.limits import gcra
from assistant_gateway.limits.limit_scope import LimitScope
from assistant_gateway.limits.limit_set import LimitSet
from assistant_gateway.limits.quota import Admitted, Refused
from assistant_gateway.limits.windows import Windows

LONGEST_WAIT = 60_000_000  # of clients that wait by themselves, such as the `openai` package
_REQUESTS = "x-ratelimit-remaining-requests"
_CODES = {"requests": "rate_limit_exceeded", "tokens": "tokens_exhausted", "budget": "budget_exhausted"}


def remaining(terms: LimitSet, answer: Admitted, windows: Windows) -> dict[str, str]:
    """Return one group of headers per kind of limit, for the level with the least left."""
    headers: dict[str, str] = {}
    requests = tokens = budget = -1
    levels = terms.limits.levels
    for index, left in enumerate(answer.remaining):
        if left.requests is not None and (requests < 0 or left.requests < int(headers[_REQUESTS])):
            requests = index
            headers["x-ratelimit-limit-requests"] = str(_rate(levels[index]).burst)
            headers[_REQUESTS] = str(left.requests)
            headers["x-ratelimit-reset-requests"] = duration(left.requests_reset)
        if left.tokens is not None and (tokens < 0 or left.tokens < (answer.remaining[tokens].tokens or 0)):
            tokens = index
        if left.budget is not None and (budget < 0 or left.budget < (answer.remaining[budget].budget or 0)):
            budget = index
    if tokens >= 0:
        headers["x-ratelimit-limit-tokens"] = str(levels[tokens].tokens)
        headers["x-ratelimit-remaining-tokens"] = str(answer.remaining[tokens].tokens)
        headers["x-ratelimit-reset-tokens"] = duration(windows.day[1] - answer.now)
    if budget >= 0:
        level = levels[budget]
        headers["x-budget-limit"] = money(level.budget or 0)
        headers["x-budget-remaining"] = money(answer.remaining[budget].budget or 0)
        headers["x-budget-reset"] = duration(_ends(level, windows) - answer.now)
        headers["x-budget-currency"] = terms.currency
    return headers


def refusal(terms: LimitSet, refused: Refused, windows: Windows, now: int) -> errors.GatewayError:
    """Return the 429 that names the limit and says when to come back."""
    headers: dict[str, str] = {}
    retry = refused.retry_after
    if retry is not None:
        headers["retry-after"] = str(-(-retry // 1_000_000))
        headers["retry-after-ms"] = str(-(-retry // 1000))
    if retry is None or retry > LONGEST_WAIT:
        headers["x-should-retry"] = "false"
    left = max(0, refused.limit - refused.used)
    if refused.kind == "requests":
        rate = _rate(refused.level)
        headers["x-ratelimit-limit-requests"] = str(rate.burst)
        headers[_REQUESTS] = "0"
        headers["x-ratelimit-reset-requests"] = duration((retry or 0) + (rate.burst - 1) * rate.interval)
    elif refused.kind == "tokens":
        headers["x-ratelimit-limit-tokens"] = str(refused.limit)
        headers["x-ratelimit-remaining-tokens"] = str(left)
        headers["x-ratelimit-reset-tokens"] = duration(windows.day[1] - now)
    else:
        headers["x-budget-limit"] = money(refused.limit)
        headers["x-budget-remaining"] = money(left)
        headers["x-budget-reset"] = duration(_ends(refused.level, windows) - now)
        headers["x-budget-currency"] = terms.currency
    message = _message(terms, refused, left)
    return errors.GatewayError(429, _CODES[refused.kind], message, kind=errors.RATE_LIMIT, headers=headers)


def _rate(level: LimitScope) -> gcra.RateLimit:
    return gcra.RateLimit(level.scope, "", level.requests_per_minute or 0)


def _ends(level: LimitScope, windows: Windows) -> int:
    return windows.day[1] if level.period == "Day" else windows.month[1]


def _message(terms: LimitSet, refused: Refused, left: int) -> str:
    whose = _whose(terms, refused.level)
    when = "" if refused.retry_after is None else f" Try again in {-(-refused.retry_after // 1_000_000)} s."
    if refused.kind == "requests":
        return f"The {whose} has reached its limit of {refused.limit} requests per minute.{when}"
    if refused.kind == "tokens":
        limit, used, rest = f"{_tokens(refused.limit)} per day", _tokens(refused.used), _tokens(left)
    else:
        limit = f"{money(refused.limit)} {terms.currency} per {refused.level.period.lower()}"
        used, rest = (f"{money(amount)} {terms.currency}" for amount in (refused.used, left))
    # What calls under way may use counts as used: it comes back where they use less.
    fact = f"The {whose} has used {used} of its limit of {limit}"
    if not left:
        return f"{fact}: nothing is left.{when}"
    if refused.retry_after is None:
        step = "Ask for less: a shorter prompt, or a smaller 'max_tokens'."
        return f"{fact}; {rest} left, and this call may use more than the whole limit. {step}"
    return f"{fact}; {rest} left, which this call may exceed.{when}"


def _tokens(number: int) -> str:
    return f"{number} token" if number == 1 else f"{number} tokens"


def _whose(terms: LimitSet, level: LimitScope) -> str:
    return f"assistant {level.name!r}" if level.scope == "assistant" else f"tenant {terms.namespace!r}"


def money(micros: int) -> str:
    """Return micro-units as a decimal number."""
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"


def duration(microseconds: int) -> str:
    """Return a duration as OpenAI writes it in headers: `120ms`, `6.5s`."""
    if microseconds < 1_000_000:
        return f"{-(-microseconds // 1000)}ms"
    return f"{microseconds / 1_000_000:.3g}s" if microseconds < 60_000_000 else f"{microseconds // 1_000_000}s"
