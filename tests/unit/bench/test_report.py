"""The requirements that tools/bench/gateway checks: each can be met and can be missed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "tools" / "bench" / "gateway"))

import report
from figures import Fidelity
from measure import Round

GOOD = {
    "direct": Round(p50=50, cpu_request=10, cpu_event=5, cpu_event_busy=4, fidelity=Fidelity(10)),
    "gateway": Round(p50=450, cpu_request=200, cpu_event=50, cpu_event_busy=40, memory=90, fidelity=Fidelity(10)),
    "chain": Round(p50=850, cpu_request=400, cpu_event=80, cpu_event_busy=70, memory=190, fidelity=Fidelity(10)),
    "litellm": Round(p50=5850, cpu_request=5000, cpu_event=1000, cpu_event_busy=900, memory=400, fidelity=Fidelity(10)),
}
STARTS = {"gateway": [1.0], "chain": [1.4], "direct": [0.1], "litellm": [9.0]}


def missed(*, loaded: bool = False, ready: float = 1.0, **changed: Round) -> list[str]:
    """What is missed when these rounds are changed."""
    rounds = {name: [changed.get(name, seen)] * 2 for name, seen in GOOD.items()}
    starts = {**STARTS, "gateway": [ready]}
    found = [*report.against_peer(rounds), *report.of_ourselves(rounds, starts, litellm_loaded=loaded)]
    return [verdict.text for verdict in found if not verdict.holds]


def test_what_reaches_everything_misses_nothing() -> None:
    """Figures on the right side of each bound pass."""
    assert missed() == []


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("gateway", {"cpu_request": 260.0}, "gateway: CPU per request"),
        ("chain", {"cpu_request": 510.0}, "chain: CPU per request"),
        ("gateway", {"cpu_event": 70.0}, "gateway: CPU per streamed event of two"),
        ("chain", {"cpu_event": 110.0}, "chain: CPU per streamed event of two"),
        ("gateway", {"cpu_event_busy": 70.0}, "gateway: CPU per streamed event of as many"),
        ("chain", {"cpu_event_busy": 110.0}, "chain: CPU per streamed event of as many"),
        ("chain", {"p50": 1100.0}, "chain: added p50"),
        ("gateway", {"memory": 101.0}, "gateway: resident"),
        ("chain", {"fidelity": Fidelity(10, lost=1)}, "chain: no event lost"),
        ("gateway", {"fidelity": Fidelity(10, merged=1)}, "gateway: no event lost"),
        ("gateway", {"fidelity": Fidelity(10, reordered=1)}, "gateway: no event lost"),
    ],
)
def test_each_bound_can_be_missed(name: str, changes: dict[str, float | Fidelity], text: str) -> None:
    """A figure on the wrong side fails its own requirement and no other."""
    (found,) = missed(**{name: replace(GOOD[name], **changes)})
    assert found.startswith(text)


@pytest.mark.parametrize(("portkey", "holds"), [(250, True), (240, False), (0, False)])
def test_a_peer_without_limits_may_be_missed(portkey: float, holds: bool) -> None:
    """At 200 µs, 250 of Portkey's are enough and 240 are not; a figure that was not taken proves nothing."""
    rounds = {"gateway": [GOOD["gateway"]], "portkey": [Round(cpu_request=portkey)]}
    assert report.against_portkey(rounds).holds is holds


def test_memory_and_start_can_be_missed() -> None:
    """A gateway that has loaded LiteLLM, or starts slowly, fails."""
    assert [text.split(":")[1].split()[0] for text in missed(loaded=True)] == ["resident"]
    assert [text.split(":")[1].split()[0] for text in missed(ready=1.6)] == ["ready"]


def test_the_table_shows_what_is_unsupported() -> None:
    """A subject that could not run has a column that says so; the others have figures."""
    rounds = {name: [seen, seen] for name, seen in GOOD.items()}
    lines = report.table(rounds, STARTS, {"nginx": "not there"}).splitlines()
    assert lines[0] == "|  | direct | gateway | chain | litellm | nginx |"
    assert all(line.endswith("| unsupported |") for line in lines[2:])
    assert "| times that LiteLLM Proxy's is as much | - | 25.0 (25.0 to 25.0) |" in "\n".join(lines).replace("… ", "")
