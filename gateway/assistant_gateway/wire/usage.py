"""What a call has used: from the words of any provider to one shape, and to what is charged.

Providers agree on neither names nor sums. Some count cached tokens inside the input and some beside it, some leave
reasoning out of the output and only in the total, some say it once and some in every event. Here all of that ends:
`input` includes what was read from and written to a cache, `output` includes reasoning, and nothing is negative. What
is not tokens (searches, the provider's own statement of the cost, the tier that answered) is read as well: each of them
changes the bill.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from assistant_gateway.wire.counts import (
    LONGEST_NAME,
    by_the_piece,
    count,
    first,
    inside,
    kept_for,
    member,
    objects,
    of_kind,
    says_nothing,
    stated,
    text,
)
from assistant_gateway.wire.decoding import LARGEST_DECODED, UNREADABLE
from assistant_gateway.wire.units import COUNTS, DETAILS, TEXTS, Source, Usage, consistent

__all__ = ["DETAILS", "SEEN", "Chunk", "Source", "Usage", "charged", "chunk_of", "merge", "usage_of"]

# A usage object, or Gemini's own name for it. In text inside JSON the quotes are escaped and do not match.
SEEN = re.compile(rb'"usage(?:Metadata)?"\s*:\s*\{')
LARGEST_USAGE = 32 * 1024  # bytes of a usage object in a large document
LONGEST_TOKEN = 16  # bytes of text per token, on the whole of an answer; English has four

_Fields = dict[str, Any]


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Of one event or one whole answer: the places where usage may stand. Any JSON may be in them."""

    choices: list[msgspec.Raw] | None = None
    usage: object = None
    x_groq: object = None  # Groq's streams
    message: object = None  # Anthropic's first event
    response: object = None  # OpenAI's Responses, last event
    meta: object = None  # Cohere's embeddings
    usage_metadata: object = msgspec.field(default=None, name="usageMetadata")  # Gemini
    prompt_eval_count: object = None  # Ollama's own wire
    eval_count: object = None
    service_tier: object = None  # beside the usage, not in it: OpenAI, Groq

    def reported(self) -> Usage | None:
        """Return what is said here of usage, None where nothing is."""
        found = self._found()
        if found is None or found.tier or not isinstance(self.service_tier, str):
            return found
        return msgspec.structs.replace(found, tier=self.service_tier[:LONGEST_NAME])

    def _found(self) -> Usage | None:
        for place in (self.usage, inside(self.x_groq), self.usage_metadata, inside(self.message), self.meta):
            if place is not None and (found := usage_of(place)) is not None:
                return found
        if self.prompt_eval_count is not None or self.eval_count is not None:
            return Usage(input=count(self.prompt_eval_count), output=count(self.eval_count))
        return usage_of(inside(self.response))


class _Places(msgspec.Struct, frozen=True, omit_defaults=True):
    """The same places, as they were written."""

    usage: msgspec.Raw = msgspec.Raw()
    x_groq: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    meta: msgspec.Raw = msgspec.Raw()
    usage_metadata: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="usageMetadata")


_chunk = msgspec.json.Decoder(Chunk)
_places = msgspec.json.Decoder(_Places)


def chunk_of(data: bytes) -> Chunk | None:
    """Return an event's or answer's places of usage, None where it is no JSON object.

    Of a large document only places of a size that usage has are decoded: whoever wrote it decides what is in them.
    """
    try:
        if len(data) > LARGEST_DECODED:
            data = _small_places(data)
        return _chunk.decode(data)
    except UNREADABLE:
        return None


def _small_places(data: bytes) -> bytes:
    places = _places.decode(data)
    named = ((field.encode_name, getattr(places, field.name)) for field in msgspec.structs.fields(_Places))
    found = {name: raw for name, raw in named if 0 < len(memoryview(raw)) <= LARGEST_USAGE}
    return msgspec.json.encode(found)


def usage_of(said: object) -> Usage | None:
    """Return the usage in a provider's words, None where they make no sense: an answer is not lost over its bill."""
    if not isinstance(said, dict) or not said:
        return None
    for recognised_by, read in _FAMILIES:
        if any(name in said for name in recognised_by):
            return consistent(_with_extras(read(said), said))
    cost = stated(said)
    return None if cost is None else Usage(stated_cost=cost)


def merge(before: Usage | None, now: Usage | None) -> Usage | None:
    """Return what two statements of one stream say together.

    Statements are running totals (vLLM, xAI, Perplexity), halves (Anthropic: input first, output last) or a total with
    empty ones around it; the greatest of each count is right for all three.
    """
    if before is None or now is None:
        return now if before is None else before
    costs = [cost for cost in (before.stated_cost, now.stated_cost) if cost is not None]
    return Usage(
        **{name: max(getattr(before, name), getattr(now, name)) for name in COUNTS},
        **{name: getattr(now, name) or getattr(before, name) for name in TEXTS},
        stated_cost=max(costs, default=None),
    )


