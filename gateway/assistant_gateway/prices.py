"""What a model's tokens cost: the catalogue's word, else LiteLLM's map of public prices, else nobody knows.

Money is integers: micro-units of the currency (1 USD = 1,000,000), prices in micro-units per 1,000,000 tokens, sums
rounded up. The map is a data file of LiteLLM's package; it is read without importing LiteLLM, when first needed.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Protocol

import msgspec

from assistant_gateway.usage import Usage
from assistant_observability import logs

PER = 1_000_000  # tokens that a price is for; also micro-units of one unit of a currency
HIGHEST = 1_000_000 * PER  # a million units of the currency per million tokens: beyond it is a mistake
MAP_FILE = "model_prices_and_context_window_backup.json"

_WILD = re.compile(r"[*?\[]")
_DECIMAL = re.compile(r"[0-9]{1,7}(\.[0-9]{1,6})?")
_ABOVE = re.compile(r"input_cost_per_token_above_([0-9]+)k_tokens")
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
# What costs money by request, picture or second cannot be told in tokens.
_NOT_BY_TOKEN = (
    "input_cost_per_request",
    "input_cost_per_query",
    "input_cost_per_second",
    "output_cost_per_image",
    "output_cost_per_image_token",
    "output_cost_per_second",
    "output_cost_per_video_token",
    "output_cost_per_video_per_second",
)
# Ways of processing that a request may choose (`service_tier`) and that have prices of their own.
_DEARER_TIERS = {"priority": "priority", "fast": "priority", "ultrafast": "ultrafast", "balanced": "balanced"}
_STANDARD_TIERS = frozenset({"", "auto", "default", "standard", "standard_only", "on_demand", "flex"})
TIERS = tuple(sorted({*_DEARER_TIERS, *_STANDARD_TIERS} - {""}))  # what a request may say

_entry = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_log = logs.logger(__name__)


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Micro-units per million tokens of each kind."""

    input: int
    output: int
    cached: int
    cache_write: int
    cache_write_hour: int
    reasoning: int

    def cost(self, usage: Usage) -> int:
        """Return micro-units, rounded up."""
        fresh = usage.input - usage.cached - usage.cache_write
        total = (
            fresh * self.input
            + usage.cached * self.cached
            + (usage.cache_write - usage.cache_write_hour) * self.cache_write
            + usage.cache_write_hour * self.cache_write_hour
            + (usage.output - usage.reasoning) * self.output
            + usage.reasoning * self.reasoning
        )
        return -(-total // PER)

    def worst(self, tokens_in: int, tokens_out: int) -> int:
        """Return the most that so many tokens can cost."""
        total = tokens_in * max(self.input, self.cached, self.cache_write, self.cache_write_hour)
        return -(-(total + tokens_out * max(self.output, self.reasoning)) // PER)


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of a model's cost. `above`: rates of prompts longer than so many tokens, ascending."""

    rate: Rate
    above: tuple[tuple[int, Rate], ...] = ()
    currency: str = "USD"
    source: str  # stands in the ledger
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_image_tokens: int | None = None
    reasons: bool = False  # may use output that the client never sees

    def cost(self, usage: Usage) -> int:
        """Return what a call costs, in micro-units, rounded up."""
        rate = self.rate
        for threshold, dearer in self.above:
            if usage.input > threshold:
                rate = dearer
        return rate.cost(usage)

    def worst(self, tokens_in: int, tokens_out: int) -> int:
        """Return the most that a call of up to so many tokens can cost, in micro-units."""
        rates = [self.rate, *(rate for threshold, rate in self.above if tokens_in > threshold)]
        return max(rate.worst(tokens_in, tokens_out) for rate in rates)


# A tenant's own endpoint is paid by the tenant: its calls count in tokens and cost the platform nothing.
FREE = Price(
    rate=Rate(input=0, output=0, cached=0, cache_write=0, cache_write_hour=0, reasoning=0), source="own endpoint"
)


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
    for field, told in _LIMITS.items():
        value = getattr(settings, field)
        if value is not None and value < 1:
            raise PriceError(f"{told} has to be 1 or more")
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
        service_tier: the request's, as decoded.
    """
    if target.own:
        return FREE
    tier = tier_of(service_tier)
    if tier is None:
        return None
    found = public.price(target.billed_by, model, tier) if target.billed_by is not None else None
    entry = target.prices.find(model)
    if entry is None or entry.price is None:
        return msgspec.structs.replace(found, **entry.limits) if entry is not None and found is not None else found
    if tier or found is None:
        return None if tier else entry.price  # the catalogue's price is that of standard processing
    return msgspec.structs.replace(
        entry.price,
        max_input_tokens=entry.price.max_input_tokens or found.max_input_tokens,
        max_output_tokens=entry.price.max_output_tokens or found.max_output_tokens,
        reasons=found.reasons,
    )


def _micro(field: str, text: str) -> int:
    """Return a decimal string in micro-units: 0.40 is 400,000."""
    if not _DECIMAL.fullmatch(text):
        told = 'has to be a decimal string from "0" to "1000000" with at most six decimals, such as "0.40"'
        raise PriceError(f"{field} {told}")
    value = int(Decimal(text) * PER)
    if value > HIGHEST:
        raise PriceError(f"{field} is more than a million per million tokens")
    return value


class PriceMap:
    """LiteLLM's map. Only what was asked for is kept: the file has thousands of models, a platform uses a few."""

    def __init__(self, file: Path | None, version: str) -> None:
        self._file = file
        self._source = f"litellm {version}"
        self._entries: Mapping[str, msgspec.Raw] | None = None
        self._known: dict[tuple[str, str, str], Price | None] = {}

    @classmethod
    def installed(cls) -> PriceMap:
        """Return the map of the installed LiteLLM, an empty one where it is not installed. Nothing is imported."""
        found = importlib.util.find_spec("litellm")
        if found is None or not found.submodule_search_locations:
            return cls(None, "")
        folder = next(iter(found.submodule_search_locations))
        return cls(Path(folder) / MAP_FILE, importlib.metadata.version("litellm"))

    def price(self, family: str, model: str, tier: str = "") -> Price | None:
        """Return the price of `model` as `family` bills it; `tier` is a dearer way of processing."""
        key = (family, model, tier)
        if key not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[key] = self._find(family, model, tier)
        return self._known[key]

    def _find(self, family: str, model: str, tier: str) -> Price | None:
        entries = self._load()
        for name in (f"{family}/{model}", model):
            raw = entries.get(name)
            entry = _entry.decode(raw) if raw is not None else {}
            # A bare name belongs to whoever the entry says: "gpt-4o" is OpenAI's price, not that of a reseller.
            if re.split("[_-]", str(entry.get("litellm_provider")))[0] != re.split("[_-]", family)[0]:
                continue
            if (found := self._read(entry, tier)) is not None:
                return found
        return None

    def _load(self) -> Mapping[str, msgspec.Raw]:
        if self._entries is None:
            self._entries = {}
            if self._file is not None:
                try:
                    self._entries = msgspec.json.decode(self._file.read_bytes(), type=dict[str, msgspec.Raw])
                except (OSError, msgspec.MsgspecError) as error:
                    _log.error("no public prices", file=self._file.name, error=str(error))
        return self._entries

    def _read(self, entry: dict[str, Any], tier: str) -> Price | None:
        suffix = f"_{tier}" if tier else ""
        rate = _rate(entry, "", suffix)
        if rate is None or any(entry.get(name) for name in _NOT_BY_TOKEN):
            return None
        above = []
        for threshold in sorted({int(found[1]) for name in entry if (found := _ABOVE.fullmatch(name))}):
            dearer = _rate(entry, f"_above_{threshold}k_tokens", suffix) or _rate(
                entry, f"_above_{threshold}k_tokens", ""
            )
            if dearer is not None:
                above.append((threshold * 1000, dearer))
        return Price(
            rate=rate,
            above=tuple(above),
            source=self._source,
            max_input_tokens=_whole(entry.get("max_input_tokens")),
            max_output_tokens=_whole(entry.get("max_output_tokens")),
            reasons=entry.get("supports_reasoning") is True,
        )


def _rate(entry: dict[str, Any], above: str, suffix: str) -> Rate | None:
    """Return the rate of one length of prompt and one tier, None where input or output has no usable price."""

    def price(name: str) -> int | None:
        return _per_million(entry.get(f"{name}{above}{suffix}"))

    asked = price("input_cost_per_token")
    answered = price("output_cost_per_token")
    if answered is None and entry.get("mode") == "embedding":
        answered = 0
    # Zero stands for "free of charge for now" and for "nobody has looked it up"; the catalogue can say which it is.
    if not asked or answered is None or (answered == 0 and entry.get("mode") != "embedding"):
        return None
    cached, written = price("cache_read_input_token_cost"), price("cache_creation_input_token_cost")
    write = asked if written is None else written
    hour = _per_million(entry.get(f"cache_creation_input_token_cost_above_1hr{above}"))
    reasoning = price("output_cost_per_reasoning_token")
    return Rate(
        input=asked,
        output=answered,
        cached=asked if cached is None else cached,
        cache_write=write,
        cache_write_hour=write if hour is None else hour,
        reasoning=answered if reasoning is None else reasoning,
    )


def _per_million(value: object) -> int | None:
    """Return units of currency per token in micro-units per million tokens, rounded up; None if absent or absurd."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    try:
        scaled = int((Decimal(value) * PER * PER).to_integral_value(ROUND_CEILING))
    except (InvalidOperation, ValueError, OverflowError):
        return None
    return scaled if 0 <= scaled <= HIGHEST else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


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
