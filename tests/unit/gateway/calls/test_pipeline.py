"""The steps of a crowd of calls have their turn: none of them is taken by all in one round of the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

from assistant_crds.gateway_api import Operation, Purpose
from assistant_gateway.calls.pipeline import REQUEST_ID, Ask, Pipeline
from assistant_gateway.calls.relay import Result
from assistant_gateway.calls.request_log import LINE, Line
from assistant_gateway.capacity.fairness import Turns
from assistant_gateway.metering.call import Outcome

AT_ONCE, CALLS = 4, 60


class World:
    """Admits all calls at once, answers all at once, and notes in which round of the event loop which step was."""

    def __init__(self) -> None:
        self.turns, self.steps, self.round = Turns(AT_ONCE), Counter[tuple[str, int]](), 0
        self.admitted, self.answered = asyncio.Event(), asyncio.Event()
        self.forwarder = Pipeline(self, self, self, None)  # type: ignore[arg-type]
        self.counting = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.round += 1

    def note(self, step: str) -> None:
        """Note a step."""
        self.steps[step, self.round] += 1

    def most(self, step: str) -> tuple[int, int]:
        """Return how often a step was taken, and how often in one round at most."""
        counts = [count for (name, _), count in self.steps.items() if name == step]
        return sum(counts), max(counts, default=0)

    async def run(self, _to: Any, attempt: Any) -> Any:
        """Stand for the attempts: make one."""
        to = SimpleNamespace(tenant="one", name="a", provider="p", model="m")
        settings = SimpleNamespace(connect_seconds=1, first_byte_seconds=1)
        permit = SimpleNamespace(answered=lambda: None, refused=lambda _error: None)
        target = SimpleNamespace(settings=settings)
        made = SimpleNamespace(to=to, target=target, permit=permit, deadline=1e12, first=True, headers={})
        return await attempt(made)

    async def admit(self, _terms: Any, call: Any, *_rest: Any, **_more: Any) -> Any:
        """Stand for the meter."""
        await self.admitted.wait()
        return SimpleNamespace(call=call, headers={}, fields={}, embedding=False, sent=False)

    def settle(self, _metered: Any, outcome: Outcome, *, free: bool) -> Any:
        """Note the end of a call."""
        self.note(f"settled, {outcome.value}, {free}")
        return SimpleNamespace(input=1, output=1)

    async def send(self, *_arguments: Any, **_more: Any) -> Any:
        """Stand for the dispatcher."""
        self.note("sent")
        await self.answered.wait()
        return SimpleNamespace(status=200, close=lambda: None)

    async def relay(self, *_arguments: Any) -> Result:
        """Pass an answer on that does not end."""
        self.note("passed on")
        await asyncio.Event().wait()
        raise AssertionError

    def ask(self) -> asyncio.Task[Any]:
        """Make a call."""
        request: Any = {LINE: Line("r"), REQUEST_ID: "r"}
        request = type("Request", (dict,), {"headers": {}})(request)
        fields: Any = lambda _made: {}  # noqa: E731
        terms: Any = None
        turn = partial(self.turns.take, "one")
        ask = Ask(
            operation=Operation.CHAT,
            purpose=Purpose.CHAT,
            terms=terms,
            fields=fields,
            relay=self.relay,
            turn=turn,
        )
        return asyncio.create_task(self.forwarder.answer(request, (), ask))


async def rounds(count: int = 3 * CALLS) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_calls_that_were_admitted_answered_or_left_together_go_on_a_few_at_a_time() -> None:
    """And each of them is settled, whose client has gone."""
    world = World()
    tasks = [world.ask() for _ in range(CALLS)]
    await rounds()
    world.admitted.set()
    await rounds()
    world.answered.set()
    await rounds()
    for task in tasks:
        task.cancel()
    await rounds()
    world.counting.cancel()
    assert await asyncio.gather(*tasks, return_exceptions=True)
    for step in ("sent", "passed on", "settled, client_gone, False"):
        taken, at_once = world.most(step)
        assert (step, taken) == (step, CALLS)
        assert at_once <= AT_ONCE, step
