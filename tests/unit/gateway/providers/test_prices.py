"""Prices: where they come from, which one wins, and that sums are exact, rounded up and never negative."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from assistant_gateway.providers.catalog import Catalog, CatalogError, Provider, Target, target
from assistant_gateway.providers.prices import (
    FREE,
    CatalogPrice,
    ModelSettings,
    Price,
    PriceError,
    PriceMap,
    Rate,
    checked,
    price_of,
    tier_of,
)
from assistant_gateway.wire.usage import Usage

PUBLIC: dict[str, dict[str, Any]] = {
    "gpt-small": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07,
        "cache_read_input_token_cost": 7.5e-08,
        "input_cost_per_token_priority": 2.5e-07,
        "output_cost_per_token_priority": 1e-06,
        "max_input_tokens": 128000,
        "max_output_tokens": 16384,
    },
    "thinker": {
        "litellm_provider": "openai",
        "mode": "responses",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 4e-06,
        "output_cost_per_reasoning_token": 8e-06,
        "supports_reasoning": True,
    },
    "gemini/pro": {
        "litellm_provider": "gemini",
        "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
    },
    "claude": {
        "litellm_provider": "anthropic",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 5e-06,
        "cache_read_input_token_cost": 1e-07,
        "cache_creation_input_token_cost": 1.25e-06,
        "cache_creation_input_token_cost_above_1hr": 2e-06,
    },
    "embed": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 2e-08},
    "negative": {"litellm_provider": "openai", "input_cost_per_token": -1e-06, "output_cost_per_token": 1e-06},
    "absurd": {"litellm_provider": "openai", "input_cost_per_token": 1e300, "output_cost_per_token": 1e-06},
    "text": {"litellm_provider": "openai", "input_cost_per_token": "free", "output_cost_per_token": None},
    "half": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06},
    "by-request": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 1e-06,
        "input_cost_per_request": 0.005,
    },
    "by-second": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 1e-06,
        "input_cost_per_second": 0.005,
    },
    "zero": {"litellm_provider": "openai", "input_cost_per_token": 0, "output_cost_per_token": 0},
    "pictures": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 1e-06,
        "output_cost_per_image_token": 3e-05,
    },
    "resold": {"litellm_provider": "reseller", "input_cost_per_token": 1e-09, "output_cost_per_token": 1e-09},
}


@pytest.fixture
def public(tmp_path: Path) -> PriceMap:
    file = tmp_path / "map.json"
    file.write_text(json.dumps(PUBLIC))
    return PriceMap(file, "1.2.3")


def provider(url: str = "https://api.openai.com/v1", **models: ModelSettings) -> Target:
    return target("p", Provider(url=url, models=models), None)


def known(target: Target, model: str, public: PriceMap, tier: object = None) -> Price:
    price = price_of(target, model, public, tier)
    assert price is not None
    return price


def test_public_prices_are_read_as_exact_integers(public: PriceMap) -> None:
    """0.15 USD per million tokens is 150,000 micro-units, with the limits and the source beside it."""
    price = known(provider(), "gpt-small", public)
    assert price.rate == Rate(
        input=150_000, output=600_000, cached=75_000, cache_write=150_000, cache_write_hour=150_000, reasoning=600_000
    )
    assert (price.currency, price.source) == ("USD", "litellm 1.2.3")
    assert (price.max_input_tokens, price.max_output_tokens, price.reasons) == (128000, 16384, False)


def test_cached_reasoning_and_written_tokens_have_their_own_prices(public: PriceMap) -> None:
    """Each kind of token is charged once, at its own price."""
    claude = known(provider("https://api.anthropic.com/v1"), "claude", public)
    usage = Usage(input=10_000, cached=4_000, cache_write=3_000, cache_write_hour=1_000, output=1_000)
    assert claude.cost(usage) == 3_000 + 400 + 2_500 + 2_000 + 5_000
    thinker = known(provider(), "thinker", public)
    assert thinker.cost(Usage(input=1_000, output=1_000, reasoning=600)) == 1_000 + 1_600 + 4_800
    assert thinker.reasons


def test_long_prompts_are_charged_as_a_whole_at_the_higher_rate(public: PriceMap) -> None:
    """Above the threshold every token costs more; the worst case knows it."""
    price = known(provider("https://generativelanguage.googleapis.com/v1beta/openai"), "pro", public)
    assert price.cost(Usage(input=200_000, output=1_000)) == 250_000 + 10_000
    assert price.cost(Usage(input=200_001, output=1_000)) == 500_003 + 15_000
    assert price.worst(200_001, 1_000) == 500_003 + 15_000
    assert price.worst(200_000, 1_000) == 250_000 + 10_000


def test_a_dearer_tier_has_its_own_price_or_none(public: PriceMap) -> None:
    """A request cannot buy faster processing at the standard price."""
    assert known(provider(), "gpt-small", public, "priority").rate.input == 250_000
    assert known(provider(), "gpt-small", public, "flex").rate.input == 150_000
    assert price_of(provider(), "thinker", public, "priority") is None
    assert price_of(provider(), "gpt-small", public, "platinum") is None
    own = provider(m=ModelSettings(input_per_million="1", output_per_million="1"))
    assert price_of(own, "m", public, "priority") is None
    assert tier_of(["priority"]) is None
    assert tier_of("auto") == ""
    assert tier_of("FAST") == "priority"


@pytest.mark.parametrize("model", ["negative", "absurd", "text", "half", "by-second", "zero", "resold", "unheard-of"])
def test_what_is_no_usable_price_is_none(public: PriceMap, model: str) -> None:
    """Negative, absurd, half, per request, another seller's, unknown: nobody knows, so nobody guesses."""
    assert price_of(provider(), model, public) is None


