"""What units of a model cost, and what a call costs by them.

Money is integers: micro-units of the currency (1 USD = 1,000,000), prices in micro-units per 1,000,000 tokens, sums
rounded up.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

import msgspec

from assistant_gateway.wire.usage import Usage

_media_of = operator.attrgetter(
    *("audio_input", "image_input", "video_input", "audio_output", "image_output", "video_output")
)
PER = 1_000_000  # tokens that a price is for; also micro-units of one unit of a currency
HIGHEST = 1_000_000 * PER  # a million units of the currency per million tokens: beyond it is a mistake


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Micro-units per million tokens of each kind; None: as the kind that it is a part of."""

    input: int
    output: int
    cached: int
    cache_write: int
    cache_write_hour: int
    reasoning: int
    cache_write_half_day: int | None = None
    audio_input: int | None = None
    audio_cached: int | None = None
    image_input: int | None = None
    image_cached: int | None = None
    video_input: int | None = None
    audio_output: int | None = None
    image_output: int | None = None
    video_output: int | None = None
    citation: int | None = None  # None: sources are not charged for

    def total(self, usage: Usage) -> int:
        """Return micro-units times a million tokens, exactly."""
        fresh = usage.input - usage.cached - usage.cache_write
        written_short = usage.cache_write - usage.cache_write_hour - usage.cache_write_half_day
        total = (
            usage.cached * self.cached
            + written_short * self.cache_write
            + usage.cache_write_hour * self.cache_write_hour
            + usage.cache_write_half_day * _or(self.cache_write_half_day, self.cache_write)
            + fresh * self.input
            + usage.output * self.output
            + usage.reasoning * (self.reasoning - self.output)
            + usage.citation * (self.citation or 0)
        )
        return total + self._media(usage, fresh) if any(_media_of(usage)) else total

    def _media(self, usage: Usage, fresh: int) -> int:
        """Return what tokens that are no text cost more, or less, than text."""
        total = 0
        for tokens, cached, rate, cached_rate in (
            (usage.audio_input, usage.audio_cached, self.audio_input, self.audio_cached),
            (usage.image_input, usage.image_cached, self.image_input, self.image_cached),
            (usage.video_input, 0, self.video_input, None),
        ):
            if not tokens:
                continue
            new = min(tokens - cached, fresh)  # what was read from or written to the cache is not charged as fresh, too
            fresh -= new
            total += new * (_or(rate, self.input) - self.input) + cached * (_or(cached_rate, self.cached) - self.cached)
        for tokens, rate in (
            (usage.audio_output, self.audio_output),
            (usage.image_output, self.image_output),
            (usage.video_output, self.video_output),
        ):
            total += tokens * (_or(rate, self.output) - self.output)
        return total

    def cost(self, usage: Usage) -> int:
        """Return micro-units, rounded up."""
        return -(-self.total(usage) // PER)

    def worst(self, tokens_in: int, tokens_out: int) -> int:
        """Return the most that so many tokens can cost."""
        asked = (self.input, self.cached, self.cache_write, self.cache_write_hour, self.cache_write_half_day)
        media = (self.audio_input, self.audio_cached, self.image_input, self.image_cached, self.video_input)
        answered = (self.output, self.reasoning, self.audio_output, self.image_output, self.video_output)
        total = tokens_in * _most(*asked, *media)
        return -(-(total + tokens_out * _most(*answered)) // PER)


def _or(rate: int | None, other: int) -> int:
    return other if rate is None else rate


def _most(*rates: int | None) -> int:
    return max([rate for rate in rates if rate is not None])


class Fees(msgspec.Struct, frozen=True, kw_only=True):
    """What is charged by the piece: micro-units. None: nobody knows."""

    request: int = 0
    search: Mapping[str, int] | None = None  # by the size of what is read: low, medium, high
    size: str = "medium"  # where a request says none
    once: bool = False  # one fee, however many searches a request makes
    always: bool = False  # whether each request makes one
    maps: int | None = None

    def searches(self, count: int, size: str | None) -> int | None:
        """Return the fee of so many searches, None where nobody knows."""
        if not count:
            return 0
        if self.search is None:
            return None
        fee = self.search.get(size or self.size, self.search.get(self.size))
        return None if fee is None else fee * (1 if self.once else count)


class Bill(msgspec.Struct, frozen=True):
    """What one call costs."""

    cost: int | None  # micro-units, rounded up; None: no part of it is known
    source: str = ""  # whose prices
    currency: str = "USD"
    unpriced: str = ""  # what of it has no price here, in words; the cost is then without it


NO_FEES = Fees()


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of a model's cost. `above`: rates of prompts longer than so many tokens, ascending."""

    rate: Rate
    above: tuple[tuple[int, Rate], ...] = ()
    inclusive: bool = False  # whether a prompt of just that length is charged at the higher rate
    fees: Fees = NO_FEES
    speeds: Mapping[str, Decimal] = {}  # factors of faster modes and of regions, by their names in answers
    open_ended: bool = False  # whether its searches, and what they find, are bounded by nothing in a request
    currency: str = "USD"
    source: str  # stands in the ledger
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_image_tokens: int | None = None
    reasons: bool = False  # may use output that the client never sees

    def rate_of(self, usage: Usage) -> Rate:
        """Return the rate of a prompt of this length."""
        rate = self.rate
        for threshold, dearer in self.above:
            if usage.input > threshold or (self.inclusive and usage.input == threshold):
                rate = dearer
        return rate

    def cost(self, usage: Usage) -> int:
        """Return what a call costs, in micro-units, rounded up."""
        return self.bill(usage).cost or 0

    def bill(self, usage: Usage, *, searched: bool = False, size: str | None = None) -> Bill:
        """Return what a call costs.

        Args:
            usage: what it used.
            searched: whether its request asked for a search of the web.
            size: how much each search was to read.
        """
        total, unpriced = self.rate_of(usage).total(usage), usage.unpriced
        modes = ((usage.speed, "standard"), (usage.region, "global")) if usage.speed or usage.region else ()
        for name, default in modes:
            factor = self.speeds.get(name.lower())
            if factor is not None:
                total = int((total * factor).to_integral_value(ROUND_CEILING))
            elif name.lower() == "fast":
                unpriced = unpriced or f"the {default} price is not that of the mode {name!r}"
        cost = -(-total // PER) + self.fees.request
        searches = usage.searches or int(searched or self.fees.always)
        fee = self.fees.searches(searches, size)
        if fee is None:
            unpriced = unpriced or "searches"
        if usage.maps and self.fees.maps is None:
            unpriced = unpriced or "questions to maps"
        maps = (self.fees.maps or 0) * (1 if self.fees.once and usage.maps else usage.maps)
        return Bill(cost + (fee or 0) + maps, self.source, self.currency, unpriced)

    def worst(self, tokens_in: int, tokens_out: int, size: str | None = None) -> int:
        """Return the most that a call of up to so many tokens can cost, in micro-units."""
        worst = self.rate.worst(tokens_in, tokens_out)
        for threshold, dearer in self.above:
            if tokens_in + self.inclusive > threshold:
                worst = max(worst, dearer.worst(tokens_in, tokens_out))
        fee = self.fees.searches(1, size) if self.fees.always else 0
        return worst + self.fees.request + (fee or 0)


# A tenant's own endpoint is paid by the tenant: its calls count in tokens and cost the platform nothing.
FREE = Price(
    rate=Rate(input=0, output=0, cached=0, cache_write=0, cache_write_hour=0, reasoning=0), source="own endpoint"
)
