"""Which names of models may be labels of metrics: as many as there are in use, and no more than a bound.

A tenant writes the name of its own endpoint's model and, where the platform allows a pattern, of a provider's. Each new
name would be dozens of time series that stay. A tenant's own models share one name; of the platform's providers
the models that policies name have theirs, up to a bound per tenant and per provider, and lose it with the last policy.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from assistant_gateway.providers.catalog import OWN_ENDPOINT

MOST_OF_TENANT = 50
MOST_OF_PROVIDER = 500
OWN, OTHER = "own", "other"

Model = tuple[str, str]  # provider, model


class ModelLabels:
    """The names that are in use, and by whom."""

    def __init__(self, most_of_tenant: int = MOST_OF_TENANT, most_of_provider: int = MOST_OF_PROVIDER) -> None:
        self._most = (most_of_tenant, most_of_provider)
        self._tenants: dict[str, set[Model]] = {}
        self._users: dict[str, dict[str, int]] = {}  # by provider: how many tenants use a model

    def of(self, tenant: str, provider: str, model: str) -> str:
        """Return the label of a model."""
        if provider == OWN_ENDPOINT:
            return OWN
        held = self._tenants.setdefault(tenant, set())
        if (provider, model) in held:
            return model
        users = self._users.setdefault(provider, {})
        if len(held) >= self._most[0] or (model not in users and len(users) >= self._most[1]):
            return OTHER
        held.add((provider, model))
        users[model] = users.get(model, 0) + 1
        return model

    def keep(self, tenant: str, models: AbstractSet[Model]) -> tuple[set[Model], set[Model]]:
        """Forget the models that a tenant no longer uses; return them, and those that nobody uses any more."""
        gone = self._tenants.get(tenant, set()) - models
        self._tenants[tenant] = self._tenants.get(tenant, set()) - gone
        if not self._tenants[tenant]:
            del self._tenants[tenant]
        unused = set()
        for provider, model in gone:
            users = self._users[provider]
            users[model] -= 1
            if not users[model]:
                del users[model]
                unused.add((provider, model))
        return gone, unused
