"""What one call used, in one shape whoever reported it, and the rule that parts are no more than their whole."""

from __future__ import annotations

import operator
from enum import StrEnum

import msgspec


class Source(StrEnum):
    """Where a count comes from; stands in the ledger."""

    REPORTED = "reported"
    ESTIMATED = "estimated"  # in full or in part by the gateway: an upper bound


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one call used. Zero where a provider says nothing (no prompt is empty, so a zero input is "not said")."""

    input: int = 0
    cached: int = 0  # of input: read from the provider's cache
    cache_write: int = 0  # of input: written to it
    cache_write_hour: int = 0  # of cache_write: kept for an hour, which costs more
    cache_write_half_day: int = 0  # of cache_write: kept for twelve hours
    audio_input: int = 0  # of input
    audio_cached: int = 0  # of audio_input and of cached
    image_input: int = 0  # of input
    image_cached: int = 0  # of image_input and of cached
    video_input: int = 0  # of input
    output: int = 0
    reasoning: int = 0  # of output
    audio_output: int = 0  # of output
    image_output: int = 0  # of output
    video_output: int = 0  # of output
    citation: int = 0  # tokens of sources that were read, beside the input
    searches: int = 0  # searches of the web; with Cohere units of them
    maps: int = 0  # questions to Google's maps
    tier: str = ""  # of the processing, as the answer names it
    speed: str = ""  # the same of Anthropic's fast mode
    region: str = ""  # where it was processed, as far as that has a price of its own
    stated_cost: int | None = None  # what the provider says that it charges: micro-USD
    unpriced: str = ""  # a unit that has no price here, in words
    source: Source = Source.REPORTED
    disputed: bool = False  # more than was held, so a bound was wrong or the provider is


# What few calls have any of, in one look.
_rare_parts = operator.attrgetter(
    *("cache_write", "cache_write_hour", "cache_write_half_day", "audio_input", "audio_cached", "image_input"),
    *("image_cached", "video_input", "audio_output", "image_output", "video_output"),
)
TEXTS = frozenset({"tier", "speed", "region", "unpriced"})
COUNTS = tuple(name for name in Usage.__struct_fields__ if name not in {*TEXTS, "stated_cost", "source", "disputed"})
# What has a part of its own in the sums above; the ledger keeps the rest of the counts as they are.
DETAILS = tuple(name for name in COUNTS if name not in {"input", "cached", "cache_write", "output", "reasoning"})


def consistent(usage: Usage) -> Usage:
    """Return the usage with parts that are no more than the whole."""
    if usage.cached <= usage.input and usage.reasoning <= usage.output and not any(_rare_parts(usage)):
        return usage
    cached = min(usage.cached, usage.input)
    written = min(usage.cache_write, usage.input - cached)
    half_day = min(usage.cache_write_half_day, written)
    hour = min(usage.cache_write_hour, written - half_day)
    audio, image, video = _shares(usage.input, usage.audio_input, usage.image_input, usage.video_input)
    audio_cached, image_cached = _shares(cached, min(usage.audio_cached, audio), min(usage.image_cached, image))
    audio_out, image_out, video_out, reasoning = _shares(
        usage.output, usage.audio_output, usage.image_output, usage.video_output, usage.reasoning
    )
    parts = {
        "cached": cached,
        "cache_write": written,
        "cache_write_hour": hour,
        "cache_write_half_day": half_day,
        "audio_input": audio,
        "image_input": image,
        "video_input": video,
        "audio_cached": audio_cached,
        "image_cached": image_cached,
        "reasoning": reasoning,
        "audio_output": audio_out,
        "image_output": image_out,
        "video_output": video_out,
    }
    if all(getattr(usage, name) == value for name, value in parts.items()):
        return usage
    return msgspec.structs.replace(usage, **parts)


def _shares(whole: int, *parts: int) -> list[int]:
    """Return parts of a whole, each at most what those before it have left."""
    shares = []
    for part in parts:
        shares.append(min(part, whole))
        whole -= shares[-1]
    return shares
