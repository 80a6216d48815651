"""The limits in a real Redis against their plain Python reference, through random operations and clock jumps.

`QUOTA_MODEL_OPERATIONS` sets how many operations to try; the default suits every run, `TEST_LONG=1` makes it 100,000.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

import hypothesis
import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from quota_reference import REAPED, Reference, inside, script_with_a_clock

from assistant_gateway.limits.limit_scope import Limits, LimitScope
from assistant_gateway.limits.quota import Totals, command, counters, reserved, settled
from assistant_gateway.limits.windows import Windows

FULL = os.environ.get("TEST_LONG") == "1"
OPERATIONS = int(os.environ.get("QUOTA_MODEL_OPERATIONS", "100000" if FULL else "6000"))
STEPS = 100
SHRINK = os.environ.get("QUOTA_MODEL_SHRINK", "1") == "1"
PHASES = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if SHRINK else [])]
SECOND = 1_000_000
DAY = 86_400 * SECOND
ZONES = ("UTC", "Europe/Berlin", "America/Havana", "Asia/Kathmandu", "Pacific/Apia")
ASSISTANTS = ("support", "sales")
REQUESTS = st.integers(0, 40).map("r{}".format)

tokens_of = st.integers(0, 120)
costs = st.integers(0, 3000)
holds = st.integers(1, 7200).map(lambda seconds: seconds * SECOND)
limit = st.one_of(st.none(), st.integers(0, 1000))
levels = st.builds(
    dict,
    requests_per_minute=st.one_of(st.none(), st.integers(1, 200)),
    tokens=limit,
    budget=st.one_of(st.none(), st.integers(0, 20_000)),
    period=st.sampled_from(["Day", "Month"]),
)


class Machine(RuleBasedStateMachine):
    """One tenant with two assistants."""

    client: ClassVar[redis.Redis]
    sha: ClassVar[str]
    operations: ClassVar[int] = 0
    outcomes: ClassVar[dict[str, int]] = {}
    serial: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).serial += 1
        self.tenant = f"t_model{self.serial}"
        self.zone = "UTC"
        self.now = 1_700_000_000 * SECOND
        self.reference = Reference()
        self.level_fields: dict[str, dict[str, Any]] = {name: {} for name in ("", *ASSISTANTS)}
        self.epochs = 0
        self.crowds = 0
        self.plain = True  # neither time zone nor counters were changed, and time only went forward

    def limits(self, assistant: str) -> Limits:
        chosen = [LimitScope("tenant", **self.level_fields[""])]
        if assistant:
            chosen.append(LimitScope("assistant", assistant, **self.level_fields[assistant]))
        return Limits.of(self.tenant, self.zone, chosen)

    def ask(self, operation: str, assistant: str, skew: int, request: str, rest: tuple[Any, ...]) -> Any:
        """Ask the script as the client does, with a caller's clock that is off; return limits, windows and answer."""
        type(self).operations += 1
        limits = self.limits(assistant)
        for clock in (self.now + skew, self.now):
            windows = Windows.at(limits.zone, clock)
            with self.client.pipeline(transaction=False) as pipeline:
                pipeline.set(f"{limits.keys[1]}:clock", self.now)
                scopes = {"reserve": limits.arguments, "usage": (), "restore": (), "recall": ()}.get(
                    operation, limits.fields
                )
                pipeline.execute_command(
                    "EVALSHA", self.sha, *command(limits, operation, windows, request, (*rest, *scopes))
                )
                answer = pipeline.execute()[1]
            assert (answer[0] != 2) == inside(windows, self.now)
            if answer[0] != 2:
                break
        kind = f"{operation} {answer[0]}"
        self.outcomes[kind] = self.outcomes.get(kind, 0) + 1
        return limits, windows, answer

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for name in self.level_fields:
            self.level_fields[name] = data.draw(levels)
        self.restore(())

    @rule(microseconds=st.one_of(st.integers(0, 3 * SECOND), st.integers(0, 7200 * SECOND)))
    def time_passes(self, microseconds: int) -> None:
        self.now += microseconds

    @rule(days=st.integers(1, 200), seconds=st.integers(0, 86_400))
    def months_pass(self, days: int, seconds: int) -> None:
        self.now += days * DAY + seconds * SECOND

    @rule(microseconds=st.sampled_from((-2 * SECOND, -1, 0, 0, 1, 2 * SECOND)), month=st.booleans())
    def midnight_nears(self, microseconds: int, month: bool) -> None:
        windows = Windows.at(self.limits("").zone, self.now)
        self.now = max(self.now, (windows.month if month else windows.day)[1] + microseconds)

    @precondition(lambda self: self.reference.deadlines)
    @rule(data=st.data(), microseconds=st.sampled_from((-1, 0, 1)))
    def deadline_nears(self, data: st.DataObject, microseconds: int) -> None:
        self.now = max(self.now, data.draw(st.sampled_from(sorted(self.reference.deadlines.values()))) + microseconds)

    @rule(back=st.one_of(st.integers(0, 2 * SECOND), st.integers(0, 3 * 3600 * SECOND), st.integers(0, 100 * DAY)))
    def clock_is_set_back(self, back: int) -> None:
        self.now -= back
        self.plain = False

    @rule(zone=st.sampled_from(ZONES))
    def tenant_moves(self, zone: str) -> None:
        self.plain = self.plain and zone == self.zone
        self.zone = zone

    @rule(name=st.sampled_from(("", *ASSISTANTS)), fields=levels)
    def limits_change(self, name: str, fields: dict[str, Any]) -> None:
        self.level_fields[name] = fields

    @rule(
        assistant=st.sampled_from(("", *ASSISTANTS)),
        call=st.tuples(REQUESTS, holds, tokens_of, costs),
        skew=st.sampled_from((0, 0, 0, -DAY, DAY, 40 * DAY)),
        known=st.sampled_from((0, 0, 0, 0, 0, 0, 0, -1, 1)),
        witness=st.one_of(st.just(""), st.just(""), st.just(""), REQUESTS),
    )
    def reserve(
        self, assistant: str, call: tuple[str, int, int, int], skew: int, known: int, witness: str = ""
    ) -> None:
        tenant = self.reference.scopes.get("tenant")
        caller = (self.reference.epoch, max(0, (tenant.entries if tenant else 0) + known), witness)
        rest = (*caller, *call[1:])
        limits, windows, answer = self.ask("reserve", assistant, skew, call[0], rest)
        assert answer == self.reference.reserve(self.now, windows, limits, caller, call)
        if answer[0] != 3:
            reserved(limits, answer)

    @precondition(lambda self: self.crowds < 2)
    @rule(count=st.integers(REAPED + 1, 2 * REAPED + 2), assistant=st.sampled_from(ASSISTANTS))
    def many_calls_begin(self, count: int, assistant: str) -> None:
        self.crowds += 1
        for index in range(count):
            self.reserve(assistant, (f"m{index}", 30 * SECOND, 1, 1), 0, 0)

    @rule(
        assistant=st.sampled_from(("", *ASSISTANTS)),
        call=st.tuples(REQUESTS, tokens_of, costs),
        skew=st.sampled_from((0, 0, 0, -DAY, DAY)),
        entry=st.sampled_from((b"", b"entry")),
    )
    def settle(self, assistant: str, call: tuple[str, int, int], skew: int, entry: bytes) -> None:
        limits, windows, answer = self.ask("settle", assistant, skew, call[0], (*call[1:], entry))
        assert answer == self.reference.settle(self.now, windows, limits, call, entry)
        settled(answer)

    @precondition(lambda self: self.reference.holds)
    @rule(data=st.data(), part=st.integers(0, 100))
    def settle_a_call_under_way(self, data: st.DataObject, part: int) -> None:
        request = data.draw(st.sampled_from(sorted(self.reference.holds)))
        hold = self.reference.holds[request]
        assistant = hold.scopes[-1].partition(":")[2]
        self.settle(assistant, (request, hold.tokens * part // 100, hold.cost * part // 100), 0, b"used")

    @rule(assistant=st.sampled_from(("", *ASSISTANTS)), call=st.tuples(REQUESTS, holds, tokens_of, costs))
    def renew(self, assistant: str, call: tuple[str, int, int, int]) -> None:
        limits, windows, answer = self.ask("renew", assistant, 0, call[0], call[1:])
        assert answer == self.reference.renew(self.now, windows, limits, call)

    @precondition(lambda self: self.reference.holds)
    @rule(data=st.data(), ttl=holds)
    def renew_a_call_under_way(self, data: st.DataObject, ttl: int) -> None:
        request = data.draw(st.sampled_from(sorted(self.reference.holds)))
        hold = self.reference.holds[request]
        self.renew(hold.scopes[-1].partition(":")[2], (request, ttl, hold.tokens, hold.cost))
        assert self.client.zscore(f"quota:{{{self.tenant}}}:deadlines", request) == self.reference.deadlines[request]

    @rule()
    def usage(self) -> None:
        _, windows, answer = self.ask("usage", "", 0, "", ())
        expected = self.reference.usage(self.now, windows)
        assert {answer[i].decode(): answer[i + 1 : i + 14] for i in range(3, len(answer), 14)} == expected
        assert counters(answer).keys() == expected.keys()
        stream = self.client.xrange(f"quota:{{{self.tenant}}}:ledger")
        assert [(int(fields[b"at"]), fields[b"entry"]) for _, fields in stream] == self.reference.ledger
        if self.plain:
            self.windows_hold_their_charges()

    def windows_hold_their_charges(self) -> None:
        """With a clock that only goes forward, a window holds exactly the charges between its two instants."""
        for name, scope in self.reference.scopes.items():
            for window in (scope.day, scope.month):
                charges = [
                    charge
                    for charge in self.reference.charges
                    if charge[1] == name and window.start <= charge[0] < window.end
                ]
                assert window.tokens == sum(tokens for _, _, tokens, _ in charges)
                assert window.cost == sum(cost for _, _, _, cost in charges)

    @precondition(lambda self: self.reference.done)
    @rule(
        data=st.data(),
        assistant=st.sampled_from(("", *ASSISTANTS)),
        which=st.sampled_from(("reserve", "settle", "renew")),
    )
    def ask_again_about_a_settled_call(self, data: st.DataObject, assistant: str, which: str) -> None:
        request = data.draw(st.sampled_from(sorted(self.reference.done)))
        if which == "reserve":
            self.reserve(assistant, (request, 60 * SECOND, 1, 1), 0, 0)
        elif which == "settle":
            self.settle(assistant, (request, 99, 99), 0, b"again")
        else:
            self.renew(assistant, (request, 60 * SECOND, 1, 1))

    @rule(calls=st.lists(st.tuples(REQUESTS, tokens_of, costs), max_size=5))
    def ledger_is_recalled(self, calls: list[tuple[str, int, int]]) -> None:
        _, windows, answer = self.ask("recall", "", 0, "", tuple(value for call in calls for value in call))
        assert answer == self.reference.recall(self.now, windows, calls)

    @precondition(lambda self: not self.reference.epoch)
    @rule()
    def counters_are_restored(self) -> None:
        self.restore([Totals("tenant", 5, 500, 10, 1000, 1, 10, 1000)])

    @rule(really=st.sampled_from((False, False, True)))
    def counters_are_lost(self, really: bool) -> None:
        if really:
            self.ask("invalidate", "", 0, "", ())
            self.reference.epoch = 0

    @rule(
        totals=st.lists(
            st.builds(
                Totals,
                st.sampled_from(("tenant", "assistant:support", "assistant:sales")),
                *(st.integers(0, 2000) for _ in range(7)),
            ),
            max_size=3,
            unique_by=lambda total: total.field,
        )
    )
    def restore(self, totals: Any) -> None:
        self.epochs += 1
        numbers = [
            value
            for total in totals
            for value in (total.field, *(getattr(total, name) for name in total.__struct_fields__[1:]))
        ]
        before = self.reference.epoch
        last = self.client.xrevrange(f"quota:{{{self.tenant}}}:ledger", count=1)
        drained = last[0][0].decode() if last else "0-0"
        _, windows, answer = self.ask("restore", "", 0, str(self.epochs), (drained, *numbers))
        assert answer == self.reference.restore(self.now, windows, self.epochs, totals)
        if not before and (totals or self.reference.charges):
            self.plain = False  # the counters are the totals' now, no longer the sum of the charges

    def teardown(self) -> None:
        self.usage()
        prefix = f"quota:{{{self.tenant}}}:"
        self.client.delete(*(prefix + name for name in ("state", "state:clock", "requests", "deadlines", "ledger")))


@pytest.mark.timeout(120 + OPERATIONS / 20)
def test_redis_and_the_reference_always_agree(redis_store, record_property: Callable[[str, object], None]) -> None:
    """Reserve, settle, renew, restore and usage answer as the plain reference does, whatever the clock does."""
    with redis.Redis.from_url(redis_store.gateway_url, protocol=2, driver_info=None) as client:
        Machine.client = client
        Machine.sha = client.script_load(script_with_a_clock())
        Machine.operations, Machine.outcomes = 0, {}
        profile = hypothesis.settings(
            max_examples=max(10, min(500, OPERATIONS // 200)),
            phases=PHASES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        while Machine.operations < OPERATIONS:
            run_state_machine_as_test(Machine, settings=profile)
    record_property("operations", Machine.operations)
    print(f"{Machine.operations} operations: {sorted(Machine.outcomes.items())}")
    expected = ("reserve 0", "reserve 1", "reserve 3", "reserve 4", "settle 1", "renew 1", "renew 4", "restore 1")
    assert all(Machine.outcomes.get(outcome) for outcome in expected)