def test_fees_and_tokens_that_are_no_text_have_prices_of_their_own(public: PriceMap) -> None:
    """A fee per request is held and billed; pictures are charged as such, and the worst case knows it."""
    by_request = known(provider(), "by-request", public)
    assert by_request.cost(Usage(input=100, output=10)) == 5_000 + 110
    assert by_request.worst(100, 10) == 5_000 + 110
    pictures = known(provider(), "pictures", public)
    assert pictures.cost(Usage(input=100, output=100, image_output=90)) == 100 + 10 + 2_700
    assert pictures.worst(100, 100) == 100 + 3_000


def test_a_price_belongs_to_whoever_sends_the_bill(public: PriceMap) -> None:
    """The same model's name at another host has no price, unless the catalogue says who sends the bill."""
    elsewhere = "http://vllm.models.svc:8000/v1"
    assert price_of(provider(elsewhere), "gpt-small", public) is None
    said = target("p", Provider(url=elsewhere, billed_by="openai"), None)
    assert known(said, "gpt-small", public).rate.input == 150_000


def test_a_tenants_own_endpoint_costs_the_platform_nothing(public: PriceMap) -> None:
    """Whatever the model is called, the tenant pays its provider itself."""
    own = target("endpoint", Provider(url="https://api.openai.com/v1"), None, own=True)
    assert price_of(own, "gpt-small", public) is FREE
    assert FREE.cost(Usage(input=10**6, output=10**6)) == 0


def test_the_catalogue_wins_and_the_most_specific_pattern_first(public: PriceMap) -> None:
    """A name in full, then the longest pattern, then the provider's default; limits alone keep the public price."""
    cheap, dear, exact = (ModelSettings(input_per_million=p, output_per_million=p) for p in ("1", "2", "3"))
    limits = ModelSettings(max_output_tokens=100, max_image_tokens=50)
    settings = {"*": cheap, "gpt-*": dear, "gpt-x": exact, "gpt-small": limits}
    at = target("p", Provider(url="https://api.openai.com/v1", models=settings), None)
    assert known(at, "gpt-x", public).rate.input == 3_000_000
    assert known(at, "gpt-y", public).rate.input == 2_000_000
    assert known(at, "other", public).rate.input == 1_000_000
    assert known(at, "other", public).source == "catalogue"
    limited = known(at, "gpt-small", public)
    assert (limited.rate.input, limited.max_output_tokens, limited.max_image_tokens) == (150_000, 100, 50)
    named = provider(thinker=exact)
    assert known(named, "thinker", public).reasons, "a price does not change what a model does"


def test_embeddings_have_no_output_price(public: PriceMap) -> None:
    """The map gives embedding models an input price only, and that is whole."""
    assert known(provider(), "embed", public).cost(Usage(input=1_000_001)) == 20_001


@pytest.mark.parametrize("content", [b"", b"[]", b"not json", None])
def test_without_a_readable_map_only_the_catalogue_has_prices(tmp_path: Path, content: bytes | None) -> None:
    """A missing or broken file is told in the log and prices nothing."""
    file = tmp_path / "map.json"
    if content is not None:
        file.write_bytes(content)
    assert PriceMap(file, "1").price("openai", "gpt-small") is None
    assert PriceMap(None, "").price("openai", "gpt-small") is None


