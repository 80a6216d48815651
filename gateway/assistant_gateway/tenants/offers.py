"""Which providers and models a tenant may name in its resources: what there is, and its policy allows."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Mapping, Sequence

import msgspec

from assistant_gateway.providers import kinds
from assistant_gateway.providers.catalog import Target
from assistant_gateway.tenants.reachability import Prober
from assistant_gateway.tenants.routing import Tenant, is_allowed

MOST_MODELS = 1000  # of one provider
_WILD = frozenset("*?[")


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One provider, as a tenant may use it."""

    provider: str
    kind: str
    embeddings: bool  # whether a knowledge base may use it
    available: bool  # whether it answers now, with a key
    allowed: list[str]  # patterns on names of models
    models: list[str]  # that are known by name and allowed, by name
    complete: bool  # whether the provider listed its models, and all of them are in `models`


async def offers(tenant: Tenant, targets: Mapping[str, Target], prober: Prober) -> list[Offer]:
    """Return what a tenant may use, by provider; providers of which it may use nothing are left out."""
    allowed = {name: patterns_for(name, tenant.allow) for name in sorted(targets)}
    names = [name for name, patterns in allowed.items() if patterns]
    listed = await asyncio.gather(*(prober.listed(targets[name], tenant) for name in names))
    return [_offer(targets[name], tenant, allowed[name], found) for name, found in zip(names, listed, strict=True)]


def patterns_for(provider: str, allow: Sequence[str]) -> list[str]:
    """Return patterns on names of models, from those on `provider/model` that fit a provider.

    A star fits a slash too: a pattern without a slash is about the provider's name, or about both.
    """
    found = []
    for pattern in allow:
        head, slash, tail = pattern.partition("/")
        if slash and fnmatch.fnmatchcase(provider, head):
            found.append(tail)
        elif not slash and fnmatch.fnmatchcase(f"{provider}/", pattern):
            found.append("*")
        elif not slash and pattern.startswith("*"):
            found.append(pattern)
    return list(dict.fromkeys(found))


def _offer(target: Target, tenant: Tenant, patterns: list[str], listed: frozenset[str] | None) -> Offer:
    named = {pattern for pattern in (*target.settings.models, *patterns) if not _WILD & set(pattern)}
    known = named | (listed or frozenset())
    models = sorted(model for model in known if is_allowed(target.provider, model, tenant.allow))
    family = kinds.FAMILIES.get(target.settings.kind)
    return Offer(
        provider=target.provider,
        kind=target.settings.kind,
        embeddings=family is None or family.embeds,
        available=listed is not None,
        allowed=patterns,
        models=models[:MOST_MODELS],
        complete=bool(listed) and len(models) <= MOST_MODELS,
    )
