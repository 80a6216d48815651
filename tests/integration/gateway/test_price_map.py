"""The whole map of public prices against LiteLLM's own arithmetic, for every shape of usage that changes a bill."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from assistant_gateway.providers.catalog import Provider, target
from assistant_gateway.providers.litellm import load
from assistant_gateway.providers.price_map import PriceMap
from assistant_gateway.providers.prices import served_price
from assistant_gateway.wire.usage import usage_of

LONG = os.environ.get("TEST_LONG") == "1"
FAMILIES = (
    *("openai", "azure", "anthropic", "bedrock", "gemini", "cohere", "mistral", "groq", "moonshot", "cerebras"),
    *("deepinfra", "voyage", "deepseek", "xai", "together_ai", "fireworks_ai", "perplexity", "openrouter"),
)
MODES = frozenset({"chat", "completion", "responses", "embedding", "image_generation", None})
TIERS = ("", "priority", "flex", "ultrafast", "balanced")
KEPT = {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 300}
SHAPES: dict[str, tuple[int, int, dict[str, Any], dict[str, Any]]] = {
    "plain": (1000, 100, {}, {}),
    "cached": (1000, 100, {"cached_tokens": 400}, {}),
    "written": (1000, 100, {"cached_tokens": 100, "cache_creation_tokens": 500}, {}),
    "for an hour": (1000, 100, {"cache_creation_tokens": 500, "cache_creation_token_details": KEPT}, {}),
    "for half a day": (1000, 100, {"cached_tokens": 100, "cache_write_tokens": 500, "cache_creation_token_details":
        {"ephemeral_12h_input_tokens": 500}}, {}),
    "long": (300_000, 1000, {"cached_tokens": 1000, "cache_creation_tokens": 500, "cache_creation_token_details": KEPT},
        {}),
    "very long": (900_000, 1000, {"cached_tokens": 1000}, {"reasoning_tokens": 500}),
    "long with sound": (300_000, 1000, {"audio_tokens": 200_000, "image_tokens": 1000}, {}),
    "reasoning": (1000, 500, {}, {"reasoning_tokens": 300}),
    "sound": (1000, 100, {"audio_tokens": 900}, {"audio_tokens": 90}),
    "cached sound": (1000, 100, {"audio_tokens": 900, "text_tokens": 100, "cached_tokens": 500,
        "cached_tokens_details": {"audio_tokens": 450, "text_tokens": 50}}, {}),
    "sound and cache": (1000, 100, {"audio_tokens": 900, "cached_tokens": 500}, {}),
    "pictures": (1000, 1000, {"image_tokens": 500, "video_tokens": 100}, {"image_tokens": 900, "video_tokens": 50,
        "reasoning_tokens": 20}),
}  # fmt: skip


def exception(family: str, model: str, entry: dict[str, Any], tier: str) -> str | None:
    """Return why a price may be another than LiteLLM's, None where it may not."""
    if "off_peak_pricing" in entry:
        return "charged at the standard price at any hour: too much at night, never too little"
    if family == "fireworks_ai" and tier:
        return "LiteLLM's calculator for Fireworks is not told the tier; the map has a price of it"
    if family == "perplexity" and "/" in model.removeprefix("perplexity/"):
        return "LiteLLM's calculator for Perplexity leaves out the prices of long prompts and of writing to a cache"
    if family == "perplexity" and entry.get("mode") == "responses":
        return "LiteLLM takes a name that begins with the provider's for the model without it"
    return None


def models(prices: PriceMap) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every entry of chat or embeddings, with the family that it is asked of and the name there."""
    for name, raw in prices._load().items():
        entry = msgspec.json.decode(raw)
        seller = str(entry.get("litellm_provider")).replace("-", "_").split("_")[0]
        for family in FAMILIES:
            if seller == family.split("_")[0] and entry.get("mode") in MODES:
                yield family, name.removeprefix(f"{family}/"), entry


def told(shape: str) -> dict[str, Any]:
    """Return a usage object."""
    asked, answered, details, written = copy.deepcopy(SHAPES[shape])
    whole: dict[str, Any] = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
    if details:
        whole["prompt_tokens_details"] = details
    if written:
        whole["completion_tokens_details"] = written
    return whole


def litellm_says(
    library: Any, family: str, model: str, usage: dict[str, Any], tier: str, *, cohere: bool
) -> float | None:
    """Return LiteLLM's cost in micro-USD, None where it does not know the model."""
    seller = "cohere_chat" if family == "cohere" and cohere else family
    said = library.types.utils.Usage(**usage)
    try:
        costs = library.cost_per_token(
            model=model, custom_llm_provider=seller, usage_object=said, service_tier=tier or None
        )
    except Exception as error:
        if type(error).__name__ != "ModelNotMappedError":
            raise
        return None
    return float(sum(costs)) * 1e6


