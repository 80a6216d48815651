"""`GET /api/v1/providers`: the gateway's answer, see `assistant_gateway/tenants/offers.py`."""

from __future__ import annotations

import msgspec


class Provider(msgspec.Struct, frozen=True):
    """One provider, as the tenant may use it: `provider` and one of `models` go into `spec.model` of an Assistant."""

    provider: str
    kind: str
    embeddings: bool
    available: bool
    allowed: list[str]
    models: list[str]
    complete: bool


class ProviderList(msgspec.Struct, frozen=True):
    """Every provider of which the tenant may use something, by name."""

    data: list[Provider]