BAD = {
    "negative": ({"inputPerMillion": "-0.1", "outputPerMillion": "1"}, "inputPerMillion has to be a decimal string"),
    "infinite": ({"inputPerMillion": "1", "outputPerMillion": "inf"}, "outputPerMillion has to be a decimal string"),
    "finer than micro": ({"inputPerMillion": "0.0000001", "outputPerMillion": "1"}, "at most six decimals"),
    "too much": ({"inputPerMillion": "1000001", "outputPerMillion": "1"}, "more than a million"),
    "half": ({"inputPerMillion": "1"}, "go together"),
    "cached alone": ({"cachedInputPerMillion": "1"}, "need inputPerMillion"),
    "currency": ({"inputPerMillion": "1", "outputPerMillion": "1", "currency": "usd"}, "three capital letters"),
    "limit": ({"maxOutputTokens": 0}, "maxOutputTokens has to be 1 or more"),
    "a number": ({"inputPerMillion": 0.4, "outputPerMillion": "1"}, "Expected `str | null`, got `float`"),
    "unknown field": ({"inputPerMilion": "1"}, "unknown field `inputPerMilion`"),
}


@pytest.mark.parametrize(("entry", "told"), BAD.values(), ids=BAD)
def test_mistakes_in_the_catalogue_are_told(tmp_path: Path, entry: dict[str, Any], told: str) -> None:
    """A price that is wrong keeps the catalogue from loading, and the sentence says where and why."""
    file = tmp_path / "catalog.yaml"
    file.write_text(yaml.safe_dump({"providers": {"openai": {"url": "https://x.example", "models": {"gpt-*": entry}}}}))
    with pytest.raises(CatalogError) as caught:
        Catalog(file, tmp_path).load()
    assert told in str(caught.value)
    assert "openai" in str(caught.value) or "$.providers" in str(caught.value)


def test_a_good_catalogue_gives_targets_with_prices(tmp_path: Path, public: PriceMap) -> None:
    """From the file that the chart renders to the price of a call."""
    file = tmp_path / "catalog.yaml"
    prices = {"inputPerMillion": "0.40", "cachedInputPerMillion": "0.1", "outputPerMillion": "1.600000"}
    file.write_text(yaml.safe_dump({"providers": {"x": {"url": "https://x.example", "models": {"m-*": prices}}}}))
    catalog = Catalog(file, tmp_path)
    catalog.load()
    price = known(catalog.targets["x"], "m-1", public)
    assert price.cost(Usage(input=1_000, cached=500, output=100)) == 200 + 50 + 160
    assert price_of(catalog.targets["x"], "other", public) is None


RATES = st.builds(
    Rate,
    **{name: st.integers(0, 10**9) for name in ("input", "output", "cached", "cache_write", "reasoning")},
    cache_write_hour=st.integers(0, 10**9),
)


@given(RATES, RATES, st.integers(0, 10**6), st.lists(st.integers(0, 10**6), min_size=6, max_size=6))
def test_cost_is_exact_and_never_more_than_the_worst_case(
    rate: Rate, dearer: Rate, threshold: int, counts: list[int]
) -> None:
    """Against fractions: rounded up by less than one micro-unit, and a hold covers every way a call can go."""
    fresh, cached, written, hour, plain, reasoning = counts
    usage = Usage(
        input=fresh + cached + written + hour,
        cached=cached,
        cache_write=written + hour,
        cache_write_hour=hour,
        output=plain + reasoning,
        reasoning=reasoning,
    )
    price = Price(rate=rate, above=((threshold, dearer),), source="test")
    used = dearer if usage.input > threshold else rate
    exact = Fraction(
        fresh * used.input
        + cached * used.cached
        + written * used.cache_write
        + hour * used.cache_write_hour
        + plain * used.output
        + reasoning * used.reasoning,
        10**6,
    )
    cost = price.cost(usage)
    assert exact <= cost < exact + 1
    assert cost <= price.worst(usage.input, usage.output)
    assert cost <= price.worst(usage.input + 1000, usage.output + 1000)


@given(st.decimals(min_value=0, max_value=1_000_000, places=6))
def test_decimal_strings_become_micro_units_without_loss(amount: Any) -> None:
    """Every string that is accepted is worth exactly what it says."""
    made = checked(ModelSettings(input_per_million=str(amount), output_per_million="0"))
    assert isinstance(made, CatalogPrice)
    assert made.price is not None
    assert made.price.rate.input == amount * 10**6


def test_exponents_and_signs_are_no_decimal_strings() -> None:
    """`1e3`, `+1`, `.5`, `1_000` and digits of other scripts are refused."""
    for text in ("1e3", "+1", ".5", "1.", "1_000", " 1", "1\n", "\u0661", ""):
        with pytest.raises(PriceError):
            checked(ModelSettings(input_per_million=text, output_per_million="1"))
