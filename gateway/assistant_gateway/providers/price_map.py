"""LiteLLM's map of public prices: a data file of its package, read without importing LiteLLM, when first needed.

Every field of it that has to do with a call of chat or embeddings is read here, or named in `_BY_THE_PIECE`: then the
model has no price. A test walks the whole map and compares with LiteLLM's own arithmetic.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec

from assistant_gateway.providers.rates import HIGHEST, PER, Fees, Price, Rate
from assistant_observability import logs

MAP_FILE = "model_prices_and_context_window_backup.json"
FIREWORKS_CACHED = Decimal("0.5")  # of the input's price, where the map has none

_ABOVE = re.compile(r"input_cost_per_token_above_([0-9]+)k_tokens")
_ALWAYS_SEARCH = re.compile(r"-search-(preview|api)(-|$)")
_ENDLESS = re.compile(r"deep-research")
# What costs money by time or length cannot be told from what answers report.
_BY_THE_PIECE = (
    "input_cost_per_query",
    "input_cost_per_second",
    "cost_per_second",
    "output_cost_per_second",
    "output_cost_per_video_per_second",
)
_INCLUSIVE = frozenset({"xai"})

_entry = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_log = logs.logger(__name__)


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
        """Return the price of `model` as `family` bills it; `tier` is a way of processing with a price of its own."""
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
            if (found := self._read(family, model, entry, tier)) is not None:
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

    def _read(self, family: str, model: str, entry: dict[str, Any], tier: str) -> Price | None:
        if any(entry.get(name) for name in _BY_THE_PIECE):
            return None
        if tier and tier != "flex" and f"input_cost_per_token_{tier}" not in entry:
            return None
        rates = _stairs(family, entry) or _flat(family, entry, tier)
        if rates is None:
            return None
        return Price(
            rate=rates[0],
            above=rates[1],
            inclusive=family in _INCLUSIVE,
            fees=_fees(family, model, entry),
            speeds=_factors(entry),
            open_ended=bool(_ENDLESS.search(model)),
            source=self._source,
            max_input_tokens=_whole(entry.get("max_input_tokens")),
            max_output_tokens=_whole(entry.get("max_output_tokens")),
            reasons=entry.get("supports_reasoning") is True,
        )


_Rates = tuple[Rate, tuple[tuple[int, Rate], ...]]


class _Prices:
    """The prices of one entry, for one tier, and for one length of prompt or a shorter one that has a price."""

    def __init__(self, entry: Mapping[str, Any], tier: str, above: tuple[int, ...] = ()) -> None:
        self._entry = entry
        self._tier = tier
        self._above = above  # thresholds that the prompt passes, in thousands, ascending

    def __call__(self, name: str) -> int | None:
        """Return a price per million tokens."""
        for threshold in reversed(self._above):
            if (price := self._tiered(f"{name}_above_{threshold}k_tokens")) is not None:
                return price
        return self._tiered(name)

    def _tiered(self, name: str) -> int | None:
        """Return the price of the tier, else the standard one, as LiteLLM does."""
        names = (f"{name}_{self._tier}", name) if self._tier else (name,)
        return next((price for key in names if (price := _per_million(self._entry.get(key))) is not None), None)

    def own(self, name: str) -> bool:
        """Whether the tier has a price of its own for something."""
        return bool(self._tier) and _per_million(self._entry.get(f"{name}_{self._tier}")) is not None


def _flat(family: str, entry: dict[str, Any], tier: str) -> _Rates | None:
    """Return the rates that are written as fields."""
    base = _rate(family, entry, _Prices(entry, tier))
    if base is None:
        return None
    above, passed = [], []
    for threshold in sorted({int(found[1]) for name in entry if (found := _ABOVE.fullmatch(name))}):
        passed.append(threshold)
        dearer = _rate(family, entry, _Prices(entry, tier, tuple(passed)))
        if dearer is not None:
            above.append((threshold * 1000, dearer))
    return base, tuple(above)


def _stairs(family: str, entry: dict[str, Any]) -> _Rates | None:
    """Return the rates that are written as a table of ranges of the prompt's length."""
    table = entry.get("tiered_pricing")
    steps = []
    for step in table if isinstance(table, list) else ():
        bounds = step.get("range") if isinstance(step, dict) else None
        if not isinstance(bounds, list) or len(bounds) != 2 or "input_cost_per_token" not in step:
            continue
        whole = {**step, "mode": entry.get("mode")}
        whole.setdefault("output_cost_per_token", entry.get("output_cost_per_token"))
        rate = _rate(family, whole, _Prices(whole, ""))
        if rate is not None:
            steps.append((int(bounds[0]), rate))
    steps.sort(key=lambda step: step[0])
    return (steps[0][1], tuple(steps[1:])) if steps else None


