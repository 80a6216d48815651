"""Every tenant's policy, kept in step with the Secrets that the operator writes into the routes namespace.

List, then watch; what is known stays while the API server is away. A policy that does not decode is logged and the
last good one of that Secret stays, so that a mistake in one document harms nobody.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
from collections.abc import Callable

import msgspec

from assistant_crds import naming
from assistant_crds.contracts import OperatorIdentity, TenantPolicy
from assistant_gateway.tenants.kubernetes import Cluster, ClusterError
from assistant_gateway.tenants.routing import PolicyError, Tenant, compile_policy
from assistant_observability import logs, metrics

RETRY_SECONDS = (0.2, 5.0)
BETWEEN_WATCHES_SECONDS = 0.2
SELECTOR = f"{naming.LABEL_MANAGED_BY}={naming.MANAGED_BY}"

_log = logs.logger(__name__)


class _Metadata(msgspec.Struct, rename="camel", frozen=True):
    name: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""


class _Secret(msgspec.Struct, frozen=True):
    metadata: _Metadata
    data: dict[str, str] | None = None


class _List(msgspec.Struct, frozen=True):
    metadata: _Metadata
    items: list[_Secret]


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    message: str = ""


class _Held(msgspec.Struct, frozen=True):
    created: str
    tenant: Tenant


class Policies:
    """The tenants by namespace. Reading is a dictionary look-up; `run` keeps it true."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        on_gone: Callable[[Tenant], None] = lambda _tenant: None,
        on_change: Callable[[Tenant], None] = lambda _tenant: None,
    ) -> None:
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/secrets"
        self._on_gone = on_gone
        self._on_change = on_change
        self._held: dict[str, _Held] = {}  # by the Secret's name
        self._tenants: dict[str, Tenant] = {}
        self.loaded = False
        self.operator_uid: str | None = None  # of its ServiceAccount; None until an operator has said it

    def get(self, namespace: str) -> Tenant | None:
        """Return what holds for a namespace now."""
        return self._tenants.get(namespace)

    def every(self) -> list[Tenant]:
        """Return all tenants, also those whose namespace has a newer one already and who are being removed."""
        return [held.tenant for held in self._held.values()]

    async def run(self) -> None:
        """List and watch, for ever."""
        version, delay = "", RETRY_SECONDS[0]
        while True:
            try:
                if not version:
                    version = await self._list()
                version = await self._watch(version)
                delay = RETRY_SECONDS[0]
                await asyncio.sleep(BETWEEN_WATCHES_SECONDS)  # a server that ends every watch at once is not flooded
            except (ClusterError, msgspec.MsgspecError) as error:
                expired = isinstance(error, ClusterError) and error.status == 410
                if expired or not isinstance(error, ClusterError) or error.status:
                    version = ""  # a list mends whatever the watch could not
                if not expired:
                    _log.warning("policies not followed", error=str(error), tenants=len(self._tenants))
                    await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
                    delay = min(delay * 2, RETRY_SECONDS[1])

    async def _list(self) -> str:
        body = await self._cluster.get(self._path, {"labelSelector": SELECTOR})
        listed = msgspec.json.decode(body, type=_List)
        names = {secret.metadata.name for secret in listed.items}
        if naming.OPERATOR_SECRET not in names:
            self.operator_uid = None
        for name in [name for name in self._held if name not in names]:
            self._remove(name)
        for secret in listed.items:
            self._put(secret)
        if not self.loaded:
            _log.info("policies loaded", tenants=len(self._tenants))
        self.loaded = True
        return listed.metadata.resource_version

    async def _watch(self, version: str) -> str:
        """Apply events until the server ends the watch; return where to go on from."""
        parameters = {"labelSelector": SELECTOR, "resourceVersion": version}
        async for event in self._cluster.watch(self._path, parameters):
            if event.type == "ERROR":
                status = msgspec.json.decode(event.object, type=_Status)
                raise ClusterError(status.code or 500, status.message)
            secret = msgspec.json.decode(event.object, type=_Secret)
            version = secret.metadata.resource_version or version
            if event.type in {"ADDED", "MODIFIED"}:
                self._put(secret)
            elif event.type == "DELETED":
                self._remove(secret.metadata.name)
        return version

    def _put(self, secret: _Secret) -> None:
        name = secret.metadata.name
        if name == naming.OPERATOR_SECRET:
            self._put_operator(secret)
            return
        if not name.startswith("policy-"):
            return
        try:
            document = base64.b64decode((secret.data or {})[naming.POLICY_KEY], validate=True)
            tenant = compile_policy(msgspec.json.decode(document, type=TenantPolicy))
        except (KeyError, binascii.Error, msgspec.MsgspecError, PolicyError) as error:
            # The document holds keys: say what is wrong with it, never what is in it.
            kind = "no " + naming.POLICY_KEY if isinstance(error, KeyError) else type(error).__name__
            if isinstance(error, PolicyError):
                kind = str(error)
            kept = name in self._held
            _log.error("policy does not decode", secret_name=name, error=kind, last_good_kept=kept)
            return
        before = self._held.get(name)
        if before is not None and before.tenant.generation == tenant.generation and tenant.generation:
            return
        if before is not None and before.tenant.namespace != tenant.namespace:
            self._remove(name)
        self._held[name] = _Held(secret.metadata.creation_timestamp, tenant)
        self._choose(tenant.namespace)
        _log.info("policy loaded", tenant=tenant.namespace, generation=tenant.generation)

    def _put_operator(self, secret: _Secret) -> None:
        try:
            document = base64.b64decode((secret.data or {})[naming.OPERATOR_KEY], validate=True)
            self.operator_uid = msgspec.json.decode(document, type=OperatorIdentity).service_account_uid
        except (KeyError, binascii.Error, msgspec.MsgspecError) as error:
            _log.error("the operator's identity does not decode", error=type(error).__name__)

    def _remove(self, name: str) -> None:
        if name == naming.OPERATOR_SECRET:
            self.operator_uid = None
        held = self._held.pop(name, None)
        if held is None:
            return
        self._choose(held.tenant.namespace)
        if held.tenant.namespace not in self._tenants:
            _log.info("policy gone", tenant=held.tenant.namespace)
            self._on_gone(held.tenant)

    def _choose(self, namespace: str) -> None:
        """Take the newest policy of a namespace: one that is made again has two while its former self is removed."""
        candidates = [(h.created, name) for name, h in self._held.items() if h.tenant.namespace == namespace]
        if candidates:
            chosen = self._tenants[namespace] = self._held[max(candidates)[1]].tenant
            self._on_change(chosen)
        else:
            self._tenants.pop(namespace, None)
        metrics.POLICIES.set(len(self._tenants))
