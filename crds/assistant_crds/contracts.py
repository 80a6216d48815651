"""The documents that one part hands another: configuration to the API, policy to the gateway, probe results back.

Producers encode with `encode`, consumers decode with `msgspec.json.decode(..., type=...)`; unknown fields are
ignored, so that a newer operator can serve an older pod during an upgrade.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import msgspec

# Of what a document becomes in the vector store: raised with whatever changes its text, its chunks or how they are
# searched. Documents of an earlier version are found as before, and offered to be read again (decision 53).
INDEX_VERSION = 1
TOTAL_SECONDS = 600.0  # the gateway's default for one request, with every try and the whole answer


class Contract(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Base of every contract: camelCase JSON, all fields written."""


class TenantIdentity(Contract, frozen=True):
    """Which tenant: its namespace, that namespace's UID, and the name derived from it for the stores."""

    namespace: str
    uid: str
    key: str


# --- operator -> API -------------------------------------------------------------------------------------------


class AssistantConfig(Contract, frozen=True):
    """One assistant as the API serves it; sampling defaults are applied by the gateway, from its policy."""

    name: str
    generation: int
    display_name: str
    description: str
    instructions: str
    knowledge_bases: list[str]
    max_chunks: int
    min_score: float  # 0..1
    created: int  # Unix seconds


class KnowledgeBaseConfig(Contract, frozen=True):
    """One knowledge base: where its vectors live and how its documents are cut."""

    name: str
    key: str  # Weaviate tenant and database key, see naming.knowledge_base_key
    display_name: str
    dimensions: int
    max_tokens: int
    overlap_tokens: int
    max_documents: int
    max_bytes: int


class UnavailableAssistant(Contract, frozen=True):
    """An assistant that exists but cannot be asked, and why: `reason` is a `conditions.Reason`."""

    name: str
    reason: str
    message: str


class ApiKeyConfig(Contract, frozen=True):
    """An API key that the platform made; only its SHA-256 (hexadecimal) leaves the Secret."""

    name: str
    sha256: str


class TenantConfig(Contract, frozen=True):
    """Everything the tenant's pods serve, in one document. Credentials are not part of it."""

    tenant: TenantIdentity
    generation: str  # `digest` of the document with generation = ""
    gateway_url: str  # without path, such as http://assistant-gateway.assistant-platform.svc:8081
    collection: str  # Weaviate collection
    api_keys: list[ApiKeyConfig]
    assistants: list[AssistantConfig]
    knowledge_bases: list[KnowledgeBaseConfig]
    unavailable: list[UnavailableAssistant] = []
    # The longest that the gateway works on one request: who asks it waits longer, because the answer is paid for.
    gateway_seconds: float = TOTAL_SECONDS
    parts: list[str] = []  # digests of further files, see `parts.py`
    allowed_origins: list[str] = []  # of web pages whose scripts may call the API; "*" is all
    registration: str = "Invite"  # or Open, or Closed: how people get an account


# --- operator -> gateway ---------------------------------------------------------------------------------------


class Endpoint(Contract, frozen=True):
    """A tenant's own OpenAI-compatible server. `api_key` is a secret: policies live in Secrets only."""

    url: str
    api_key: str | None = None

    def __repr__(self) -> str:
        return f"Endpoint(url={self.url!r}, api_key={'***' if self.api_key else None})"


class ModelRoute(Contract, frozen=True):
    """Where calls for an assistant or a knowledge base go. Exactly one of `provider` and `endpoint` is set."""

    model: str
    provider: str | None = None
    endpoint: Endpoint | None = None


class Budget(Contract, frozen=True):
    """Money per period; a Day or Month begins at midnight in the tenant's time zone."""

    amount_micros: int  # micro-units of the currency: 1 USD = 1_000_000
    currency: str  # USD
    period: str  # Day or Month


class AssistantPolicy(Contract, frozen=True):
    """Route, limits and request defaults of one assistant."""

    route: ModelRoute
    requests_per_minute: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    tokens_per_day: int | None = None
    budget: Budget | None = None
    fallbacks: list[ModelRoute] = []  # asked in this order when the route's provider cannot answer


class EmbeddingPolicy(Contract, frozen=True):
    """Route of one knowledge base's embedding model."""

    route: ModelRoute
    dimensions: int


