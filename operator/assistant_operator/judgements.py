"""Which condition holds, for each kind of resource. Pure; `status.py` turns the verdicts into statuses."""

from __future__ import annotations

from collections.abc import Callable

from assistant_crds import naming
from assistant_crds.conditions import ConditionType, Reason
from assistant_crds.contracts import ModelProbe
from assistant_operator import generations
from assistant_operator.observed import Observed
from assistant_operator.reconcile.resolve import Resolved, ResolvedAssistant, ResolvedKnowledgeBase
from assistant_operator.snapshot import Snapshot, name_of
from assistant_operator.verdict import Verdict, no, waiting, yes
from assistant_operator.workload import judge

_STORE_HINT = "Check that it runs and that the platform's credentials for it are right; the operator keeps trying."
_OVERLOADED = (
    "No store answers the operator in time, all at once: the operator itself is overloaded or cut off. Give it more of "
    "the processor (operator.resources in the chart), and look at its node; tenants may well be served."
)


class Judgements:
    """The verdicts on one tenant's resources."""

    def __init__(self, resolved: Resolved, snapshot: Snapshot, observed: Observed) -> None:
        self._resolved = resolved
        self._snapshot = snapshot
        self._observed = observed
        self._bases = {name_of(base.raw): base for base in resolved.knowledge_bases}

    def assistant(self, item: ResolvedAssistant) -> dict[ConditionType, Verdict]:
        """Return the verdicts on an Assistant."""
        name = name_of(item.raw)
        probe = self._observed.gateway.probe
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
            **_unless(unserved, ConditionType.QUOTA_SYNCED, lambda: self._quota(part, told=True)),
            ConditionType.WORKLOAD_AVAILABLE: self._workload([naming.API]),
            **_unless(unserved, ConditionType.ENDPOINT_ANSWERING, lambda: self._endpoint(part)),
        }

    def fallbacks(self, item: ResolvedAssistant) -> Verdict | None:
        """Return whether each fallback of an Assistant would answer; None when it has none."""
        if item.policy is None or not item.policy.fallbacks:
            return None
        behind = self._gateway_behind(generations.assistant(name_of(item.raw)))
        probe = self._observed.gateway.probe
        known = None if probe is None else probe.assistants.get(name_of(item.raw))
        if behind is not None or known is None or len(known.fallbacks) != len(item.policy.fallbacks):
            return behind or waiting("The gateway does not say yet whether its fallbacks would answer.")
        failing = [(number, found) for number, found in enumerate(known.fallbacks, 1) if not found.reachable]
        if failing:
            message = " ".join(f"Fallback {number} ({found.model}): {found.message}" for number, found in failing)
            return no(_reason(failing[0][1]), message)
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
            return no(Reason.DUPLICATE_FALLBACK, message)
        return yes(Reason.REACHABLE, "Every fallback would answer.")

    def knowledge_base(self, item: ResolvedKnowledgeBase) -> dict[ConditionType, Verdict]:
        """Return the verdicts on a KnowledgeBase."""
        probe = self._observed.gateway.probe
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

    def tenant(self) -> dict[ConditionType, Verdict]:
        """Return the verdicts on the Tenant."""
        return {
            ConditionType.ACCEPTED: self._resolved.settings.accepted,
            ConditionType.QUOTA_SYNCED: self._quota(generations.SHARED),
            ConditionType.WORKLOAD_AVAILABLE: self._workload([naming.API]),
            ConditionType.ENDPOINT_ANSWERING: self._endpoint(generations.SHARED),
        }

    @staticmethod
    def _held(accepted: Verdict, resolved: Verdict) -> ConditionType | None:
        """Return the condition without which nothing further can be judged, None when it holds."""
        if accepted.ok is False:
            return ConditionType.ACCEPTED
        return ConditionType.REFS_RESOLVED if resolved.ok is False else None

    def _gateway_behind(self, part: str) -> Verdict | None:
        gateway = self._observed.gateway
        if gateway.error:
            message = f"The gateway cannot be asked: {gateway.error} Look at Deployment assistant-gateway."
            return no(Reason.GATEWAY_UNREACHABLE, message)
        if not self._observed.gateway_knows(part):
            return waiting("The gateway has not loaded this configuration yet.")
        return None

    def _model(self, known: ModelProbe | None, part: str) -> Verdict:
        behind = self._gateway_behind(part)
        if behind is not None or known is None:
            return behind or waiting("The gateway has not loaded this configuration yet.")
        if known.reachable:
            return yes(Reason.REACHABLE, known.message or "The model's provider answers.")
        return no(_reason(known), known.message)

    def _knowledge(self, item: ResolvedAssistant) -> Verdict:
        if not item.knowledge_bases:
            return yes(Reason.READY, "It uses no knowledge base.")
        for name in item.knowledge_bases:
            verdicts = self.knowledge_base(self._bases[name])
            for kind in (
                ConditionType.ACCEPTED,
                ConditionType.REFS_RESOLVED,
                ConditionType.KNOWLEDGE_READY,
                ConditionType.MODEL_REACHABLE,
            ):
                verdict = verdicts[kind]
                if verdict.reason is Reason.STORE_UNREACHABLE:
                    return verdict
                if verdict.ok is False:
                    return no(Reason.KNOWLEDGE_BASE_NOT_READY, f"KnowledgeBase {name} is not ready: {verdict.message}")
                if verdict.ok is None:
                    return waiting(f"KnowledgeBase {name}: {verdict.message}")
        return yes(Reason.READY, "Its knowledge bases are ready.")

    def _stores(self) -> Verdict:
        for store in ("postgres", "weaviate"):
            if store in self._observed.stores.errors:
                return self._store_down(store)
        return yes(Reason.READY, "Database and vector store are ready.")

    def _store_down(self, store: str) -> Verdict:
        if self._observed.stores.overloaded is not None:
            return Verdict(None, Reason.OPERATOR_OVERLOADED, _OVERLOADED)
        return no(Reason.STORE_UNREACHABLE, f"Store {store}: {self._observed.stores.errors[store]} {_STORE_HINT}")

    def _quota(self, part: str, *, told: bool = False) -> Verdict:
        """Return whether limits are enforced; `told`: another condition says already that the gateway is behind."""
        if "redis" in self._observed.stores.errors:
            return self._store_down("redis")
        behind = self._gateway_behind(part)
        if behind is not None and told:
            return Verdict(behind.ok, behind.reason, f"See {ConditionType.MODEL_REACHABLE.value}.")
        return behind or yes(Reason.SYNCED, "The gateway enforces this configuration's limits.")

    def _workload(self, names: list[str]) -> Verdict:
        if self._observed.apply_error:
            return no(self._observed.apply_reason, self._observed.apply_error)
        if not names:
            return waiting("Not served.")
        if self._observed.stores.errors and ("Deployment", naming.API) not in self._snapshot.owned:
            return waiting(f"The pods start once these stores answer: {', '.join(self._observed.stores.errors)}.")
        return judge(self._snapshot.owned, self._snapshot.pods, names)

    def _endpoint(self, part: str) -> Verdict:
        answers = self._observed.answers
        # A pod that only just started is no fault while others serve.
        serving = [answer for answer in answers if answer.in_service]
        if not answers:
            return waiting("No pod runs yet.")
        for answer in serving or answers:
            if not (answer.ready and answer.in_service):
                message = f"Pod {answer.pod} is not ready to serve: {answer.detail or 'it is starting'}"
                return no(Reason.NOT_ANSWERING, message)
        for answer in serving:
            if not self._observed.serves(answer, part):
                message = f"Pod {answer.pod} still serves configuration {answer.generation or 'none'}."
                return no(Reason.STALE_CONFIGURATION, message)
        if self._observed.service_error:
            message = (
                f"The pods answer, but clients of Service {naming.API} do not get through: "
                f"{self._observed.service_error} Look at its selector, at its endpoints (kubectl get endpointslices "
                f"-l kubernetes.io/service-name={naming.API}) and at the namespace's NetworkPolicies."
            )
            return no(Reason.NOT_ANSWERING, message)
        return yes(Reason.ANSWERING, "Every pod serves this configuration.")


def _unless(
    cause: ConditionType | None, kind: ConditionType, judged: Callable[[], Verdict]
) -> dict[ConditionType, Verdict]:
    """Return the verdict on a condition; the cause that stands in the way is told once, where it belongs."""
    if cause is None:
        return {kind: judged()}
    return {kind: waiting(f"{kind.value} is judged once {cause.value} is True.")}


def _reason(probe: ModelProbe) -> Reason:
    """Return the reason that a gateway gave; one that only a newer gateway knows is told as unreachable."""
    try:
        return Reason(probe.reason)
    except ValueError:
        return Reason.PROVIDER_UNREACHABLE
