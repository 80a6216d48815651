"""The platform's providers and their keys, from files that the kubelet keeps up to date.

Files are looked at once a second (a look costs a few `stat` calls; the kubelet swaps a symlink, so watching one
file would miss it). What does not decode is logged and the last good catalogue stays.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

import msgspec
import yaml
from yarl import URL

from assistant_crds.contracts import TOTAL_SECONDS
from assistant_gateway.providers import kinds
from assistant_gateway.providers.breaker import BreakerSettings
from assistant_gateway.providers.prices import CatalogPrice, ModelPrices, ModelSettings, PriceError, checked, family_of
from assistant_observability import logs

LOOK_SECONDS = 1.0
SHORTEST_SECRET = 8  # shorter ones are not looked for in answers: they would match ordinary text
OWN_ENDPOINT = "endpoint"  # the provider's name in metrics and headers when it is the tenant's own

NO_PRICES = ModelPrices({})

_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "assistant-gateway"}
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_log = logs.logger(__name__)


# With these a request could name other models, providers or keys than the route does, past the tenant's list of allowed
# models and past their prices: OpenRouter's, and those of LiteLLM and other gateways that may be behind an address.
RoutingField = Literal[
    "models",
    "route",
    "provider",
    "plugins",
    "preset",
    "fallbacks",
    "model_list",
    "custom_llm_provider",
    "user_config",
    "extra_body",
    "api_base",
    "api_key",
    "base_url",
]
ROUTING_FIELDS: frozenset[str] = frozenset(get_args(RoutingField))
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class CatalogError(ValueError):
    """The catalogue cannot be used, and why."""


class EmbeddingInputTypes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a provider calls a question that is searched with, and a passage that is searched for, in `input_type`."""

    search: Annotated[str, msgspec.Meta(min_length=1)]
    ingest: Annotated[str, msgspec.Meta(min_length=1)]

    def of(self, purpose: str) -> str | None:
        """Return the `input_type` of a call; of one that belongs to no search none is known."""
        return {"search": self.search, "ingest": self.ingest}.get(purpose)


