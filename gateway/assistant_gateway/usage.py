"""What a call has used: from the words of any provider to one shape, and to what is charged.

Providers agree on neither names nor sums. Some count cached tokens inside the input and some beside it, some leave
reasoning out of the output and only in the total, some say it once and some in every event. Here all of that ends:
`input` includes what was read from and written to a cache, `output` includes reasoning, and nothing is negative.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import msgspec

from assistant_gateway.decoding import LARGEST_DECODED, UNREADABLE

# A usage object, or Gemini's own name for it. In text inside JSON the quotes are escaped and do not match.
SEEN = re.compile(rb'"usage(?:Metadata)?"\s*:\s*\{')
LARGEST_USAGE = 32 * 1024  # bytes of a usage object in a large document
MOST_TOKENS = 100_000_000  # of one call; whoever claims more has said nothing
LONGEST_TOKEN = 16  # bytes of text per token, on the whole of an answer; English has four

_Fields = dict[str, Any]


class Source(StrEnum):
    """Where a count comes from; stands in the ledger."""

    REPORTED = "reported"
    ESTIMATED = "estimated"  # in full or in part by the gateway: an upper bound


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call. Zero where a provider says nothing (no prompt is empty, so a zero input is "not said")."""

    input: int = 0
    cached: int = 0  # of input: read from the provider's cache
    cache_write: int = 0  # of input: written to it
    cache_write_hour: int = 0  # of cache_write: for an hour, which Anthropic charges more for
    output: int = 0
    reasoning: int = 0  # of output
    source: Source = Source.REPORTED
    disputed: bool = False  # more than was held, so a bound was wrong or the provider is


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

    def reported(self) -> Usage | None:
        """Return what is said here of usage, None where nothing is."""
        for place in (self.usage, _inside(self.x_groq), self.usage_metadata, _inside(self.message), self.meta):
            if place is not None and (found := usage_of(place)) is not None:
                return found
        if self.prompt_eval_count is not None or self.eval_count is not None:
            return Usage(input=_count(self.prompt_eval_count), output=_count(self.eval_count))
        return usage_of(_inside(self.response))


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
            return _consistent(read(said))
    return None


def merge(before: Usage | None, now: Usage | None) -> Usage | None:
    """Return what two statements of one stream say together.

    Statements are running totals (vLLM, xAI, Perplexity), halves (Anthropic: input first, output last) or a total with
    empty ones around it; the greatest of each count is right for all three.
    """
    if before is None or now is None:
        return now if before is None else before
    return Usage(
        input=max(before.input, now.input),
        cached=max(before.cached, now.cached),
        cache_write=max(before.cache_write, now.cache_write),
        cache_write_hour=max(before.cache_write_hour, now.cache_write_hour),
        output=max(before.output, now.output),
        reasoning=max(before.reasoning, now.reasoning),
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
    return _consistent(
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
    asked, answered = _count(said.get("prompt_tokens")), _count(said.get("completion_tokens"))
    total = _count(said.get("total_tokens"))
    details, written = _object(said.get("prompt_tokens_details")), _object(said.get("completion_tokens_details"))
    asked = asked or max(0, total - answered)  # embeddings of some servers have a total only
    return Usage(
        input=asked,
        # DeepSeek and Moonshot have names of their own for what was read from the cache.
        cached=_first(details.get("cached_tokens"), said.get("prompt_cache_hit_tokens"), said.get("cached_tokens")),
        # OpenRouter's name, and LiteLLM's.
        cache_write=_first(details.get("cache_write_tokens"), said.get("cache_creation_input_tokens")),
        cache_write_hour=_count(_object(details.get("cache_creation_token_details")).get("ephemeral_1h_input_tokens")),
        # xAI and Gemini leave reasoning out of completion_tokens; it is in the total, and it is paid.
        output=max(answered, total - asked),
        reasoning=_first(written.get("reasoning_tokens"), said.get("reasoning_tokens")),
    )


def _input_and_output(said: _Fields) -> Usage:
    """OpenAI's Responses (cached tokens inside the input) and Anthropic (beside it)."""
    read, written = _count(said.get("cache_read_input_tokens")), _count(said.get("cache_creation_input_tokens"))
    details = _object(said.get("output_tokens_details"))
    inside = _count(_object(said.get("input_tokens_details")).get("cached_tokens"))
    return Usage(
        input=_count(said.get("input_tokens")) + read + written,
        cached=read or inside,
        cache_write=written,
        cache_write_hour=_count(_object(said.get("cache_creation")).get("ephemeral_1h_input_tokens")),
        output=_count(said.get("output_tokens")),
        reasoning=_count(details.get("reasoning_tokens")),
    )


def _bedrock(said: _Fields) -> Usage:
    """Bedrock's Converse: cached tokens beside the input."""
    read, written = _count(said.get("cacheReadInputTokens")), _count(said.get("cacheWriteInputTokens"))
    return Usage(
        input=_count(said.get("inputTokens")) + read + written,
        cached=read,
        cache_write=written,
        output=_count(said.get("outputTokens")),
    )


def _gemini(said: _Fields) -> Usage:
    """Gemini's own wire: thoughts beside the candidates, tool results beside the prompt."""
    thoughts = _count(said.get("thoughtsTokenCount"))
    return Usage(
        input=_count(said.get("promptTokenCount")) + _count(said.get("toolUsePromptTokenCount")),
        cached=_count(said.get("cachedContentTokenCount")),
        output=_count(said.get("candidatesTokenCount")) + thoughts,
        reasoning=thoughts,
    )


def _cohere(said: _Fields) -> Usage:
    """Cohere: what is billed differs from what was counted; the bill is what is paid."""
    billed = _object(said.get("billed_units")) or _object(said.get("tokens"))
    return Usage(input=_count(billed.get("input_tokens")), output=_count(billed.get("output_tokens")))


# In this order: some servers send two families' names, and `total_tokens` belongs to more than one.
_FAMILIES = (
    (("prompt_tokens", "completion_tokens"), _openai),
    (("input_tokens", "output_tokens"), _input_and_output),
    (("inputTokens", "outputTokens"), _bedrock),
    (("promptTokenCount", "candidatesTokenCount"), _gemini),
    (("billed_units", "tokens"), _cohere),
    (("total_tokens",), _openai),
)


# --- small things ----------------------------------------------------------------------------------------------


def _consistent(usage: Usage) -> Usage:
    """Return the usage with parts that are no more than the whole."""
    cached = min(usage.cached, usage.input)
    written = min(usage.cache_write, usage.input - cached)
    reasoning = min(usage.reasoning, usage.output)
    hour = min(usage.cache_write_hour, written)
    if (cached, written, hour, reasoning) == (
        usage.cached,
        usage.cache_write,
        usage.cache_write_hour,
        usage.reasoning,
    ):
        return usage
    return msgspec.structs.replace(
        usage, cached=cached, cache_write=written, cache_write_hour=hour, reasoning=reasoning
    )


def _count(value: object) -> int:
    """Return a count as it was said, 0 for what is none: text, true, -1, NaN, 10 to the 12th."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST_TOKENS:
        return 0
    return -int(-value // 1)  # some servers send 12.0, and half a token is one


def _first(*values: object) -> int:
    return next((count for value in values if (count := _count(value))), 0)


def _object(value: object) -> _Fields:
    return value if isinstance(value, dict) else {}


def _inside(value: object) -> object:
    return value.get("usage") if isinstance(value, dict) else None