class TenantPolicy(Contract, frozen=True):
    """What the gateway lets a tenant do. `models_allow` holds shell patterns on `provider/model`."""

    tenant: TenantIdentity
    generation: str  # `digest` of the document with generation = ""
    models_allow: list[str]
    requests_per_minute: int | None
    assistants: dict[str, AssistantPolicy]
    knowledge_bases: dict[str, EmbeddingPolicy]
    time_zone: str = "UTC"  # IANA name
    failure_policy: str = "Closed"  # or Bounded: what becomes of metered calls while limits cannot be counted
    tokens_per_day: int | None = None
    budget: Budget | None = None
    # UID of the ServiceAccount whose tokens are the tenant's; "" is nobody's, None was written before UIDs were.
    service_account_uid: str | None = None


class OperatorIdentity(Contract, frozen=True):
    """Who the operator is, for the gateway: the UID of the ServiceAccount it runs under."""

    service_account_uid: str


# --- gateway -> operator ---------------------------------------------------------------------------------------


class ModelProbe(Contract, frozen=True):
    """Whether a call would be answered. `reason` is a `conditions.Reason`; `message` names the next step."""

    reachable: bool
    reason: str
    message: str
    model: str = ""  # for people: provider/name
    fallbacks: list[ModelProbe] = []  # of an assistant, each by itself, in the order in which they are asked


class LevelUsage(Contract, frozen=True):
    """What the tenant, or one of its assistants, has used in the present windows.

    Tokens are those of the day, money that of `period`: the budget's, Month where there is none.
    """

    tokens: int
    spent_micros: int
    day_ends: str  # RFC 3339 in UTC
    period: str  # Day or Month
    period_ends: str  # RFC 3339 in UTC
    requests: int | None = None  # of the day, where they are counted
    # Which of "tokens" and "budget" the gateway holds to be used up although a rest is left: too small for any call.
    exhausted: list[str] = []


class TenantUsage(Contract, frozen=True):
    """What a tenant has used, as a whole and by assistant; an assistant that was never called may be left out."""

    tenant: LevelUsage
    assistants: dict[str, LevelUsage]
    currency: str = "USD"


class TenantProbe(Contract, frozen=True):
    """The gateway's view of one tenant: the policy generation it has loaded, its models, and what it has used."""

    generation: str
    assistants: dict[str, ModelProbe]
    knowledge_bases: dict[str, ModelProbe]
    usage: TenantUsage | None = None  # None while it is not known


# --- gateway -> API --------------------------------------------------------------------------------------------

# A header of an answer 503: the gateway did nothing with the request, so it may be sent again at once, on another
# connection, which may lead to another gateway. It is never set once a provider may have been asked.
NOT_STARTED_HEADER = "x-assistant-not-started"


class ProbesQuestion(Contract, frozen=True):
    """Which tenants' probes the operator wants, by namespace, with the `digest` of each that it has; empty for none."""

    known: dict[str, str]


class ProbesAnswer(Contract, frozen=True):
    """The probes that differ from those that are known; None where no policy of the namespace is loaded.

    A tenant whose probe is not done in time is left out, like one of whom there is nothing new.
    """

    changed: dict[str, TenantProbe | None]


# --- API -> operator -------------------------------------------------------------------------------------------


class Readiness(Contract, frozen=True):
    """The body of `/readyz`: `status` is `ready` or `not_ready`; `checks` names what is missing."""

    status: str
    config_generation: str
    checks: dict[str, str]


Sealed = TypeVar("Sealed", TenantConfig, TenantPolicy)


def encode(document: Any) -> bytes:
    """Return the canonical JSON of a contract: sorted keys, so that equal documents are equal bytes."""
    return msgspec.json.encode(document, order="deterministic")


def digest(document: Any) -> str:
    """Return the 16 hexadecimal digits that name this content."""
    return hashlib.sha256(encode(document)).hexdigest()[:16]


def seal(document: Sealed) -> Sealed:
    """Return the document with `generation` set to the digest of everything else in it."""
    unsealed = msgspec.structs.replace(document, generation="")
    return msgspec.structs.replace(unsealed, generation=digest(unsealed))