def charged(reported: Usage | None, estimate: Usage, held: Usage, *, trusted: bool) -> Usage:
    """Return what a call is charged.

    Args:
        reported: what the provider said, None where it said nothing.
        estimate: the gateway's own count: of the prompt, and of the text that arrived.
        held: the reserved worst case. What was used beyond it is charged in full, and disputed.
        trusted: whether the provider is the platform's, which gets its bill. What a tenant's own server claims beyond
            the hold is not followed.
    """
    said = reported or Usage()
    known_input = said.input > 0 or estimate.input == 0
    known_output = said.output > 0 or estimate.output == 0
    # An estimate is an upper bound, and so is the hold. No text has longer tokens than these on the whole, though.
    least = estimate.output // LONGEST_TOKEN if trusted else 0
    used_input = said.input if known_input else min(estimate.input, held.input)
    used_output = said.output if known_output else min(estimate.output, max(held.output, least))
    disputed = used_input > held.input or used_output > held.output
    followed = trusted or not disputed
    return consistent(
        msgspec.structs.replace(
            said,
            input=used_input if trusted else min(used_input, held.input),
            output=used_output if trusted else min(used_output, held.output),
            source=Source.REPORTED
            if reported is not None and known_input and known_output and followed
            else Source.ESTIMATED,
            disputed=disputed,
        )
    )


# --- one function per family -----------------------------------------------------------------------------------


def _openai(said: _Fields) -> Usage:
    """OpenAI's wire and everything that follows it more or less."""
    asked, answered = count(said.get("prompt_tokens")), count(said.get("completion_tokens"))
    total = count(said.get("total_tokens"))
    details, written = said.get("prompt_tokens_details"), said.get("completion_tokens_details")
    plain = said.keys() <= _PLAIN and says_nothing(details) and says_nothing(written)
    asked = asked or max(0, total - answered)  # embeddings of some servers have a total only
    beside = 0 if plain else _beside(said, answered)
    # xAI and Gemini leave reasoning out of completion_tokens; it is in the total, and it is paid.
    sums = Usage(input=asked, output=max(answered + beside, total - asked))
    return sums if plain else _openai_parts(sums, said, member(details), member(written))


def _beside(said: _Fields, answered: int) -> int:
    """Return the reasoning of Perplexity's research, which is in neither sum.

    Whoever claims it without a search is not followed.
    """
    reasoning = _reasoning(said)
    searched = reasoning > answered and count(said.get("num_search_queries"))
    return reasoning if count(said.get("citation_tokens")) or searched else 0


def _reasoning(said: _Fields) -> int:
    written = member(said.get("completion_tokens_details"))
    return first(written.get("reasoning_tokens"), said.get("reasoning_tokens"))


def _openai_parts(sums: Usage, said: _Fields, details: _Fields, written: _Fields) -> Usage:
    cached = member(details.get("cached_tokens_details"))
    kept = member(details.get("cache_creation_token_details")) or member(details.get("cache_write_tokens_details"))
    hour, half_day = kept_for(kept, "1h"), kept_for(kept, "12h")
    return msgspec.structs.replace(
        sums,
        # DeepSeek and Moonshot have names of their own for what was read from the cache.
        cached=first(details.get("cached_tokens"), said.get("prompt_cache_hit_tokens"), said.get("cached_tokens")),
        # OpenRouter's name, LiteLLM's two, and what OpenAI says only of the time that it is kept.
        cache_write=first(
            details.get("cache_write_tokens"),
            details.get("cache_creation_tokens"),
            said.get("cache_creation_input_tokens"),
            hour + half_day,
        ),
        cache_write_hour=hour,
        cache_write_half_day=half_day,
        audio_input=count(details.get("audio_tokens")),
        audio_cached=count(cached.get("audio_tokens")),
        image_input=count(details.get("image_tokens")),
        image_cached=count(cached.get("image_tokens")),
        video_input=count(details.get("video_tokens")),
        reasoning=_reasoning(said),
        audio_output=count(written.get("audio_tokens")),
        image_output=count(written.get("image_tokens")),
        video_output=count(written.get("video_tokens")),
        citation=count(said.get("citation_tokens")),
        searches=first(details.get("web_search_requests"), said.get("num_search_queries")),
        maps=count(details.get("google_maps_grounding_requests")),
        unpriced=by_the_piece(details, "prompt_tokens_details.") or by_the_piece(written, "completion_tokens_details."),
    )


