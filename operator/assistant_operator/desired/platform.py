"""What the objects of every tenant have in common: the platform they are part of, and how objects are named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from assistant_crds import naming
from assistant_crds.contracts import TOTAL_SECONDS, encode
from assistant_operator.tenant.snapshot import Json


@dataclass(frozen=True)
class Egress:
    """A network outside the cluster, with the ports that may be reached there."""

    cidr: str
    ports: list[int]


@dataclass(frozen=True)
class Resources:
    """Kubernetes quantities by resource name."""

    requests: Mapping[str, str]
    limits: Mapping[str, str]


@dataclass(frozen=True)
class Platform:
    """Where the platform's parts are, as a tenant's pods see them."""

    namespace: str
    routes_namespace: str
    gateway_url: str
    api_image: str
    image_pull_policy: str
    log_format: str
    otlp_endpoint: str
    worker_resources: Resources
    egress: list[Egress] = field(default_factory=list)
    gateway_seconds: float = TOTAL_SECONDS
    sample_ratio: float = 1
    pull_secrets: list[str] = field(default_factory=list)  # names, in the tenant's namespace


@dataclass(frozen=True)
class Credentials:
    """A tenant's secrets in clear; `stores` holds one entry per file of the Secret `assistant-stores`."""

    stores: Mapping[str, str]
    api_key: str
    admin_email: str = ""
    admin_password: str = ""
    account: str = ""  # UID of the ServiceAccount whose tokens the gateway takes; "" while there is none
    refused: frozenset[str] = frozenset()  # names of the Secrets that could not be written: these were never stored

    def __repr__(self) -> str:
        return "Credentials(***)"

    @property
    def complete(self) -> bool:
        """Whether pods can start with them: the vector store makes its key itself, so it may be missing at first."""
        return all(self.stores.values()) and self.stored(naming.STORES_SECRET)

    def stored(self, secret: str) -> bool:
        """Return whether the Secret of that name holds these values."""
        return secret not in self.refused

    @property
    def digest(self) -> str:
        """A name for this set of credentials; pods roll when it changes.

        With another ServiceAccount too: the tokens that running pods hold are those of the former one.
        """
        account = {"account": self.account} if self.account else {}
        return hashlib.sha256(encode({**self.stores, **account})).hexdigest()[:16]


def metadata(name: str, namespace: str, tenant: str, component: str) -> Json:
    """Return the metadata of one of our objects."""
    return {
        "name": name,
        "namespace": namespace,
        "labels": {
            naming.LABEL_NAME: component,
            naming.LABEL_MANAGED_BY: naming.MANAGED_BY,
            naming.LABEL_PART_OF: naming.PART_OF,
            naming.LABEL_TENANT: tenant,
        },
    }


def selector(component: str) -> dict[str, str]:
    """Return the labels by which the pods of a component are found; immutable on a Deployment."""
    return {naming.LABEL_NAME: component, naming.LABEL_MANAGED_BY: naming.MANAGED_BY}
