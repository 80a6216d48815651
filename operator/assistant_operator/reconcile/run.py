"""One run for one tenant, from the first look to the last word. Read it from top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from assistant_observability import genai, logs, metrics, traces
from assistant_operator.desired import Desired, build
from assistant_operator.errors import ClusterError, ClusterUnreachableError, StoreUnreachableError
from assistant_operator.generations import Generations, config_parts, policy_parts
from assistant_operator.observed import GatewayView, Observed, PodAnswer, StoreView
from assistant_operator.queue import Outcome
from assistant_operator.reconcile.apply import NUDGE_SECONDS, apply, ensure_account, is_stalled
from assistant_operator.reconcile.claim import claim
from assistant_operator.reconcile.context import Context, Report
from assistant_operator.reconcile.gather import LargeError, gather
from assistant_operator.reconcile.knowledge import finish_deletions, reindex
from assistant_operator.reconcile.objects import Problems
from assistant_operator.reconcile.probe import ask_gateway, ask_pods, ask_service, count
from assistant_operator.reconcile.report import report
from assistant_operator.reconcile.resolve import resolve
from assistant_operator.reconcile.stores import ensure_stores
from assistant_operator.reconcile.sweep import sweep
from assistant_operator.reconcile.teardown import teardown, teardown_former
from assistant_operator.snapshot import Snapshot

# Longer than any single call's time-out; a run that hangs all the same is cut off and tried again.
RUN_SECONDS = 120
# Should an event that mends things be missed.
NOT_READY_SECONDS = 60
# When a large namespace comes back while another one is worked on.
LARGE_SECONDS = 2.0
_log = logs.logger(__name__)
_tracer = traces.tracer(__name__)


async def reconcile(namespace: str, context: Context) -> Outcome:
    """Make the tenant be as its resources say, as far as that is possible now."""
    if namespace in {context.settings.namespace, context.settings.routes_namespace}:
        return Outcome()  # the platform's own, never a tenant
    large = namespace in context.memory.large
    if large and context.large.locked():
        return Outcome(later=LARGE_SECONDS)  # without keeping a worker from the others
    started = time.monotonic()
    result = "error"
    with (
        _tracer.start_as_current_span("reconcile", attributes={genai.TENANT: namespace}),
        structlog.contextvars.bound_contextvars(namespace=namespace),
    ):
        try:
            async with asyncio.timeout(RUN_SECONDS), context.large if large else contextlib.nullcontext():
                outcome = await _run(await gather(namespace, context), context)
            result = "retry" if outcome.retry else "settled"
        except LargeError:
            outcome = Outcome(later=0.0)
        except (ClusterUnreachableError, ClusterError) as error:
            # It cannot be said on the resources either. A traceback would say no more.
            _log.warning("the API server does not answer as it should", error=str(error))
            outcome = Outcome(retry=True)
        finally:
            metrics.RECONCILES.labels(result).inc()
            metrics.RECONCILE_DURATION.observe(time.monotonic() - started)
    return outcome


async def _run(snapshot: Snapshot, context: Context) -> Outcome:
    try:
        former = await teardown_former(snapshot, context)
    except ClusterError as error:  # what is left of a former tenant holds up nobody
        _log.warning("a former tenant is left", error=str(error))
        former = Outcome(retry=True)
    if snapshot.uid is None or snapshot.leaving:
        outcome = await teardown(snapshot, context)
        return Outcome(retry=outcome.retry or former.retry, wrote=outcome.wrote or former.wrote)

    # Whatever goes wrong in one step is told in the report, and the other steps go on.
    problems = Problems(snapshot.namespace, context.memory.shown)
    resolved = resolve(snapshot, context.catalog.providers, context.defaults)
    context.memory.outlived.pop(resolved.identity.key, None)
    claimed = await claim(snapshot.resources, context, problems)
    stores = await ensure_stores(resolved, snapshot, context, problems)
    account, made = await ensure_account(snapshot, context, problems)
    credentials = replace(stores.credentials, account=account)
    desired = build(resolved, context.platform, credentials)
    configs, policies = _remember(desired, snapshot.namespace, context)
    applied = made | await apply(desired, credentials, snapshot, context, problems)

    bases = frozenset(base.key for base in resolved.served_knowledge_bases())
    again = await problems.step(
        "Having documents read again",
        reindex(resolved.identity.key, () if stores.errors else resolved.served_knowledge_bases(), context),
        {},
    )
    gateway, answers, counts = await asyncio.gather(
        problems.step("Asking the gateway", ask_gateway(snapshot.namespace, context), GatewayView(None, "")),
        problems.step("Asking the pods", ask_pods(snapshot.pods, context), []),
        problems.step(
            "Counting documents",
            count(resolved.identity.key, frozenset() if stores.errors else bases, context),
            {},
        ),
    )
    observed = Observed(
        config_generation=desired.config.generation,
        policy_generation=desired.policy.generation,
        gateway=gateway,
        answers=answers,
        stores=StoreView(stores.errors, _overloaded(stores.errors, context)),
        counts=counts,
        reindexed=again,
        apply_error=problems.text,
        apply_reason=problems.reason,
        service_error=await problems.step("Asking the Service", ask_service(snapshot.owned, answers, context), ""),
        configs=configs,
        policies=policies,
    )
    removed = await problems.step(
        "Finishing deletions", finish_deletions(resolved.identity, snapshot, observed, context), Outcome(retry=True)
    )
    swept = await problems.step(
        "Comparing knowledge bases with the stores", sweep(resolved.identity.key, snapshot, context), False
    )
    observed = replace(observed, apply_error=problems.text, apply_reason=problems.reason)
    told = await report(resolved, snapshot, observed, context)
    context.memory.reported[snapshot.namespace] = Report(
        resolved.identity.key, bases, gateway.steady, counts, resolved.quotas, told.usage
    )
    return Outcome(
        # What was just written is true only once it was read back.
        wrote=(wrote := claimed or stores.wrote or applied or removed.wrote or swept or told.wrote or former.wrote),
        retry=wrote or told.refused or removed.retry or former.retry or _is_in_motion(observed, context),
        later=None if told.ready else _look_again(snapshot),
    )


def _look_again(snapshot: Snapshot) -> float:
    """Return when to look again at what is not Ready, in seconds."""
    stalled = any(kind == "Deployment" and is_stalled(obj) for (kind, _), obj in snapshot.owned.items())
    return NUDGE_SECONDS if stalled else NOT_READY_SECONDS


def _remember(desired: Desired, namespace: str, context: Context) -> tuple[Generations, Generations]:
    """Return the generations of the tenant's documents, with the wanted ones as the newest."""
    configs = context.memory.configs.setdefault(namespace, Generations())
    configs.put(desired.config.generation, lambda: config_parts(desired.config))
    policies = context.memory.policies.setdefault(namespace, Generations())
    policies.put(desired.policy.generation, lambda: policy_parts(desired.policy))
    return configs, policies


def _overloaded(errors: Mapping[str, str], context: Context) -> float | None:
    """Return for how long every store has been late at once; this run may be the first to see it."""
    known = context.health.overloaded
    if known is None and len(errors) > 1 and errors.keys() == context.health.stores:
        return 0.0 if all(StoreUnreachableError(name, text).late for name, text in errors.items()) else None
    return known


def _is_in_motion(observed: Observed, context: Context) -> bool:
    """Return whether something may change of which nobody tells: not of specs, Secrets, pods, and not of models."""
    probe = observed.gateway.probe
    return (
        bool(observed.apply_error or observed.service_error)
        # A store that is down for all wakes every tenant when it is back.
        or any(not context.health.error(store) for store in observed.stores.errors)
        or probe is None
        or probe.generation != observed.policy_generation
        # The kubelet tells of pods that come into service.
        or any(answer.in_service and not _serves(answer, observed) for answer in observed.answers)
    )


def _serves(answer: PodAnswer, observed: Observed) -> bool:
    return answer.ready and answer.generation == observed.config_generation
