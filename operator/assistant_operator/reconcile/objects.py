"""Write one object of ours where it differs: never over an object of others, and whole where others changed it."""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from assistant_crds.conditions import Reason
from assistant_observability import logs
from assistant_operator.desired.compare import Difference, changed_by_others, differences, is_ours
from assistant_operator.errors import ClusterError, ClusterUnreachableError, NotLeaderError
from assistant_operator.reconcile import events
from assistant_operator.reconcile.context import Context, timestamp
from assistant_operator.tenant.snapshot import Json, Snapshot, name_of

CONFLICT = 409
# So many differences are named; the others are counted.
NAMED = 5
# So many tracebacks are logged in the life of a process, each once.
SHOWN = 1000
_log = logs.logger(__name__)
T = TypeVar("T")


@dataclass
class Problems:
    """What went wrong in the steps of one run, for people; none of it holds up the other steps."""

    namespace: str
    shown: set[tuple[str, str, str]] = field(default_factory=set)  # tracebacks that the log has already
    messages: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    @property
    def reason(self) -> Reason:
        """The reason of the condition."""
        return Reason.NAME_TAKEN if self.taken else Reason.APPLY_FAILED

    @property
    def text(self) -> str:
        """Everything that went wrong; empty when nothing did."""
        return " ".join(dict.fromkeys([*self.taken, *self.messages]))

    def refused(self, subject: str, error: ClusterError) -> None:
        """Note that the API server refused a write."""
        self.note(f"{subject} was refused: {error.message}")

    def note(self, message: str) -> None:
        """Note what went wrong."""
        if message not in self.messages:
            _log.warning("a step failed", namespace=self.namespace, error=message)
            self.messages.append(message)

    async def step(self, name: str, work: Coroutine[Any, Any, T], otherwise: T) -> T:
        """Return what the work returns, or `otherwise` when it fails in whatever way, which is noted.

        Raises:
            ClusterUnreachableError, NotLeaderError: nothing else can be done, or said, either.
        """
        try:
            return await work
        except (ClusterUnreachableError, NotLeaderError):
            raise
        except ClusterError as error:
            self.note(f"{name} failed: {error}")
        except Exception as error:  # noqa: BLE001 - it is reported, and the other steps go on
            self.unexpected(name, error)
        return otherwise

    def unexpected(self, name: str, error: Exception) -> None:
        """Note an unexpected error; its message may repeat a secret, so that it goes into no status."""
        kind = type(error).__name__
        if (self.namespace, name, kind) not in self.shown and len(self.shown) < SHOWN:
            self.shown.add((self.namespace, name, kind))
            _log.error("a step failed unexpectedly", namespace=self.namespace, step=name, exc_info=error)
        self.note(f"{name} failed: {kind}. The platform team finds more in the operator's log.")


async def put(obj: Json, snapshot: Snapshot, context: Context, problems: Problems) -> tuple[Snapshot, bool]:
    """Make the object of the tenant's namespace be as wanted; return the snapshot then, and whether it was written.

    What the API server refuses, and what others hold the name of, is noted in `problems`.

    Raises:
        ClusterUnreachableError: the API server does not answer.
    """
    key = obj["kind"], name_of(obj)
    live = snapshot.owned.get(key)
    try:
        if live is None:
            made = await _create(obj, snapshot, context)
            if made is None:
                problems.taken.append(
                    f"{key[0]} {key[1]} exists in namespace {snapshot.namespace} and is not the operator's, which "
                    "needs the name. Rename or delete it; the operator leaves it as it is."
                )
                return snapshot, False
            return snapshot.with_owned(*key, made), True
        found = _unexpected(obj, live, context)
        if not found:
            return snapshot, False
        snapshot = snapshot.with_owned(*key, await _restore(obj, live, found, context))
    except ClusterError as error:
        if error.code == CONFLICT and live is not None:  # it changed meanwhile: looked at again by the next run
            return snapshot, True
        problems.refused(f"{key[0]} {key[1]}", error)
        return snapshot, False
    if changed_by_others(obj, live, found):
        await _record_restored(obj, live, found, context, problems)
    return snapshot, True


async def _create(obj: Json, snapshot: Snapshot, context: Context) -> Json | None:
    """Create the object; return None when an object of others has its name."""
    kind, name = obj["kind"], name_of(obj)
    if (kind, name) in snapshot.taken:
        return None
    there = await context.cluster.get(kind, name, snapshot.namespace)
    if there is not None and not is_ours(there):
        return None
    try:
        # Not by force: should somebody have made one this very moment, its fields are theirs.
        return await context.cluster.apply(obj, force=there is not None)
    except ClusterError as error:
        if error.code == CONFLICT:
            return None
        raise


async def _restore(obj: Json, live: Json, found: list[Difference], context: Context) -> Json:
    """Make a live object be as wanted, what was added to it included; return it as it is then."""
    kind, name = obj["kind"], name_of(obj)
    if any(difference.added for difference in found):
        # Server-side apply leaves alone what another manager added, so it is taken out by name.
        try:
            live = await context.cluster.patch(kind, live, [difference.operation for difference in found])
        except ClusterError as error:
            if error.code == CONFLICT:
                raise
            # What was added may be needed by what was changed: then that has to be put right first.
            live = await context.cluster.apply(obj)
            added = [difference.operation for difference in differences(obj, live) if difference.added]
            live = await context.cluster.patch(kind, live, added) if added else live
    if _unexpected(obj, live, context):
        live = await context.cluster.apply(obj)
    left = {difference.path for difference in differences(obj, live)}
    if left and left >= {difference.path for difference in found}:
        # The API server, or a webhook of the cluster, puts it there each time: writing again would never end.
        context.memory.kept[obj["metadata"]["namespace"], kind, name] = (live["metadata"]["uid"], frozenset(left))
        _log.warning("fields that the cluster itself adds are left alone", kind=kind, name=name, fields=sorted(left))
    return live


def _unexpected(obj: Json, live: Json, context: Context) -> list[Difference]:
    """Return the differences, without those that an earlier attempt showed to come from the cluster itself."""
    found = differences(obj, live)
    uid, kept = context.memory.kept.get((obj["metadata"]["namespace"], obj["kind"], name_of(obj)), ("", frozenset()))
    return found if uid != live["metadata"]["uid"] else [one for one in found if one.path not in kept]


async def _record_restored(
    obj: Json, live: Json, found: list[Difference], context: Context, problems: Problems
) -> None:
    """Say on the object what was changed and restored; only names of fields, as values may be secret."""
    named = ", ".join(str(difference)[:200] for difference in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    message = f"{obj['kind']} {name_of(obj)} was changed and has been restored: {named}{more}."
    _log.info("restored", kind=obj["kind"], name=name_of(obj), fields=[difference.path for difference in found[:NAMED]])
    # Derived from the version that was found: a further change gets another Event.
    what = f"{live['metadata']['uid']} {live['metadata'].get('resourceVersion')} {message}"
    event = events.build(
        {**live, "apiVersion": obj["apiVersion"], "kind": obj["kind"]},
        hashlib.sha256(what.encode()).hexdigest()[:16],
        "Warning",
        "Restored",
        message,
        timestamp(),
    )
    try:
        await events.create(event, context)
    except ClusterError as error:
        problems.note(f"Event on {obj['kind']} {name_of(obj)} was refused: {error.message}")
