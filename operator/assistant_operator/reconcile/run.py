"""Reconcile one tenant: gather, resolve, write, probe, report. Read it from top to bottom."""

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
from assistant_operator.queue import Result
from assistant_operator.reconcile import finalizers
from assistant_operator.reconcile.apply import NUDGE_SECONDS, account_uid, apply, ensure_account, is_stalled
from assistant_operator.reconcile.context import Context, Report
from assistant_operator.reconcile.gather import LargeError, gather
from assistant_operator.reconcile.knowledge import finish_deletions, reindex
from assistant_operator.reconcile.objects import Problems
from assistant_operator.reconcile.probe import ask_gateway, ask_pods, ask_service, count
from assistant_operator.reconcile.report import report
from assistant_operator.reconcile.stores import ensure_stores
from assistant_operator.reconcile.sweep import sweep
from assistant_operator.reconcile.teardown import teardown, teardown_former
from assistant_operator.tenant.generations import Generations, config_parts, policy_parts
from assistant_operator.tenant.observation import GatewayView, Observation, PodReadiness, StoreView
from assistant_operator.tenant.resolve import resolve
from assistant_operator.tenant.snapshot import Snapshot
from assistant_operator.tenant.state import Tenant

# Longer than any single call's time-out; a run that hangs all the same is cut off and tried again.
RUN_SECONDS = 120
# Should an event that mends things be missed.
NOT_READY_SECONDS = 60
# When a large namespace comes back while another one is worked on.
LARGE_SECONDS = 2.0
_log = logs.logger(__name__)
_tracer = traces.tracer(__name__)


async def reconcile(namespace: str, context: Context) -> Result:
    """Make the tenant be as its resources say, as far as that is possible now."""
    if namespace in {context.settings.namespace, context.settings.routes_namespace}:
        return Result()  # the platform's own, never a tenant
    large = namespace in context.memory.large
    if large and context.large.locked():
        return Result(requeue_after=LARGE_SECONDS)  # without keeping a worker from the others
    started = time.monotonic()
    outcome = "error"
    with (
        _tracer.start_as_current_span("reconcile", attributes={genai.TENANT: namespace}),
        structlog.contextvars.bound_contextvars(namespace=namespace),
    ):
        try:
            async with asyncio.timeout(RUN_SECONDS), context.large if large else contextlib.nullcontext():
                result = await _run(await gather(namespace, context), context)
            outcome = "retry" if result.requeue else "settled"
        except LargeError:
            result = Result(requeue_after=0.0)
        except (ClusterUnreachableError, ClusterError) as error:
            # No status can be written either, and a traceback would add nothing.
            _log.warning("the API server does not answer as it should", error=str(error))
            result = Result(requeue=True)
        finally:
            metrics.RECONCILES.labels(outcome).inc()
            metrics.RECONCILE_DURATION.observe(time.monotonic() - started)
    return result


async def _run(snapshot: Snapshot, context: Context) -> Result:
    try:
        former = await teardown_former(snapshot, context)
    except ClusterError as error:  # what is left of a former tenant does not delay the present one
        _log.warning("a former tenant is left", error=str(error))
        former = Result(requeue=True)
    if snapshot.uid is None or snapshot.leaving:
        result = await teardown(snapshot, context)
        return Result(requeue=result.requeue or former.requeue, changed=result.changed or former.changed)

    # A step that fails is named in the report; the other steps go on.
    problems = Problems(snapshot.namespace, context.memory.shown)
    resolved = resolve(snapshot, context.catalog.providers, context.defaults)
    context.memory.outlived.pop(resolved.identity.key, None)
    finalizers_added = await finalizers.add(snapshot.resources, context, problems)
    stores = await ensure_stores(resolved, snapshot, context, problems)
    snapshot, account_written = await ensure_account(stores.snapshot, context, problems)
    credentials = replace(stores.credentials, account=account_uid(snapshot))
    desired = build(resolved, context.platform, credentials)
    configs, policies = _remember(desired, snapshot.namespace, context)
    snapshot, applied = await apply(desired, credentials, snapshot, context, problems)

    bases = frozenset(base.key for base in resolved.served_knowledge_bases())
    reindexed = await problems.step(
        "Having documents read again",
        reindex(resolved.identity.key, () if stores.errors else resolved.served_knowledge_bases(), context),
        {},
    )
    gateway, pods, counts = await asyncio.gather(
        problems.step("Asking the gateway", ask_gateway(snapshot.namespace, context), GatewayView(None, "")),
        problems.step("Asking the pods", ask_pods(snapshot.pods, context), []),
        problems.step(
            "Counting documents",
            count(resolved.identity.key, frozenset() if stores.errors else bases, context),
            {},
        ),
    )
    observation = Observation(
        config_generation=desired.config.generation,
        policy_generation=desired.policy.generation,
        gateway=gateway,
        pods=pods,
        stores=StoreView(stores.errors, _overloaded(stores.errors, context)),
        counts=counts,
        reindexed=reindexed,
        apply_error=problems.text,
        apply_reason=problems.reason,
        service_error=await problems.step("Asking the Service", ask_service(snapshot.owned, pods, context), ""),
        configs=configs,
        policies=policies,
    )
    tenant = Tenant(snapshot, resolved, observation)
    removed = await problems.step("Finishing deletions", finish_deletions(tenant, context), Result(requeue=True))
    swept = await problems.step(
        "Comparing knowledge bases with the stores", sweep(resolved.identity.key, snapshot, context), False
    )
    observation = replace(observation, apply_error=problems.text, apply_reason=problems.reason)
    reported = await report(replace(tenant, observation=observation), context)
    context.memory.reported[snapshot.namespace] = Report(
        resolved.identity.key, bases, gateway.steady, counts, resolved.quotas, reported.usage
    )
    written = finalizers_added or stores.changed or account_written or applied
    changed = written or removed.changed or swept or reported.changed or former.changed
    incomplete = reported.refused or removed.requeue or former.requeue or _is_in_motion(observation, context)
    # What was written is confirmed by the next run, which reads it back.
    return Result(
        requeue=changed or incomplete,
        changed=changed,
        requeue_after=None if reported.ready else _not_ready_seconds(snapshot),
    )


def _not_ready_seconds(snapshot: Snapshot) -> float:
    """Return after how many seconds a tenant that is not Ready is reconciled again."""
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


def _is_in_motion(observation: Observation, context: Context) -> bool:
    """Return whether something may change without any event: unlike specs, Secrets, pods and the gateway's models."""
    probe = observation.gateway.probe
    return (
        bool(observation.apply_error or observation.service_error)
        # A store that is down for all enqueues every tenant when it is back.
        or any(not context.health.error(store) for store in observation.stores.errors)
        or probe is None
        or probe.generation != observation.policy_generation
        # The watches report pods that come into service.
        or any(pod.in_service and not _serves(pod, observation) for pod in observation.pods)
    )


def _serves(pod: PodReadiness, observation: Observation) -> bool:
    return pod.ready and pod.generation == observation.config_generation
