"""Publish this operator's identity to the gateway: a ServiceAccount's name can be reused, its UID cannot."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import msgspec

from assistant_crds import naming
from assistant_crds.contracts import OperatorIdentity, encode
from assistant_observability import logs
from assistant_operator.desired.compare import is_applied, with_digest
from assistant_operator.desired.platform import metadata
from assistant_operator.errors import ClusterError, NotLeaderError
from assistant_operator.reconcile.context import Context
from assistant_operator.tenant.snapshot import Json

_log = logs.logger(__name__)


class _Account(msgspec.Struct, frozen=True):
    uid: str


class _Bound(msgspec.Struct, frozen=True):
    serviceaccount: _Account


class _Claims(msgspec.Struct, frozen=True):
    bound: _Bound = msgspec.field(name="kubernetes.io")


def account_uid(token_file: Path) -> str:
    """Return the UID of the ServiceAccount that the token is of; "" when the file holds no such token."""
    try:
        payload = token_file.read_text().strip().split(".")[1]
        content = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return msgspec.json.decode(content, type=_Claims).bound.serviceaccount.uid
    except (OSError, IndexError, binascii.Error, ValueError, msgspec.MsgspecError):
        return ""


def secret(uid: str, routes_namespace: str) -> Json:
    """Return the Secret in the routes namespace that tells the gateway who may ask for probes."""
    content = base64.b64encode(encode(OperatorIdentity(service_account_uid=uid))).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(naming.OPERATOR_SECRET, routes_namespace, "", "assistant-operator"),
        "type": "Opaque",
        "data": {naming.OPERATOR_KEY: content},
    }


async def publish(context: Context) -> None:
    """Write the Secret where it differs.

    Raises:
        ClusterUnreachableError: the API server does not answer.
    """
    uid = account_uid(context.settings.gateway_token_file)
    if not uid:
        return
    wanted = with_digest(secret(uid, context.settings.routes_namespace))
    try:
        live = await context.cluster.get("Secret", naming.OPERATOR_SECRET, context.settings.routes_namespace)
        if not is_applied(wanted, live):
            await context.cluster.apply(wanted)
    except (ClusterError, NotLeaderError) as error:
        _log.warning("the operator's identity could not be published to the gateway", error=str(error))
