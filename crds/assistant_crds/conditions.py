"""Condition types and reasons: the words in which the platform says what is true of a resource.

`Ready` sums up the others. Reasons are stable identifiers; sentences for people go into messages.
"""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """What a condition speaks of; the order is the order of dependence, and of display."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    REFS_RESOLVED = "RefsResolved"
    MODEL_REACHABLE = "ModelReachable"
    KNOWLEDGE_READY = "KnowledgeReady"
    QUOTA_SYNCED = "QuotaSynced"
    WORKLOAD_AVAILABLE = "WorkloadAvailable"
    ENDPOINT_ANSWERING = "EndpointAnswering"
    # For information only: Ready does not depend on these.
    QUOTA_EXHAUSTED = "QuotaExhausted"
    FALLBACKS_USABLE = "FallbacksUsable"  # of an Assistant with fallbacks
    INDEX_CURRENT = "IndexCurrent"  # of a KnowledgeBase


class Reason(StrEnum):
    """Why a condition has its status."""

    # positive
    READY = "Ready"
    ACCEPTED = "Accepted"
    RESOLVED = "Resolved"
    REACHABLE = "Reachable"
    SYNCED = "Synced"
    AVAILABLE = "Available"
    ANSWERING = "Answering"
    # Accepted
    INVALID_SPEC = "InvalidSpec"
    MODEL_NOT_ALLOWED = "ModelNotAllowed"
    PROVIDER_UNKNOWN = "ProviderUnknown"
    TOO_LARGE = "TooLarge"  # it does not fit beside the others of its namespace
    # RefsResolved
    SECRET_NOT_FOUND = "SecretNotFound"
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    KEY_NOT_FOUND = "KeyNotFound"
    KNOWLEDGE_BASE_NOT_FOUND = "KnowledgeBaseNotFound"
    # ModelReachable
    PROVIDER_UNAUTHORIZED = "ProviderUnauthorized"
    PROVIDER_UNREACHABLE = "ProviderUnreachable"
    PROVIDER_UNAVAILABLE = "ProviderUnavailable"  # it answers, but has failed too many calls
    MODEL_UNKNOWN = "ModelUnknown"
    MODEL_UNSUITABLE = "ModelUnsuitable"  # it does not do what the resource needs, such as embeddings
    PRICE_UNKNOWN = "PriceUnknown"  # a limit in money holds, and nobody knows what the model costs
    GATEWAY_UNREACHABLE = "GatewayUnreachable"
    # KnowledgeReady, QuotaSynced
    STORE_UNREACHABLE = "StoreUnreachable"
    OPERATOR_OVERLOADED = "OperatorOverloaded"  # no store answers it in time: it may be its own fault
    KNOWLEDGE_BASE_NOT_READY = "KnowledgeBaseNotReady"
    # WorkloadAvailable, EndpointAnswering
    PROGRESSING = "Progressing"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_FAILING = "ContainerFailing"
    UNSCHEDULABLE = "Unschedulable"
    APPLY_FAILED = "ApplyFailed"
    NAME_TAKEN = "NameTaken"  # an object that is not the operator's has the name of one of its own
    NOT_ANSWERING = "NotAnswering"
    STALE_CONFIGURATION = "StaleConfiguration"
    # QuotaExhausted
    WITHIN_LIMITS = "WithinLimits"
    NEAR_LIMIT = "NearLimit"
    TOKENS_EXHAUSTED = "TokensExhausted"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    # FallbacksUsable
    DUPLICATE_FALLBACK = "DuplicateFallback"
    # IndexCurrent
    CURRENT = "Current"
    INDEX_OUTDATED = "IndexOutdated"
    # any, while an earlier condition is false
    WAITING = "Waiting"
    # Ready, while the resource is being deleted
    DELETING = "Deleting"


ASSISTANT_CONDITIONS = (
    ConditionType.ACCEPTED,
    ConditionType.REFS_RESOLVED,
    ConditionType.MODEL_REACHABLE,
    ConditionType.KNOWLEDGE_READY,
    ConditionType.QUOTA_SYNCED,
    ConditionType.WORKLOAD_AVAILABLE,
    ConditionType.ENDPOINT_ANSWERING,
)
KNOWLEDGE_BASE_CONDITIONS = (
    ConditionType.ACCEPTED,
    ConditionType.REFS_RESOLVED,
    ConditionType.MODEL_REACHABLE,
    ConditionType.KNOWLEDGE_READY,
    ConditionType.WORKLOAD_AVAILABLE,
    ConditionType.ENDPOINT_ANSWERING,
)
TENANT_CONDITIONS = (
    ConditionType.ACCEPTED,
    ConditionType.QUOTA_SYNCED,
    ConditionType.WORKLOAD_AVAILABLE,
    ConditionType.ENDPOINT_ANSWERING,
)