@pytest.mark.timeout(3000 if LONG else 600)
def test_every_price_of_the_map_is_litellms_own_arithmetic() -> None:
    """Each model with one shape and one tier after the other in `make test`, each with all of them in the long run."""
    library = load()
    prices = PriceMap.installed()
    compared, excepted, wrong = 0, set(), []
    for number, (family, model, entry) in enumerate(models(prices)):
        for at, (shape, tier) in enumerate((shape, tier) for tier in TIERS for shape in SHAPES):
            # Every model is asked plainly; of the others a different one each.
            if not LONG and at and at != 1 + number % (len(SHAPES) * len(TIERS) - 1):
                continue
            price = prices.price(family, model, tier)
            if price is None:
                continue
            if (why := exception(family, model, entry, tier)) is not None:
                excepted.add(why)
                continue
            micros = litellm_says(library, family, model, told(shape), tier, cohere=entry.get("mode") == "chat")
            if micros is None:
                excepted.add("LiteLLM does not find a model of a sibling of the provider under its bare name")
                continue
            if not micros:
                excepted.add("LiteLLM bills nothing: a price of zero is none here, and that of a namesake may be found")
                continue
            compared += 1
            fees = price.fees.request + (price.fees.searches(1, None) or 0 if price.fees.always else 0)
            ours = (price.bill(usage_of(told(shape))).cost or 0) - fees  # type: ignore[arg-type]
            if not micros * (1 - 1e-6) - 0.01 <= ours <= micros * (1 + 1e-6) + 1.01:
                wrong.append((family, model, tier, shape, ours, micros))
    assert wrong == []
    assert compared > (30_000 if LONG else 2_000)
    if LONG:
        assert len(excepted) >= 5, excepted


def price(family: str, model: str, tier: str = "") -> Any:
    """Return a price of the installed map, which has it."""
    found = PriceMap.installed().price(family, model, tier)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("family", "model", "usage", "micros"),
    [
        ("openai", "gpt-audio", {"prompt_tokens_details": {"audio_tokens": 900},
            "completion_tokens_details": {"audio_tokens": 90}}, 34_910),
        ("gemini", "gemini-2.5-flash", {"prompt_tokens_details": {"audio_tokens": 900}}, 1_180),
        ("perplexity", "sonar", {}, 6_100),
        ("openai", "gpt-4o-search-preview", {}, 28_500),
        ("openai", "gpt-6-astra", {"prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 500,
            "cache_write_tokens_details": {"ttl_12h_tokens": 500}}}, 21_600),
        ("perplexity", "sonar-deep-research", {"prompt_tokens": 33, "completion_tokens": 7163,
            "citation_tokens": 20_215, "reasoning_tokens": 95_305, "num_search_queries": 18}, 473_715),
    ],
)  # fmt: skip
def test_bills_that_were_wrong_are_right(family: str, model: str, usage: dict[str, Any], micros: int) -> None:
    """Sound, fees of models that always search, cache kept for twelve hours, and a research with five prices."""
    said = {"prompt_tokens": 1000, "completion_tokens": 100, **usage}
    bill = price(family, model).bill(usage_of(said))
    assert (bill.cost, bill.unpriced) == (micros, "")


def test_the_tier_that_answered_counts() -> None:
    """More than was asked for costs more, less costs less, and one that nobody knows as the dearest known."""
    prices, to = PriceMap.installed(), target("openai", Provider(url="https://api.openai.com/v1"), None)
    plain, dear = price("openai", "gpt-5.4"), price("openai", "gpt-5.4", "priority")
    used = usage_of({"prompt_tokens": 1000, "completion_tokens": 100})
    assert used is not None
    costs = {}
    for asked, tier, served in (
        *((plain, "", "priority"), (dear, "priority", "default"), (dear, "priority", ""), (plain, "", "flex")),
        *((plain, "", "scale"), (plain, "", "auto"), (dear, "priority", "Priority")),
    ):
        found = served_price(to, "gpt-5.4", prices, (asked, tier), served)
        assert found is not None
        costs[tier, served] = found.cost(used)
    assert costs == {
        ("", "priority"): 8_000,
        ("priority", "default"): 4_000,
        ("priority", ""): 8_000,
        ("", "flex"): 2_000,
        ("", "scale"): 8_000,
        ("", "auto"): 4_000,
        ("priority", "Priority"): 8_000,
    }
