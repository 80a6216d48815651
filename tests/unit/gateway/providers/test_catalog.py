"""The catalogue's file and keys: read, refused, read again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from assistant_gateway.providers import catalog, kinds
from assistant_gateway.providers.breaker import BreakerSettings
from assistant_gateway.providers.catalog import ROUTING_FIELDS, Catalog, CatalogError, Provider, target
from assistant_gateway.providers.prices import ModelSettings


def written(folder: Path, text: str, **keys: str) -> Catalog:
    """Return a catalogue with this file and these keys, not yet loaded."""
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "catalog.yaml").write_text(text)
    for name, key in keys.items():
        (folder / "keys" / name).write_text(key)
    return Catalog(folder / "catalog.yaml", folder / "keys")


def test_providers_have_addresses_keys_and_defaults(tmp_path: Path) -> None:
    """A provider's paths follow its URL; its key is stripped and sent as a bearer token; time-outs have defaults."""
    made = written(
        tmp_path,
        "providers:\n  openai: {url: https://api.openai.com/v1/, keyRef: openai}\n  demo: {url: http://demo:8000/v1}\n"
        "tenantEndpoints: {allowHosts: ['*.corp.example']}\n",
        openai="  sk-0123456789\n",
    )
    made.load()
    openai, demo = made.targets["openai"], made.targets["demo"]
    assert str(openai.chat) == "https://api.openai.com/v1/chat/completions"
    assert str(openai.embeddings) == "https://api.openai.com/v1/embeddings"
    assert str(demo.models) == "http://demo:8000/v1/models"
    assert openai.headers["Authorization"] == "Bearer sk-0123456789"
    assert "Authorization" not in demo.headers
    assert (demo.settings.connect_seconds, demo.settings.first_byte_seconds, demo.settings.idle_seconds) == (5, 60, 60)
    assert made.allow_hosts == ["*.corp.example"]


def test_key_that_is_missing_or_empty_leaves_the_others_alone(tmp_path: Path) -> None:
    """A provider without its key is known as such; its neighbour works."""
    text = (
        "providers: {a: {url: 'http://a', keyRef: a}, b: {url: 'http://b', keyRef: b}, c: {url: 'http://c', keyRef: c}}"
    )
    made = written(tmp_path, text, b=" \n", c="key-of-c")
    made.load()
    assert [made.targets[name].missing_key for name in "abc"] == ["a", "b", None]


@pytest.mark.parametrize(
    "text",
    [
        "providers: [",
        "providers: 3",
        "providers: {a: {}}",
        "providers: {a: {url: ftp://x}}",
        "providers: {a: {url: 'http://'}}",
        "providers: {a: {url: 'http://user:pass@x'}}",
        "providers: {a: {url: 'http://x?k=v'}}",
        "providers: {a: {url: 'http://x', connectSeconds: soon}}",
        "providers: {a: {url: 'http://x', keyRef: ../../etc/passwd}}",
        "providers: {a: {url: 'http://x', keyRef: ''}}",
    ],
)
def test_catalogue_that_cannot_be_used_is_refused_and_the_last_good_one_stays(text: str, tmp_path: Path) -> None:
    """A mistake in the file is one sentence, and what was loaded before still holds."""
    made = written(tmp_path, "providers: {good: {url: 'http://good'}}")
    made.load()
    (tmp_path / "catalog.yaml").write_text(text)
    with pytest.raises(CatalogError) as raised:
        made.load()
    assert "\n" not in str(raised.value)
    assert list(made.targets) == ["good"]


def test_key_is_in_no_text(tmp_path: Path) -> None:
    """Neither the target's representation nor an error about a key shows it."""
    made = written(tmp_path, "providers: {a: {url: 'http://a', keyRef: a}}", a="sk-0123456789")
    made.load()
    assert "0123456789" not in repr(made.targets)
    (tmp_path / "keys" / "a").write_text("sk-0123456789\nsecond line")
    with pytest.raises(CatalogError) as raised:
        made.load()
    assert "0123456789" not in str(raised.value)


def test_short_keys_are_not_looked_for_in_answers() -> None:
    """A key of three letters would blank ordinary words."""
    assert target("a", Provider(url="http://a"), "abc").secret is None
    assert target("a", Provider(url="http://a"), "abcdefgh").secret == b"abcdefgh"


