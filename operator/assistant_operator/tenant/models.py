"""From a model in a spec to the gateway's route: what is allowed, and where the key is.

The key of a tenant's own endpoint travels only in the policy Secret of the routes namespace, never in a
ConfigMap, log line or condition.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TypeAlias
from urllib.parse import urlsplit

from assistant_crds.assistant import AssistantSpec, Model, ModelFallback
from assistant_crds.conditions import Reason
from assistant_crds.contracts import Endpoint, ModelRoute
from assistant_crds.knowledge_base import Embedding
from assistant_crds.meta import KeyReference
from assistant_operator.tenant.condition import ConditionResult, false
from assistant_operator.tenant.snapshot import Json, Snapshot

# As for instructions in the resource itself: all of a tenant's have to fit into one ConfigMap.
MAX_INSTRUCTIONS = 32768
# Of an endpoint's API key: they all have to fit into the tenant's policy.
MAX_KEY = 4096

AnyModel: TypeAlias = Model | ModelFallback | Embedding


class Refusal(Exception):  # noqa: N818 - carries a condition result to the caller, not a fault
    """A resource cannot be served; `result` says why."""

    def __init__(self, result: ConditionResult) -> None:
        super().__init__(result.message)
        self.result = result


class Resolver:
    """The rules that hold for every model of one tenant."""

    def __init__(
        self, snapshot: Snapshot, providers: frozenset[str] | None, models_allow: list[str], allow_own: bool
    ) -> None:
        self.snapshot = snapshot
        self._providers = providers
        self._allow = models_allow
        self._allow_own = allow_own

    @staticmethod
    def describe(model: AnyModel) -> str:
        """Return the model for people: `provider/name`, or `host/name` of an own endpoint."""
        if model.endpoint is not None:
            return f"{urlsplit(model.endpoint.url).hostname or '?'}/{model.name}"
        return f"{model.provider or '?'}/{model.name}"

    def check_model(self, model: AnyModel, subject: str, field: str) -> None:
        """Raise Refusal or ValueError unless the tenant may use the model."""
        if (model.provider is None) == (model.endpoint is None):
            raise ValueError(f"exactly one of {field}.provider and {field}.endpoint must be set")
        if model.endpoint is not None:
            if urlsplit(model.endpoint.url).scheme not in {"http", "https"}:
                raise ValueError(f"{field}.endpoint.url must begin with http:// or https://")
            if not self._allow_own:
                message = (
                    f"{subject} names an endpoint of its own, which this tenant may not do. Use a model of the "
                    "platform's catalogue, or ask the platform team for models.allowOwnEndpoints."
                )
                raise Refusal(false(Reason.MODEL_NOT_ALLOWED, message))
            return
        if self._providers is not None and model.provider not in self._providers:
            message = (
                f"{subject} uses provider {model.provider}, which the platform's catalogue does not have. "
                f"Known providers: {', '.join(sorted(self._providers)) or 'none'}."
            )
            raise Refusal(false(Reason.PROVIDER_UNKNOWN, message))
        if not any(fnmatchcase(f"{model.provider}/{model.name}", pattern) for pattern in self._allow):
            message = (
                f"{subject} uses {model.provider}/{model.name}, which this tenant may not use. "
                f"Allowed: {', '.join(self._allow) or 'none'}. Choose one of these, or ask the platform team."
            )
            raise Refusal(false(Reason.MODEL_NOT_ALLOWED, message))

    def route(self, model: AnyModel, subject: str) -> ModelRoute:
        """Return the gateway's route; raises Refusal when the endpoint's key cannot be read."""
        if model.endpoint is None:
            return ModelRoute(model=model.name, provider=model.provider)
        reference = model.endpoint.api_key_secret_ref
        key = None if reference is None else self._secret(reference, subject)
        return ModelRoute(model=model.name, endpoint=Endpoint(url=model.endpoint.url, api_key=key))

    def check_models(self, model: Model, name: str) -> None:
        """Raise Refusal or ValueError unless the tenant may use an Assistant's model and each of its fallbacks."""
        self.check_model(model, f"Assistant {name}", "spec.model")
        for index, fallback in enumerate(model.fallbacks):
            self.check_model(fallback, _fallback(index, name), f"spec.model.fallbacks[{index}]")

    def fallbacks(self, model: Model, name: str) -> list[ModelRoute]:
        """Return the routes of an Assistant's fallbacks; raises Refusal when an endpoint's key cannot be read."""
        return [self.route(fallback, _fallback(index, name)) for index, fallback in enumerate(model.fallbacks)]

    def _secret(self, reference: KeyReference, subject: str) -> str:
        secret = self.snapshot.secrets.get(reference.name)
        if secret is None:
            message = (
                f"{subject} takes its API key from Secret {reference.name}, which does not exist in namespace "
                f"{self.snapshot.namespace}. Create it with the key {reference.key}."
            )
            raise Refusal(false(Reason.SECRET_NOT_FOUND, message))
        encoded = (secret.get("data") or {}).get(reference.key)
        try:
            value = base64.b64decode(encoded or "", validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            value = ""
        if not (value.isascii() and value.isprintable() and len(value) <= MAX_KEY):
            value = ""  # no header can carry it
        if not value:
            what = "has no key" if encoded is None else "has no usable text under the key"
            message = f"Secret {reference.name} {what} {reference.key}, which {subject} needs. Add it."
            raise Refusal(false(Reason.KEY_NOT_FOUND, message))
        return value


def _fallback(index: int, name: str) -> str:
    return f"Fallback {index + 1} of Assistant {name}"


def instructions(spec: AssistantSpec, subject: str, snapshot: Snapshot) -> str:
    """Return the system prompt; raises Refusal when its ConfigMap or key is missing."""
    if spec.instructions_from is None:
        return spec.instructions
    reference = spec.instructions_from.config_map_key_ref
    config_map = snapshot.config_maps.get(reference.name)
    if config_map is None:
        message = (
            f"{subject} takes its instructions from ConfigMap {reference.name}, which does not exist in namespace "
            f"{snapshot.namespace}. Create it with the key {reference.key}."
        )
        raise Refusal(false(Reason.CONFIG_MAP_NOT_FOUND, message))
    text = (config_map.get("data") or {}).get(reference.key)
    if text is None:
        message = f"ConfigMap {reference.name} has no key {reference.key}, which {subject} needs. Add it."
        raise Refusal(false(Reason.KEY_NOT_FOUND, message))
    if len(text) > MAX_INSTRUCTIONS:
        message = (
            f"Key {reference.key} of ConfigMap {reference.name} is longer than the {MAX_INSTRUCTIONS} characters that "
            f"{subject} may have as instructions. Shorten it."
        )
        raise Refusal(false(Reason.INVALID_SPEC, message))
    return str(text)


def created(raw: Json) -> int:
    """Return when the object was created, in Unix seconds."""
    return int(datetime.fromisoformat(raw["metadata"]["creationTimestamp"]).timestamp())
