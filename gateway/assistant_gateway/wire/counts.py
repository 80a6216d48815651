"""Numbers and names in what providers say of usage, whatever stands in their place."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

MOST_TOKENS = 100_000_000  # of one call; whoever claims more has said nothing
MOST_COST = 10**12  # micro-USD of one call: a million USD
MOST_TICKS = 10**16  # the same in the smallest unit that a provider states a cost in
LONGEST_NAME = 32  # characters of a tier's name

_Fields = dict[str, Any]

# Members whose names sound like something that is paid by the piece, and what of them is read above or free.
_BY_THE_PIECE = re.compile(
    r"second|minute|duration|image|video|audio|sound|search|quer|page|request|call|session|ground|character|citation"
    r"|source|classification|storage|ocr"
)
_READ = frozenset(
    {
        *("audio_tokens", "image_tokens", "video_tokens", "citation_tokens", "web_search_requests"),
        *("num_search_queries", "google_maps_grounding_requests", "search_units", "search_context_size"),
        *("web_fetch_requests", "webSearchRequests", "web_search_calls"),
        # The same once more in other units: who bills by these has no price in tokens (`price_map`).
        "character_count",
    }
)


def count(value: object) -> int:
    """Return a count as it was said, 0 for what is none: text, true, -1, NaN, 10 to the 12th."""
    if type(value) is int:  # nearly always, and asked twenty times per call
        return value if 0 < value <= MOST_TOKENS else 0
    if not isinstance(value, float) or not 0 < value <= MOST_TOKENS:
        return 0
    return -int(-value // 1)  # some servers send 12.0, and half a token is one


def kept_for(details: _Fields, time: str) -> int:
    """Return the tokens that were written to the cache for a time: Anthropic's name, and OpenAI's."""
    return first(details.get(f"ephemeral_{time}_input_tokens"), details.get(f"ttl_{time}_tokens"))


def of_kind(details: object, kind: str) -> int:
    """Return the tokens of one kind in a list of Gemini's."""
    return sum(count(part.get("tokenCount")) for part in objects(details) if part.get("modality") == kind)


def first(*values: object) -> int:
    """Return the first of some counts that says anything, else 0."""
    return next((found for value in values if (found := count(value))), 0)


def text(value: object) -> str:
    """Return a name, cut to its length; empty for what is none."""
    return value[:LONGEST_NAME] if isinstance(value, str) else ""


def objects(value: object) -> list[_Fields]:
    """Return the objects in a list, none for what is no list."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def member(value: object) -> _Fields:
    """Return an object, an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def inside(value: object) -> object:
    """Return the usage inside another object."""
    return value.get("usage") if isinstance(value, dict) else None


def stated(said: _Fields) -> int | None:
    """Return what a provider says that it charges, in micro-USD, rounded up. Whose word counts is `prices`' to know."""
    cost = said.get("cost")
    if isinstance(cost, dict):  # Perplexity
        cost = cost.get("total_cost")
    ticks = said.get("cost_in_usd_ticks")  # xAI
    if cost is None and _is_amount(ticks):
        return _micro(Decimal(str(ticks)) / 10_000)
    if not _is_amount(cost):
        return None
    micro = _micro(Decimal(str(cost)) * 1_000_000)
    upstream = member(said.get("cost_details")).get("upstream_inference_cost")
    if said.get("is_byok") is True and _is_amount(upstream):  # OpenRouter with a key of the platform's own
        micro += _micro(Decimal(str(upstream)) * 1_000_000)
    return micro if micro <= MOST_COST else None


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_TICKS


def _micro(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_CEILING))


def by_the_piece(said: _Fields, where: str = "") -> str:
    """Return the name of a count of something that is paid by the piece and that nobody here has read."""
    for name, value in said.items():
        if value and name not in _READ and count(value) and _is_by_the_piece(name):
            return f"{where}{name}"[: 2 * LONGEST_NAME]
    return ""


def says_nothing(details: object) -> bool:
    """Return whether an object is none, is empty, or has nothing but zeros in it."""
    return not isinstance(details, dict) or not any(details.values())


def _is_by_the_piece(name: str) -> bool:
    return _known_name(name) if len(name) <= LONGEST_NAME else _BY_THE_PIECE.search(name) is not None


@lru_cache(maxsize=1024)
def _known_name(name: str) -> bool:
    return _BY_THE_PIECE.search(name) is not None