async def test_symlink_swap_of_the_kubelet_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that change behind symlinks, as mounted ConfigMaps and Secrets do, are loaded again."""
    monkeypatch.setattr(catalog, "LOOK_SECONDS", 0.01)
    for version, url in (("1", "http://one"), ("2", "http://two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "catalog.yaml").write_text(f"providers: {{a: {{url: '{url}'}}}}")
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "catalog.yaml").symlink_to("..data/catalog.yaml")
    made = Catalog(tmp_path / "catalog.yaml", tmp_path)
    made.load()
    following = asyncio.create_task(made.run())
    (tmp_path / "..new").symlink_to("2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    async with asyncio.timeout(2):
        while made.targets["a"].settings.url != "http://two":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    following.cancel()


def test_routing_settings_have_defaults_and_bounds(tmp_path: Path) -> None:
    """Breaker, places and time are set per provider; what makes no sense is refused with the field's name."""
    made = written(
        tmp_path,
        "providers:\n  a: {url: http://a/v1}\n"
        "  b: {url: http://b/v1, concurrency: 4, totalSeconds: 30, allowFields: [models],\n"
        "      breaker: {failureShare: 0.2, minCalls: 5, windowSeconds: 60, openSeconds: 20}}\n",
    )
    made.load()
    plain, full = made.targets["a"].settings, made.targets["b"].settings
    assert (plain.concurrency, plain.queue_seconds, plain.total_seconds) == (None, 0.5, 600)
    assert (plain.breaker, plain.allow_fields) == (BreakerSettings(), frozenset())
    assert (full.concurrency, full.total_seconds, full.allow_fields) == (4, 30, frozenset({"models"}))
    assert full.breaker == BreakerSettings(failure_share=0.2, min_calls=5, window_seconds=60, open_seconds=20)
    for wrong in ("concurrency: 0", "totalSeconds: 0", "breaker: {failureShare: 1.5}", "breaker: {share: 1}"):
        with pytest.raises(CatalogError, match=wrong.partition(":")[0]):
            written(tmp_path, f"providers: {{a: {{url: http://a/v1, {wrong}}}}}").load()


CHART = Path(__file__).parents[4] / "charts" / "assistant-platform" / "values.schema.json"


def schema(*path: str) -> dict[str, Any]:
    """Return what the chart says of a value."""
    return functools.reduce(lambda found, name: found[name], path, json.loads(CHART.read_text())["properties"])


PROVIDER = ("providers", "additionalProperties")


@pytest.mark.parametrize(
    ("struct", "path"),
    [
        (Provider, PROVIDER),
        (BreakerSettings, (*PROVIDER, "properties", "breaker")),
        (ModelSettings, (*PROVIDER, "properties", "models", "additionalProperties")),
        (catalog.TenantEndpoints, ("tenantEndpoints",)),
    ],
)
def test_the_chart_knows_exactly_the_fields_that_the_gateway_reads(
    struct: type[msgspec.Struct], path: tuple[str, ...]
) -> None:
    """None that could not be set, none that would not be read; and neither takes a name that it does not know."""
    described = schema(*path)
    assert set(described["properties"]) == set(struct.__struct_encode_fields__)
    assert described["additionalProperties"] is False
    assert struct.__struct_config__.forbid_unknown_fields


def test_the_chart_offers_exactly_the_choices_that_there_are() -> None:
    """Kinds, fields that may be allowed, names of the field for the most tokens."""
    described = schema(*PROVIDER, "properties")
    assert set(described["allowFields"]["items"]["enum"]) == ROUTING_FIELDS
    assert set(described["kind"]["enum"]) == set(kinds.KINDS)
    assert set(described["maxTokensField"]["enum"]) == {"max_tokens", "max_completion_tokens"}


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("{keyRef: a.b-c_D}", True),
        ("{keyRef: ..}", False),
        ("{connectSeconds: 0.5, firstByteSeconds: 1, idleSeconds: 1, totalSeconds: 1}", True),
        ("{connectSeconds: 0}", False),
        ("{firstByteSeconds: -1}", False),
        ("{idleSeconds: 0}", False),
        ("{concurrency: 1, queueSeconds: 0}", True),
        ("{queueSeconds: -1}", False),
        ("{allowFields: [models, provider]}", True),
        ("{allowFields: [messages]}", False),
        ("{streamUsage: false, listsModels: false, embeddingDimensions: false}", True),
        ("{streamUsage: 'no'}", False),
        ("{embeddingInputTypes: {search: query, ingest: passage}}", True),
        ("{embeddingInputTypes: {search: query}}", False),
        ("{embeddingInputTypes: {search: query, ingest: ''}}", False),
        ("{embeddingInputTypes: {search: query, ingest: passage, chat: query}}", False),
        ("{maxTokensField: max_completion_tokens}", True),
        ("{maxTokensField: max_output_tokens}", False),
        ("{billedBy: together_ai}", True),
        ("{billedBy: Together AI}", False),
        ("{breaker: {minCalls: 0}}", False),
        ("{models: {m: {maxOutputTokens: 0}}}", False),
        ("{models: {m: {inputPerMillion: '1'}}}", False),
        ("{kind: mistral, keyRef: a}", False),
        ("{timeout: 3}", False),
    ],
)
def test_chart_and_gateway_refuse_the_same_values(text: str, fine: bool, tmp_path: Path) -> None:
    """What passes one passes the other, so that no installation succeeds with a catalogue that is then not loaded."""
    given = {"url": "https://x.example/v1", **yaml.safe_load(text)}
    assert jsonschema.Draft7Validator(schema(*PROVIDER)).is_valid(given) is fine
    made = written(tmp_path, json.dumps({"providers": {"a": given}}))
    with contextlib.nullcontext() if fine else pytest.raises(CatalogError):
        made.load()
