"""What a call costs: the catalogue's word, else LiteLLM's map of public prices (`price_map`), else nobody knows.

Money is integers: micro-units of the currency (1 USD = 1,000,000), prices in micro-units per 1,000,000 tokens, sums
rounded up.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

import msgspec

from assistant_gateway.providers.price_map import PriceMap
from assistant_gateway.providers.rates import FREE, HIGHEST, PER, Price, Rate

_WILD = re.compile(r"[*?\[]")
_DECIMAL = re.compile(r"[0-9]{1,7}(\.[0-9]{1,6})?")
# Whoever is behind an address sends the bill: host names, and the map's name for the provider.
_BILLED_BY = {
    "api.openai.com": "openai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "openrouter.ai": "openrouter",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gemini",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "xai",
    "api.together.xyz": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
    "api.perplexity.ai": "perplexity",
    "api.deepinfra.com": "deepinfra",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.moonshot.ai": "moonshot",
    "api.cerebras.ai": "cerebras",
    "api.voyageai.com": "voyage",
}
# Ways of processing that a request may choose (`service_tier`), and the map's names of those that are dearer.
_DEARER_TIERS = {"priority": "priority", "fast": "priority", "ultrafast": "ultrafast", "balanced": "balanced"}
_STANDARD_TIERS = frozenset({"", "auto", "default", "standard", "standard_only", "on_demand", "flex"})
TIERS = tuple(sorted({*_DEARER_TIERS, *_STANDARD_TIERS} - {""}))  # what a request may say
# What answers may say besides, in the map's words; Gemini's `trafficType` among it.
_SERVED_TIERS = {
    **dict.fromkeys(_STANDARD_TIERS, ""),
    **_DEARER_TIERS,
    "flex": "flex",
    "on_demand_flex": "flex",
    "on_demand_priority": "priority",
    "provisioned_throughput": "",
}
# Whose answers state what they charge, and who charge just that. Of others it is a figure of their own.
STATE_THEIR_COST = frozenset({"openrouter", "perplexity", "xai"})


class ModelSettings(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """The catalogue's entry for the models that a pattern matches. Prices are decimal strings per million tokens."""

    input_per_million: str | None = None
    cached_input_per_million: str | None = None  # default: as input
    cache_write_per_million: str | None = None  # default: as input
    output_per_million: str | None = None
    currency: str = "USD"
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_image_tokens: int | None = None


class CatalogPrice(msgspec.Struct, frozen=True):
    """A checked entry. `price` is None where the entry sets limits only."""

    price: Price | None
    limits: Mapping[str, int]


_LIMITS = {
    "max_input_tokens": "maxInputTokens",
    "max_output_tokens": "maxOutputTokens",
    "max_image_tokens": "maxImageTokens",
}


class ModelPrices:
    """One provider's entries, by pattern. A name in full wins, then the longest pattern; `*` is the default."""

    def __init__(self, entries: Mapping[str, CatalogPrice]) -> None:
        self._entries = entries
        self._patterns = sorted((name for name in entries if _WILD.search(name)), key=lambda name: (-len(name), name))

    def find(self, model: str) -> CatalogPrice | None:
        """Return the entry for a model."""
        if (exact := self._entries.get(model)) is not None:
            return exact
        matching = (pattern for pattern in self._patterns if fnmatch.fnmatchcase(model, pattern))
        return next((self._entries[pattern] for pattern in matching), None)


class PriceError(ValueError):
    """An entry of the catalogue cannot be used, and why."""


def checked(settings: ModelSettings) -> CatalogPrice:
    """Check an entry of the catalogue.

    Raises:
        PriceError: what is wrong, naming the field.
    """
    limits = {}
    for field, rule in _LIMITS.items():
        value = getattr(settings, field)
        if value is not None and value < 1:
            raise PriceError(f"{rule} has to be 1 or more")
        if value is not None:
            limits[field] = value
    if settings.input_per_million is None and settings.output_per_million is None:
        if settings.cached_input_per_million is not None or settings.cache_write_per_million is not None:
            raise PriceError("prices of cached input need inputPerMillion and outputPerMillion too")
        return CatalogPrice(None, limits)
    if settings.input_per_million is None or settings.output_per_million is None:
        raise PriceError('inputPerMillion and outputPerMillion go together (outputPerMillion "0" for embeddings)')
    if not re.fullmatch(r"[A-Z]{3}", settings.currency):
        raise PriceError("currency has to be three capital letters, such as USD")
    asked = _micro("inputPerMillion", settings.input_per_million)
    answered = _micro("outputPerMillion", settings.output_per_million)
    cached = settings.cached_input_per_million
    written = settings.cache_write_per_million
    write = asked if written is None else _micro("cacheWritePerMillion", written)
    rate = Rate(
        input=asked,
        output=answered,
        cached=asked if cached is None else _micro("cachedInputPerMillion", cached),
        cache_write=write,
        cache_write_hour=write,
        reasoning=answered,
    )
    return CatalogPrice(Price(rate=rate, currency=settings.currency, source="catalogue", **limits), limits)


