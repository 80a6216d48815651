"""The arithmetic of tools/bench/gateway: what it reports follows from what it saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "tools" / "bench" / "gateway"
sys.path.append(str(BENCH))

import figures  # noqa: E402
from figures import Fidelity, Spread  # noqa: E402


def event(*words: str) -> str:
    """One event's data with these words as its text."""
    return json.dumps({"choices": [{"index": 0, "delta": {"content": " ".join(words)}, "finish_reason": None}]})


def numbered(*sequence: int) -> list[str]:
    """Events with one number each, as the mock sends them."""
    return [event(f"w{number:07d} 1700000000000000000") for number in sequence]


@pytest.mark.parametrize(("share", "found"), [(0.01, 1), (0.5, 5), (0.51, 6), (0.9, 9), (0.99, 10), (1, 10)])
def test_percentile_is_the_nearest_rank(share: float, found: int) -> None:
    """A percentile is one of the values: the smallest that enough of them do not exceed, in whatever order."""
    assert figures.percentile([10, 3, 8, 1, 9, 2, 7, 4, 6, 5], share) == found


def test_percentile_of_nothing_is_an_error() -> None:
    """No values, or a share that is none, is never reported as a number."""
    with pytest.raises(ValueError, match="no values"):
        figures.percentile([], 0.5)
    with pytest.raises(ValueError, match="share"):
        figures.percentile([1.0], 0)


def test_ratios_compare_within_a_round() -> None:
    """A round that was slow for everybody does not change the ratio, so it is made before the median is taken."""
    assert figures.ratios([20, 400, 30], [2, 20, 2]) == Spread(10, 15, 20)


def test_ratios_to_nothing_are_an_error() -> None:
    """A figure below the clock's resolution gives no infinite advantage, nor do rounds that are missing."""
    with pytest.raises(ValueError, match="too short"):
        figures.ratios([1, 2], [1, 0])
    with pytest.raises(ValueError, match="2 rounds against 1"):
        figures.ratios([1, 2], [1])


def test_cost_of_each() -> None:
    """Seconds over a count are microseconds each; a count of nothing has no cost."""
    assert figures.per(0.5, 1000) == 500
    with pytest.raises(ValueError, match="nothing"):
        figures.per(1.0, 0)


def test_numbers_are_read_from_text_only() -> None:
    """Numbers come from the text of choices; usage, the end, and what is not JSON have none."""
    assert figures.numbers(event("w0000012 17000", "w0000013 17000")) == [12, 13]
    for other in ('{"choices": [], "usage": {"prompt_tokens": 1}}', "[DONE]", "{", "[]", event("w12 xw0000001x")):
        assert figures.numbers(other) == []
    assert figures.numbers('{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}') == []


def test_a_whole_stream_is_whole() -> None:
    """Each number once, alone and in its place: nothing to tell."""
    found = figures.fidelity([*numbered(*range(5)), "[DONE]"], 5)
    assert found == Fidelity(5)
    assert found.whole


@pytest.mark.parametrize(
    ("events", "found"),
    [
        (numbered(0, 1, 3), Fidelity(4, lost=1)),
        (numbered(0, 1, 2), Fidelity(4, lost=1)),
        ([*numbered(0), event("w0000001 1", "w0000002 1"), *numbered(3)], Fidelity(4, merged=1)),
        (numbered(0, 2, 1, 3), Fidelity(4, reordered=1)),
        (numbered(0, 1, 1, 2, 3), Fidelity(4, repeated=1)),
        ([], Fidelity(4, lost=4)),
    ],
)
def test_what_became_of_events_is_told(events: list[str], found: Fidelity) -> None:
    """A number that is missing, shares its event, comes late or comes twice is counted as that and nothing else."""
    assert figures.fidelity(events, 4) == found
    assert not found.whole


def test_a_stream_that_is_absent_is_lost() -> None:
    """Streams are judged one by one, and one of which nothing came counts with all its events."""
    dump = "\n".join([*numbered(0, 1, 2), "", *numbered(0, 2), ""])
    assert figures.fidelity_of_dump(dump, 3, 3) == Fidelity(9, lost=4)


def test_a_table_goes_between_its_markers() -> None:
    """Writing twice gives the same text, and what is around the markers stays."""
    text = "before\n<!-- a -->\nold\n<!-- b -->\nafter\n"
    once = figures.between(text, "<!-- a -->", "<!-- b -->", "new\n")
    assert once == "before\n<!-- a -->\nnew\n<!-- b -->\nafter\n"
    assert figures.between(once, "<!-- a -->", "<!-- b -->", "new") == once


@pytest.mark.parametrize("text", ["no markers", "<!-- b -->\n<!-- a -->", "<!-- a -->\n<!-- a -->\n<!-- b -->"])
def test_a_table_without_its_markers_is_an_error(text: str) -> None:
    """A file that is not what it should be is left alone."""
    with pytest.raises(ValueError, match="markers"):
        figures.between(text, "<!-- a -->", "<!-- b -->", "new")


def test_the_readme_has_the_markers() -> None:
    """The benchmark's command finds the place for its table."""
    report = (BENCH / "report.py").read_text()
    markers = [line.split('"')[1] for line in report.splitlines() if line.startswith(("BEGIN = ", "END = "))]
    assert len(markers) == 2
    figures.between((BENCH.parent / "README.md").read_text(), *markers, "")