class Provider(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """One provider. `url` of one that speaks the OpenAI wire ends in its version path, such as `/v1`."""

    url: str = ""  # of other kinds: in place of the family's own address, without a version path
    kind: str = kinds.NATIVE
    key_ref: str | None = None  # file in the keys' folder; None: no key is sent
    connect_seconds: Seconds = 5
    first_byte_seconds: Seconds = 60
    idle_seconds: Seconds = 60
    total_seconds: Seconds = TOTAL_SECONDS  # of one request: waits, tries and the whole answer
    concurrency: Annotated[int, msgspec.Meta(ge=1)] | None = None  # calls at once, of one gateway process
    queue_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.5  # the longest wait for a place among those
    breaker: BreakerSettings = BreakerSettings()
    allow_fields: frozenset[RoutingField] = frozenset()  # what requests may hold all the same
    embedding_dimensions: bool = True  # whether it takes `dimensions`
    embedding_input_types: EmbeddingInputTypes | None = None  # its words for `input_type`; None: it is sent none
    stream_usage: bool = True  # whether it takes `stream_options`
    single_system_message: bool = False  # whether it takes one only, at the beginning (templates of many open models)
    lists_models: bool = True  # whether a model that `/models` does not know is surely absent
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None  # default: by the URL's host
    # LiteLLM's name of who sends the bill; default: by the URL's host.
    billed_by: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+$")] | None = None
    models: dict[str, ModelSettings] = {}  # prices and limits, by pattern on model names


class TenantEndpoints(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What tenants' own endpoints may reach besides the public internet: patterns on host names."""

    allow_hosts: list[str] = []


class Document(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The file as the chart renders it."""

    providers: dict[str, Provider] = {}
    tenant_endpoints: TenantEndpoints = TenantEndpoints()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a call needs to know of where it goes. Holds a key: never logged."""

    provider: str
    chat: URL
    embeddings: URL
    models: URL
    settings: Provider
    max_tokens_field: str
    headers: Mapping[str, str]
    secret: bytes | None = None  # what must not appear in an answer
    credentials: Mapping[str, str] = {}  # for LiteLLM, in its names
    missing_key: str | None = None  # the file that should hold the key and does not
    own: bool = False  # the tenant's: guarded
    billed_by: str | None = None
    prices: ModelPrices = NO_PRICES

    def __repr__(self) -> str:
        return f"Target({self.provider!r}, {self.settings.url!r})"


def target(provider: str, settings: Provider, key: str | None, *, own: bool = False) -> Target:
    """Prepare the addresses and headers of one provider.

    Raises:
        CatalogError: the URL or the key cannot be used.
    """
    if settings.kind not in kinds.KINDS:
        known = ", ".join(kinds.KINDS)
        raise CatalogError(f"provider {provider}: there is no kind {settings.kind!r}; kinds are: {known}")
    if settings.kind != kinds.NATIVE:
        return _translated(provider, settings, key)
    base = settings.url.rstrip("/")
    parts = _parts(provider, base)
    headers = dict(_HEADERS)
    if key:
        headers["Authorization"] = f"Bearer {_printable(provider, key)}"
    urls = _urls(provider, base, "/chat/completions", "/embeddings", "/models")
    default_field = "max_completion_tokens" if parts.hostname == "api.openai.com" else "max_tokens"
    return Target(
        provider=provider,
        chat=urls[0],
        embeddings=urls[1],
        models=urls[2],
        settings=settings,
        max_tokens_field=settings.max_tokens_field or default_field,
        headers=headers,
        secret=_secret(key),
        own=own,
        billed_by=settings.billed_by or family_of(parts.hostname),
        prices=_prices(provider, settings),
    )


def _translated(provider: str, settings: Provider, key: str | None) -> Target:
    """Prepare a provider that LiteLLM translates for: its base address stands for all paths but that of the models."""
    if settings.key_ref is None:
        raise CatalogError(f"provider {provider}: kind {settings.kind} needs a keyRef")
    try:
        access = kinds.access(settings.kind, settings.url.rstrip("/"), key)
    except ValueError as error:
        raise CatalogError(f"provider {provider}: {error}") from None
    _parts(provider, access.base)
    for secret in access.secrets:
        _printable(provider, secret)
    urls = _urls(provider, access.base, "", kinds.FAMILIES[settings.kind].models)
    return Target(
        provider=provider,
        chat=urls[0],
        embeddings=urls[0],
        models=urls[1],
        settings=settings,
        max_tokens_field="max_tokens",
        headers={**_HEADERS, **access.headers},
        secret=_secret(access.secrets[0] if access.secrets else None),
        credentials=access.credentials,
        billed_by=settings.billed_by or settings.kind,
        prices=_prices(provider, settings),
    )


def _parts(provider: str, base: str) -> SplitResult:
    parts = urlsplit(base)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CatalogError(f"provider {provider}: url has to start with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise CatalogError(f"provider {provider}: url may hold neither credentials, query nor fragment")
    return parts


def _printable(provider: str, key: str) -> str:
    if not key.isascii() or not key.isprintable():
        raise CatalogError(f"provider {provider}: the key holds characters that no header can carry")
    return key


def _urls(provider: str, base: str, *paths: str) -> list[URL]:
    try:
        return [URL(base + path) for path in paths]
    except ValueError:
        raise CatalogError(f"provider {provider}: url is not a URL") from None


def _secret(key: str | None) -> bytes | None:
    return key.encode() if key and len(key) >= SHORTEST_SECRET else None


def _prices(provider: str, settings: Provider) -> ModelPrices:
    return ModelPrices({pattern: _price(provider, pattern, entry) for pattern, entry in settings.models.items()})


def _price(provider: str, pattern: str, settings: ModelSettings) -> CatalogPrice:
    try:
        return checked(settings)
    except PriceError as error:
        raise CatalogError(f"provider {provider}: model {pattern!r}: {error}") from None


class Catalog:
    """The providers as they are now. `targets` is replaced as a whole."""

    def __init__(self, file: Path, keys: Path) -> None:
        self._file = file
        self._keys = keys
        self._seen: dict[Path, tuple[int, int, int] | None] = {}
        self.targets: dict[str, Target] = {}
        self.allow_hosts: list[str] = []

    def load(self) -> None:
        """Read the catalogue and all keys.

        Raises:
            CatalogError: it cannot be used; what was loaded before stays.
        """
        document = self._document()
        files = {name: self._key_file(name, p) for name, p in document.providers.items() if p.key_ref is not None}
        self._seen = {path: _state(path) for path in (self._file, *files.values())}
        targets = {}
        for name, provider in document.providers.items():
            path = files.get(name)
            key = _key(path) if path is not None else None
            made = target(name, provider, key)
            if path is not None and not key:
                _log.warning("provider's key is missing", provider=name, file=path.name)
                made = msgspec.structs.replace(made, missing_key=path.name)
            targets[name] = made
        self.targets, self.allow_hosts = targets, document.tenant_endpoints.allow_hosts
        _log.info("catalogue loaded", providers=sorted(targets))

    async def run(self) -> None:
        """Load again whenever a file has changed, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if any(_state(path) != state for path, state in self._seen.items()):
                try:
                    self.load()
                except CatalogError as error:
                    self._seen[self._file] = _state(self._file)
                    _log.error("catalogue not loaded, the last good one stays", error=str(error))

    def _document(self) -> Document:
        try:
            content: Any = yaml.safe_load(self._file.read_bytes())
            return msgspec.convert(content or {}, type=Document, strict=True)
        except OSError as error:
            raise CatalogError(f"{self._file}: {error.strerror}") from None
        except (yaml.YAMLError, msgspec.ValidationError) as error:
            raise CatalogError(f"{self._file}: {' '.join(str(error).split())}") from None

    def _key_file(self, name: str, provider: Provider) -> Path:
        if provider.key_ref is None or not _KEY_NAME.fullmatch(provider.key_ref):
            raise CatalogError(f"provider {name}: keyRef is the name of a file, without a path")
        return self._keys / provider.key_ref


def _key(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
