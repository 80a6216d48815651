"""Spec and status of an `Assistant`, equal to `crds/assistants.yaml` (a test compares them)."""

from __future__ import annotations

from assistant_crds.meta import Budget, Condition, KeyReference, ModelEndpoint, NameReference, Struct, Usage


class ModelParameters(Struct, frozen=True):
    """Defaults for requests that do not set their own; decimals are strings, as Kubernetes has no safe floats."""

    temperature: str | None = None  # "0".."2"
    top_p: str | None = None  # "0".."1"
    max_output_tokens: int | None = None


class ModelFallback(Struct, frozen=True):
    """A model that answers when those before it cannot; as `Model`, with the same parameters."""

    name: str
    provider: str | None = None
    endpoint: ModelEndpoint | None = None


class Model(Struct, frozen=True):
    """Which model answers: one of the platform's catalogue, or one behind the tenant's own endpoint."""

    name: str
    provider: str | None = None
    endpoint: ModelEndpoint | None = None
    fallbacks: list[ModelFallback] = []
    parameters: ModelParameters = ModelParameters()


class Retrieval(Struct, frozen=True):
    """How much of the knowledge bases goes into the prompt."""

    max_chunks: int = 6
    min_score: str = "0"  # "0".."1": hybrid score below which a chunk is left out


class AssistantLimits(Struct, frozen=True):
    """What the tenant allows one of its assistants; the platform's limits hold besides."""

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    budget: Budget | None = None


class InstructionsSource(Struct, frozen=True):
    """Where instructions come from when they are not written into the resource."""

    config_map_key_ref: KeyReference


class AssistantSpec(Struct, frozen=True):
    """What a tenant declares."""

    model: Model
    display_name: str = ""
    description: str = ""
    instructions: str = ""
    instructions_from: InstructionsSource | None = None
    knowledge_bases: list[NameReference] = []
    retrieval: Retrieval = Retrieval()
    limits: AssistantLimits = AssistantLimits()


class Replicas(Struct, frozen=True, omit_defaults=False):
    """Pods of the tenant's API."""

    ready: int = 0
    desired: int = 0


class AssistantStatus(Struct, frozen=True):
    """What the operator observed."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    url: str = ""  # base URL for OpenAI clients inside the cluster, ends in /v1
    model: str = ""  # provider/name, as resolved
    limit: str = ""  # the limit that binds, for people: "25.00 USD/Month", "200000 tokens/day" or "60/min"
    usage: Usage | None = None
    replicas: Replicas | None = None
