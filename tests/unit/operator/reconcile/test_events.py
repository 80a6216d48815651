"""Every transition of a resource is told by an Event, and never without end."""

import pytest
from operator_objects import assistant

from assistant_operator.errors import ClusterError
from assistant_operator.reconcile import events
from assistant_operator.reconcile.context import Memory


class World:
    """An API server that takes Events."""

    def __init__(self, refusal=None):
        self.events = []
        self.memory = Memory()
        self.cluster = self
        self.now = 0.0
        self.refusal = refusal

    def monotonic(self):
        return self.now

    async def create(self, event):
        if self.refusal:
            raise self.refusal
        self.events.append(event)
        return event

    async def become(self, before, *after):
        raw = assistant() | {"status": {"conditions": [condition(*before)] if before else []}}
        await events.record_transitions(raw, {"conditions": [condition(*after)]}, self)
        return [(event["type"], event["reason"]) for event in self.events]


def condition(status, reason, kind="Ready"):
    return {"type": kind, "status": status, "reason": reason, "message": f"{reason}."}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, ("False", "Waiting"), [("Normal", "Waiting")]),
        (None, ("False", "PriceUnknown"), [("Warning", "PriceUnknown")]),
        (("False", "Waiting"), ("True", "Ready"), [("Normal", "Ready")]),
        (("True", "Ready"), ("False", "NotAnswering"), [("Warning", "NotAnswering")]),
        (("False", "NotAnswering"), ("False", "StoreUnreachable"), [("Warning", "StoreUnreachable")]),
        (("True", "Ready"), ("True", "Ready"), []),
        (None, ("False", "DuplicateFallback", "FallbacksUsable"), [("Warning", "DuplicateFallback")]),
        (None, ("True", "Reachable", "FallbacksUsable"), []),
        (None, ("False", "InvalidSpec", "Accepted"), []),
    ],
)
async def test_transitions_are_told(before, after, told):
    """Also the first state of a new resource; what stands already is not told again."""
    assert await World().become(before, *after) == told


async def test_a_resource_that_changes_over_and_over_is_told_of_now_and_then():
    """Its Events are bounded, and those of its neighbours are not held back."""
    world = World()
    for _ in range(3 * events.EVENT_BURST):
        await world.become(("True", "Ready"), "False", "NotAnswering")
    assert len(world.events) == events.EVENT_BURST
    world.now = events.EVENT_SECONDS
    await world.become(("True", "Ready"), "False", "NotAnswering")
    assert len(world.events) == events.EVENT_BURST + 1
    assert len({event["metadata"]["name"] for event in world.events}) > 1


@pytest.mark.parametrize("code", [403, 422, 500])
async def test_a_refused_event_ends_no_run(code):
    """A namespace may have a quota of Events, or be on its way out."""
    assert await World(ClusterError(code, "Event/x", "no")).become(None, "True", "Ready") == []