def _input_and_output(said: _Fields) -> Usage:
    """OpenAI's Responses (cached tokens inside the input) and Anthropic (beside it)."""
    read, written = count(said.get("cache_read_input_tokens")), count(said.get("cache_creation_input_tokens"))
    asked, answered = member(said.get("input_tokens_details")), member(said.get("output_tokens_details"))
    kept = member(said.get("cache_creation")) or member(asked.get("cache_write_tokens_details"))
    hour, half_day = kept_for(kept, "1h"), kept_for(kept, "12h")
    return Usage(
        input=count(said.get("input_tokens")) + read + written,
        cached=read or count(asked.get("cached_tokens")),
        cache_write=written or first(asked.get("cache_write_tokens"), hour + half_day),
        cache_write_hour=hour,
        cache_write_half_day=half_day,
        audio_input=count(asked.get("audio_tokens")),
        image_input=count(asked.get("image_tokens")),
        output=count(said.get("output_tokens")),
        reasoning=count(answered.get("reasoning_tokens")),
        audio_output=count(answered.get("audio_tokens")),
        image_output=count(answered.get("image_tokens")),
    )


def _bedrock(said: _Fields) -> Usage:
    """Bedrock's Converse: cached tokens beside the input."""
    read, written = count(said.get("cacheReadInputTokens")), count(said.get("cacheWriteInputTokens"))
    kept = said.get("cacheDetails")
    return Usage(
        input=count(said.get("inputTokens")) + read + written,
        cached=read,
        cache_write=written,
        cache_write_hour=sum(
            count(part.get("inputTokens")) for part in objects(kept) if str(part.get("ttl")).lower() == "1h"
        ),
        output=count(said.get("outputTokens")),
        searches=count(member(said.get("serverToolUsage")).get("webSearchRequests")),
    )


def _gemini(said: _Fields) -> Usage:
    """Gemini's own wire: thoughts beside the candidates, tool results beside the prompt."""
    thoughts = count(said.get("thoughtsTokenCount"))
    asked, cached = said.get("promptTokensDetails"), said.get("cacheTokensDetails")
    tools, answered = said.get("toolUsePromptTokensDetails"), said.get("candidatesTokensDetails")
    return Usage(
        input=count(said.get("promptTokenCount")) + count(said.get("toolUsePromptTokenCount")),
        cached=count(said.get("cachedContentTokenCount")),
        audio_input=of_kind(asked, "AUDIO") + of_kind(tools, "AUDIO"),
        audio_cached=of_kind(cached, "AUDIO"),
        image_input=of_kind(asked, "IMAGE") + of_kind(tools, "IMAGE"),
        image_cached=of_kind(cached, "IMAGE"),
        video_input=of_kind(asked, "VIDEO") + of_kind(tools, "VIDEO"),
        output=count(said.get("candidatesTokenCount")) + thoughts,
        reasoning=thoughts,
        audio_output=of_kind(answered, "AUDIO"),
        image_output=of_kind(answered, "IMAGE"),
        video_output=of_kind(answered, "VIDEO"),
        tier=text(said.get("trafficType")),
    )


def _cohere(said: _Fields) -> Usage:
    """Cohere: what is billed differs from what was counted; the bill is what is paid."""
    billed = member(said.get("billed_units")) or member(said.get("tokens"))
    return Usage(
        input=count(billed.get("input_tokens")),
        output=count(billed.get("output_tokens")),
        searches=count(billed.get("search_units")),
        unpriced=by_the_piece(billed, "billed_units."),
    )


# Where these are all that is said, as nearly always, nothing else has to be looked for.
_PLAIN = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
# In this order: some servers send two families' names, and `total_tokens` belongs to more than one.
_FAMILIES = (
    (("prompt_tokens", "completion_tokens"), _openai),
    (("input_tokens", "output_tokens"), _input_and_output),
    (("inputTokens", "outputTokens"), _bedrock),
    (("promptTokenCount", "candidatesTokenCount"), _gemini),
    (("billed_units", "tokens"), _cohere),
    (("total_tokens",), _openai),
)


def _with_extras(usage: Usage, said: _Fields) -> Usage:
    """Return the usage with what any family may say beside its counts."""
    if said.keys() <= _PLAIN:
        return usage
    tools = member(said.get("server_tool_use"))
    calls = member(said.get("server_side_tool_usage_details"))  # xAI
    searches = usage.searches or first(
        tools.get("web_search_requests"), said.get("web_search_requests"), calls.get("web_search_calls")
    )
    unpriced = (
        usage.unpriced
        or by_the_piece(said)
        or by_the_piece(tools, "server_tool_use.")
        or by_the_piece(calls, "server_side_tool_usage_details.")
    )
    if unpriced == "num_sources_used" and searches:
        unpriced = ""  # xAI charges for the searches then
    tier, speed, region = (text(said.get(name)) for name in ("service_tier", "speed", "inference_geo"))
    tier, cost = usage.tier or tier or text(said.get("traffic_type")), stated(said)
    if (searches, unpriced, tier, speed, region, cost) == (0, "", "", "", "", None):
        return usage
    return msgspec.structs.replace(
        usage, searches=searches, unpriced=unpriced, tier=tier, speed=speed, region=region, stated_cost=cost
    )