def _rate(family: str, entry: dict[str, Any], price: _Prices) -> Rate | None:
    """Return the rate of one length of prompt and one tier, None where input or output has no usable price."""
    asked, answered = price("input_cost_per_token"), price("output_cost_per_token")
    pictures = price("output_cost_per_image_token")
    if answered is None and entry.get("mode") == "embedding":
        answered = 0
    if not answered and pictures:
        answered = pictures  # all that such models write
    # Zero stands for "free of charge for now" and for "nobody has looked it up"; the catalogue can say which it is.
    if not asked or answered is None or (answered == 0 and entry.get("mode") != "embedding"):
        return None
    cached, written = price("cache_read_input_token_cost"), price("cache_creation_input_token_cost")
    if cached is None and family == "fireworks_ai" and entry.get("mode") != "embedding":
        cached = _per_million(Decimal(asked) * FIREWORKS_CACHED / PER / PER)
    write = asked if written is None else written
    hour, half_day = (price(f"cache_creation_input_token_cost_above_{time}") for time in ("1hr", "12hr"))
    reasoning = price("output_cost_per_reasoning_token")
    if price.own("output_cost_per_token") and not price.own("output_cost_per_reasoning_token"):
        reasoning = answered
    return Rate(
        input=asked,
        output=answered,
        cached=asked if cached is None else cached,
        cache_write=write,
        cache_write_hour=write if hour is None else hour,
        cache_write_half_day=half_day,
        reasoning=answered if reasoning is None else reasoning,
        audio_input=price("input_cost_per_audio_token"),
        audio_cached=price("cache_read_input_audio_token_cost"),
        image_input=price("input_cost_per_image_token"),
        image_cached=price("cache_read_input_image_token_cost"),
        video_input=price("input_cost_per_video_token"),
        audio_output=price("output_cost_per_audio_token"),
        image_output=pictures,
        video_output=price("output_cost_per_video_token"),
        citation=price("citation_cost_per_token"),
    )


def _fees(family: str, model: str, entry: dict[str, Any]) -> Fees:
    """Return what is charged by the piece."""
    table = entry.get("search_context_cost_per_query")
    search = None
    if isinstance(table, dict):
        sizes = {size: _micro(table.get(f"search_context_size_{size}")) for size in ("low", "medium", "high")}
        search = {size: fee for size, fee in sizes.items() if fee is not None}
    searches_itself = family == "perplexity" and search is not None
    return Fees(
        request=_micro(entry.get("input_cost_per_request")) or 0,
        search=search or None,
        size="low" if family == "perplexity" else "medium",
        once=family == "gemini" and entry.get("web_search_billing_unit", "per_prompt") == "per_prompt",
        always=searches_itself or bool(search and _ALWAYS_SEARCH.search(model)),
        maps=_micro(entry.get("google_maps_grounding_cost_per_query")),
    )


def _factors(entry: dict[str, Any]) -> dict[str, Decimal]:
    """Return what prices are multiplied with in faster modes and in some regions."""
    table = entry.get("provider_specific_entry")
    factors = {}
    for name, factor in table.items() if isinstance(table, dict) else ():
        if isinstance(factor, int | Decimal) and not isinstance(factor, bool) and 0 < factor < 100:
            factors[str(name).lower()] = Decimal(factor)
    return factors


def _micro(value: object) -> int | None:
    """Return units of currency in micro-units, rounded up; None if absent or absurd."""
    price = _per_million(value)
    return None if price is None else -(-price // PER)


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
