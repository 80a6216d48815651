"""Evaluate every condition of a tenant's resources. Pure; the package `status` turns the results into statuses."""

from __future__ import annotations

from collections.abc import Callable

from assistant_crds import naming
from assistant_crds.conditions import ConditionType, Reason
from assistant_crds.contracts import ModelProbe
from assistant_operator.status.workload import availability
from assistant_operator.tenant import generations
from assistant_operator.tenant.condition import ConditionResult, false, true, unknown
from assistant_operator.tenant.resolve import ResolvedAssistant, ResolvedKnowledgeBase
from assistant_operator.tenant.snapshot import name_of
from assistant_operator.tenant.state import Tenant

_STORE_HINT = "Check that it runs and that the platform's credentials for it are right; the operator keeps trying."
_OVERLOADED = (
    "No store answers the operator in time, all at once: the operator itself is overloaded or cut off. Give it more of "
    "the processor (operator.resources in the chart), and look at its node; tenants may well be served."
)


class Conditions:
    """Evaluates the conditions of one tenant's resources."""

    def __init__(self, tenant: Tenant) -> None:
        self._resolved = tenant.resolved
        self._snapshot = tenant.snapshot
        self._observation = tenant.observation
        self._bases = {name_of(base.raw): base for base in tenant.resolved.knowledge_bases}

    def assistant(self, item: ResolvedAssistant) -> dict[ConditionType, ConditionResult]:
        """Return the conditions of an Assistant."""
        name = name_of(item.raw)
        probe = self._observation.gateway.probe
        known = None if probe is None else probe.assistants.get(name)
        held = self._held(item.accepted, item.resolved)
        # An assistant without usable knowledge is not served, so nothing can be said of its model.
        unserved = held or (None if item.served else ConditionType.KNOWLEDGE_READY)
        part = generations.assistant(name)
        return {
            ConditionType.ACCEPTED: item.accepted,
            ConditionType.REFS_RESOLVED: item.resolved,
            **_unless(unserved, ConditionType.MODEL_REACHABLE, lambda: self._model(known, part)),
            **_unless(held, ConditionType.KNOWLEDGE_READY, lambda: self._knowledge(item)),
            **_unless(unserved, ConditionType.QUOTA_SYNCED, lambda: self._quota(part, explained=True)),
            ConditionType.WORKLOAD_AVAILABLE: self._workload([naming.API]),
            **_unless(unserved, ConditionType.ENDPOINT_ANSWERING, lambda: self._endpoint(part)),
        }

    def fallbacks(self, item: ResolvedAssistant) -> ConditionResult | None:
        """Return whether each fallback of an Assistant would answer; None when it has none."""
        if item.policy is None or not item.policy.fallbacks:
            return None
        behind = self._gateway_behind(generations.assistant(name_of(item.raw)))
        probe = self._observation.gateway.probe
        known = None if probe is None else probe.assistants.get(name_of(item.raw))
        if behind is not None or known is None or len(known.fallbacks) != len(item.policy.fallbacks):
            return behind or unknown("The gateway does not say yet whether its fallbacks would answer.")
        failing = [(number, found) for number, found in enumerate(known.fallbacks, 1) if not found.reachable]
        if failing:
            message = " ".join(f"Fallback {number} ({found.model}): {found.message}" for number, found in failing)
            return false(_reason(failing[0][1]), message)
        places = [
            (route.provider, route.endpoint, route.model) for route in (item.policy.route, *item.policy.fallbacks)
        ]
        again = [(number, places.index(place)) for number, place in enumerate(places) if places.index(place) < number]
        if again:
            message = " ".join(
                f"Fallback {number} is the same as {f'fallback {first}' if first else 'the model itself'}, so it "
                "answers nothing that the other does not. Remove it, or name another model."
                for number, first in again
            )
            return false(Reason.DUPLICATE_FALLBACK, message)
        return true(Reason.REACHABLE, "Every fallback would answer.")

    def knowledge_base(self, item: ResolvedKnowledgeBase) -> dict[ConditionType, ConditionResult]:
        """Return the conditions of a KnowledgeBase."""
        probe = self._observation.gateway.probe
        known = None if probe is None else probe.knowledge_bases.get(name_of(item.raw))
        held = self._held(item.accepted, item.resolved)
        part = generations.knowledge_base(name_of(item.raw))
        return {
            ConditionType.ACCEPTED: item.accepted,
            ConditionType.REFS_RESOLVED: item.resolved,
            **_unless(held, ConditionType.MODEL_REACHABLE, lambda: self._model(known, part)),
            **_unless(held, ConditionType.KNOWLEDGE_READY, self._stores),
            ConditionType.WORKLOAD_AVAILABLE: self._workload([naming.API, naming.WORKER] if item.served else []),
            **_unless(held, ConditionType.ENDPOINT_ANSWERING, lambda: self._endpoint(part)),
        }

    def tenant(self) -> dict[ConditionType, ConditionResult]:
        """Return the conditions of the Tenant."""
        return {
            ConditionType.ACCEPTED: self._resolved.settings.accepted,
            ConditionType.QUOTA_SYNCED: self._quota(generations.SHARED),
            ConditionType.WORKLOAD_AVAILABLE: self._workload([naming.API]),
            ConditionType.ENDPOINT_ANSWERING: self._endpoint(generations.SHARED),
        }

    @staticmethod
    def _held(accepted: ConditionResult, resolved: ConditionResult) -> ConditionType | None:
        """Return the condition that has to be true before any other can be evaluated; None when it is."""
        if accepted.is_false:
            return ConditionType.ACCEPTED
        return ConditionType.REFS_RESOLVED if resolved.is_false else None

    def _gateway_behind(self, part: str) -> ConditionResult | None:
        gateway = self._observation.gateway
        if gateway.error:
            message = f"The gateway cannot be asked: {gateway.error} Look at Deployment assistant-gateway."
            return false(Reason.GATEWAY_UNREACHABLE, message)
        if not self._observation.gateway_knows(part):
            return unknown("The gateway has not loaded this configuration yet.")
        return None

    def _model(self, known: ModelProbe | None, part: str) -> ConditionResult:
        behind = self._gateway_behind(part)
        if behind is not None or known is None:
            return behind or unknown("The gateway has not loaded this configuration yet.")
        if known.reachable:
            return true(Reason.REACHABLE, known.message or "The model's provider answers.")
        return false(_reason(known), known.message)

    def _knowledge(self, item: ResolvedAssistant) -> ConditionResult:
        if not item.knowledge_bases:
            return true(Reason.READY, "It uses no knowledge base.")
        for name in item.knowledge_bases:
            results = self.knowledge_base(self._bases[name])
            for kind in (
                ConditionType.ACCEPTED,
                ConditionType.REFS_RESOLVED,
                ConditionType.KNOWLEDGE_READY,
                ConditionType.MODEL_REACHABLE,
            ):
                result = results[kind]
                if result.reason is Reason.STORE_UNREACHABLE:
                    return result
                if result.is_false:
                    return false(
                        Reason.KNOWLEDGE_BASE_NOT_READY, f"KnowledgeBase {name} is not ready: {result.message}"
                    )
                if result.is_unknown:
                    return unknown(f"KnowledgeBase {name}: {result.message}")
        return true(Reason.READY, "Its knowledge bases are ready.")

    def _stores(self) -> ConditionResult:
        for store in ("postgres", "weaviate"):
            if store in self._observation.stores.errors:
                return self._store_down(store)
        return true(Reason.READY, "Database and vector store are ready.")

    def _store_down(self, store: str) -> ConditionResult:
        if self._observation.stores.overloaded is not None:
            return unknown(_OVERLOADED, Reason.OPERATOR_OVERLOADED)
        return false(Reason.STORE_UNREACHABLE, f"Store {store}: {self._observation.stores.errors[store]} {_STORE_HINT}")

    def _quota(self, part: str, *, explained: bool = False) -> ConditionResult:
        """Return whether limits are enforced; `explained`: ModelReachable already says that the gateway is behind."""
        if "redis" in self._observation.stores.errors:
            return self._store_down("redis")
        behind = self._gateway_behind(part)
        if behind is not None and explained:
            return ConditionResult(behind.status, behind.reason, f"See {ConditionType.MODEL_REACHABLE.value}.")
        return behind or true(Reason.SYNCED, "The gateway enforces this configuration's limits.")

    def _workload(self, names: list[str]) -> ConditionResult:
        if self._observation.apply_error:
            return false(self._observation.apply_reason, self._observation.apply_error)
        if not names:
            return unknown("Not served.")
        if self._observation.stores.errors and ("Deployment", naming.API) not in self._snapshot.owned:
            return unknown(f"The pods start once these stores answer: {', '.join(self._observation.stores.errors)}.")
        return availability(self._snapshot.owned, self._snapshot.pods, names)

    def _endpoint(self, part: str) -> ConditionResult:
        pods = self._observation.pods
        # A pod that only just started is no fault while others serve.
        serving = [pod for pod in pods if pod.in_service]
        if not pods:
            return unknown("No pod runs yet.")
        for pod in serving or pods:
            if not (pod.ready and pod.in_service):
                message = f"Pod {pod.name} is not ready to serve: {pod.detail or 'it is starting'}"
                return false(Reason.NOT_ANSWERING, message)
        for pod in serving:
            if not self._observation.serves(pod, part):
                message = f"Pod {pod.name} still serves configuration {pod.generation or 'none'}."
                return false(Reason.STALE_CONFIGURATION, message)
        if self._observation.service_error:
            message = (
                f"The pods answer, but clients of Service {naming.API} do not get through: "
                f"{self._observation.service_error} Look at its selector, at its endpoints (kubectl get endpointslices "
                f"-l kubernetes.io/service-name={naming.API}) and at the namespace's NetworkPolicies."
            )
            return false(Reason.NOT_ANSWERING, message)
        return true(Reason.ANSWERING, "Every pod serves this configuration.")


def _unless(
    cause: ConditionType | None, kind: ConditionType, evaluate: Callable[[], ConditionResult]
) -> dict[ConditionType, ConditionResult]:
    """Return the result of a condition, unknown while `cause` is not true: only `cause` itself says what is wrong."""
    if cause is None:
        return {kind: evaluate()}
    return {kind: unknown(f"{kind.value} is judged once {cause.value} is True.")}


def _reason(probe: ModelProbe) -> Reason:
    """Return the reason that a gateway gave; one that only a newer gateway knows counts as unreachable."""
    try:
        return Reason(probe.reason)
    except ValueError:
        return Reason.PROVIDER_UNREACHABLE
