"""What the three kinds share: references, model endpoints, conditions."""

from __future__ import annotations

import msgspec


class Struct(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True, kw_only=True):
    """Base of every struct of a custom resource: camelCase on the wire, unset fields left out."""


class KeyReference(Struct, frozen=True):
    """One key of an object in the same namespace."""

    name: str
    key: str


class NameReference(Struct, frozen=True):
    """An object in the same namespace."""

    name: str


class ModelEndpoint(Struct, frozen=True):
    """A tenant's own server that speaks the OpenAI wire format; `url` ends in its version path, such as `/v1`."""

    url: str
    api_key_secret_ref: KeyReference | None = None


class Budget(Struct, frozen=True):
    """Money for models: `amount` is a decimal, as a string; `period` is Day or Month in the tenant's time zone."""

    amount: str
    period: str
    currency: str = "USD"


class Usage(Struct, frozen=True):
    """What was used, for people: rounded, and at most a minute old."""

    spent: str  # "1.23 USD", in the present period of the budget; in this month without one
    tokens: int  # of the present day
    resets_at: str  # RFC 3339: when `spent` starts anew


class Condition(Struct, frozen=True, omit_defaults=False):
    """A `metav1.Condition`; `last_transition_time` is RFC 3339 in UTC."""

    type: str
    status: str  # True, False or Unknown
    reason: str
    message: str
    observed_generation: int
    last_transition_time: str