class Seller(Protocol):
    """What a price depends on besides the model; the catalogue's targets have it."""

    @property
    def own(self) -> bool:
        """Whether it is the tenant's own endpoint."""

    @property
    def billed_by(self) -> str | None:
        """LiteLLM's name of who sends the bill."""

    @property
    def prices(self) -> ModelPrices:
        """The catalogue's entries."""


def price_of(target: Seller, model: str, public: PriceMap, service_tier: object = None) -> Price | None:
    """Return the price of a model at a provider, None where nobody knows it.

    Args:
        target: the provider; a tenant's own costs the platform nothing.
        model: as the provider calls it.
        public: what is known besides the catalogue.
        service_tier: as a request or an answer names it, decoded.
    """
    if target.own:
        return FREE
    tier = service_tier if service_tier == "flex" else tier_of(service_tier)
    if not isinstance(tier, str):
        return None
    found = public.price(target.billed_by, model, tier) if target.billed_by is not None else None
    entry = target.prices.find(model)
    if entry is None or entry.price is None:
        return msgspec.structs.replace(found, **entry.limits) if entry is not None and found is not None else found
    if tier in _DEARER_TIERS.values():
        return None  # the catalogue's price is that of standard processing
    if found is None:
        return entry.price
    return msgspec.structs.replace(
        entry.price,
        max_input_tokens=entry.price.max_input_tokens or found.max_input_tokens,
        max_output_tokens=entry.price.max_output_tokens or found.max_output_tokens,
        reasons=found.reasons,
        fees=found.fees,
        open_ended=found.open_ended,
    )


def served_price(
    target: Seller, model: str, public: PriceMap, asked: tuple[Price | None, str], tier: str
) -> Price | None:
    """Return the price of the tier that an answer names.

    A tier that has none is charged at the dearest that is known: a price too low would let calls past a budget.

    Args:
        target: the provider.
        model: as the provider calls it.
        public: what is known besides the catalogue.
        asked: the price of what the request asked for, and its tier.
        tier: as the answer names it; empty where it says nothing.
    """
    price, asked_tier = asked
    name = tier.lower()
    served = _SERVED_TIERS.get(name)
    if price is None or target.own or name in {"", "auto"} or served == asked_tier:
        return price
    found = price_of(target, model, public, served) if served is not None else None
    if found is not None:
        return found
    known = [price_of(target, model, public, name) for name in ("", *sorted(set(_DEARER_TIERS.values())))]
    dearest = max((each for each in (price, *known) if each is not None), key=lambda each: each.worst(PER, PER))
    return msgspec.structs.replace(dearest, source=f"{dearest.source}, dearest tier: no price of {tier!r}")


def _micro(field: str, text: str) -> int:
    """Return a decimal string in micro-units: 0.40 is 400,000."""
    if not _DECIMAL.fullmatch(text):
        rule = 'has to be a decimal string from "0" to "1000000" with at most six decimals, such as "0.40"'
        raise PriceError(f"{field} {rule}")
    value = int(Decimal(text) * PER)
    if value > HIGHEST:
        raise PriceError(f"{field} is more than a million per million tokens")
    return value


def family_of(host: str | None) -> str | None:
    """Return who sends the bill for calls to a host, in the map's words."""
    if host is not None and host.endswith(".openai.azure.com"):
        return "azure"
    return _BILLED_BY.get(host or "")


def tier_of(service_tier: object) -> str | None:
    """Return the dearer tier a request asks for, "" for the standard one, None for one whose price nobody knows."""
    if service_tier is None:
        return ""
    if not isinstance(service_tier, str):
        return None
    name = service_tier.lower()
    return "" if name in _STANDARD_TIERS else _DEARER_TIERS.get(name)  # flex is cheaper, and may not be granted
