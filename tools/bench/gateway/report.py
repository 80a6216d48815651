"""From figures to words: what has to hold, whether it does, and the table for tools/bench/README.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from figures import Fidelity, Spread, ratios
from measure import Round

OURS = ("gateway", "chain")
PEER = "litellm"
BASE = "direct"
FLOORS = frozenset({"nginx", "envoy"})  # they pass bytes on and do nothing else
OF_PORTKEY = 0.8
BEGIN = "<!-- tools/bench/gateway: begin -->"
END = "<!-- tools/bench/gateway: end -->"

Rounds = Mapping[str, Sequence[Round]]


@dataclass(frozen=True)
class Verdict:
    """One requirement and what was found."""

    text: str
    found: str
    holds: bool

    def __str__(self) -> str:
        return f"{'pass' if self.holds else 'FAIL'}  {self.text}: {self.found}"


def column(rounds: Rounds, name: str, figure: str) -> list[float]:
    """One figure of one subject, round by round."""
    return [float(getattr(seen, figure)) for seen in rounds[name]]


def added(rounds: Rounds, name: str, figure: str = "p50") -> list[float]:
    """How much later than without a proxy, round by round; never less than a microsecond."""
    pairs = zip(column(rounds, name, figure), column(rounds, BASE, figure), strict=True)
    return [max(1.0, through - straight) for through, straight in pairs]


def fewer(rounds: Rounds, name: str, figure: str) -> Spread:
    """How many times LiteLLM Proxy's figure is a subject's."""
    return ratios(column(rounds, PEER, figure), column(rounds, name, figure))


def _later(rounds: Rounds, name: str) -> Spread:
    """How many times LiteLLM Proxy's added p50 is a subject's."""
    return ratios(added(rounds, PEER), added(rounds, name))


def written(spread: Spread, digits: int = 1, unit: str = "") -> str:
    """A spread as text: the median, and the smallest and largest of the rounds."""
    low, middle, high = (f"{value:,.{digits}f}" for value in (spread.low, spread.middle, spread.high))
    return f"{middle}{unit} ({low} to {high})"


def at_least(text: str, ratio: Callable[[], Spread], bound: float) -> Verdict:
    """The median reaches the bound; a ratio that cannot be made does not."""
    try:
        spread = ratio()
    except ValueError as error:
        return Verdict(f"{text} at least {bound:g} times", str(error), holds=False)
    return Verdict(f"{text} at least {bound:g} times", f"{written(spread)} times", spread.middle >= bound)


def whole_fidelity(rounds: Rounds, name: str) -> Fidelity:
    """What became of all events of a subject."""
    total = Fidelity(0)
    for seen in rounds[name]:
        total += seen.fidelity
    return total


def against_peer(rounds: Rounds) -> list[Verdict]:
    """What is promised as ratios to LiteLLM Proxy in the same run."""
    bounds = {"gateway": (20, 15), "chain": (10, 10)}
    found = [
        at_least(f"{name}: CPU per {what} fewer than LiteLLM Proxy's,", partial(fewer, rounds, name, figure), bound)
        for what, figure, place in (
            ("request", "cpu_request", 0),
            ("streamed event of two streams", "cpu_event", 1),
            ("streamed event of as many streams as a core carries", "cpu_event_busy", 1),
        )
        for name, bound in ((name, bounds[name][place]) for name in OURS)
    ]
    later = at_least("chain: added p50 less than LiteLLM Proxy's,", partial(_later, rounds, "chain"), 6)
    return [*found, later]


def against_portkey(rounds: Rounds) -> Verdict:
    """What is promised beside Portkey's gateway, which has no limits, ledger or identities of its own."""
    text = f"gateway: at most {OF_PORTKEY:g} times Portkey's CPU per request"
    try:
        spread = ratios(column(rounds, "gateway", "cpu_request"), column(rounds, "portkey", "cpu_request"))
    except ValueError as error:
        return Verdict(text, str(error), holds=False)
    return Verdict(text, f"{written(spread, 2)} times", spread.middle <= OF_PORTKEY)


def of_ourselves(rounds: Rounds, starts: Mapping[str, Sequence[float]], *, litellm_loaded: bool) -> list[Verdict]:
    """What is promised of the gateway and the chain alone."""
    found = []
    for name in OURS:
        judged = whole_fidelity(rounds, name)
        what = f"{judged.lost} lost, {judged.merged} merged, {judged.reordered} reordered of {judged.expected:,}"
        found.append(Verdict(f"{name}: no event lost, merged, reordered or repeated", what, judged.whole))
    memory = Spread.of(column(rounds, "gateway", "memory"))
    text = "gateway: resident at most 100 MiB without LiteLLM loaded"
    found.append(Verdict(text, written(memory, 0, " MiB"), memory.high <= 100 and not litellm_loaded))
    for name in OURS:
        ready = Spread.of(starts[name])
        found.append(Verdict(f"{name}: ready in at most 1.5 s", written(ready, 2, " s"), ready.middle <= 1.5))
    return found


def of_the_mock(rounds: Rounds) -> list[Verdict]:
    """Whether the provider is fast enough to be left out of account. Floors are too near to nothing for that.

    A paced event is one write and one wake-up for the mock, too: nobody can do that ten times cheaper, so only
    requests are judged, and the mock's own figure stands in the table.
    """
    return [
        at_least(
            f"mock: less CPU per request than {name},",
            partial(ratios, column(rounds, name, "cpu_request"), column(rounds, BASE, "cpu_request")),
            10,
        )
        for name in rounds
        if name not in {BASE, *FLOORS}
    ]


Cell = Callable[[Rounds, str], str]


def _plain(figure: str, digits: int = 0) -> Cell:
    return lambda rounds, name: written(Spread.of(column(rounds, name, figure)), digits)


def _added(figure: str) -> Cell:
    def cell(rounds: Rounds, name: str) -> str:
        return "-" if name == BASE else written(Spread.of(added(rounds, name, figure)), 0)

    return cell


def _times(values: Callable[[Rounds, str], Spread]) -> Cell:
    def cell(rounds: Rounds, name: str) -> str:
        if name == BASE or PEER not in rounds:
            return "-"
        try:
            return written(values(rounds, name))
        except ValueError:  # nothing was counted: shown, and no reason to lose the other figures
            return "not measurable"

    return cell


def _more(figure: str) -> Callable[[Rounds, str], Spread]:
    return lambda rounds, name: ratios(column(rounds, name, figure), column(rounds, PEER, figure))


def _redis(rounds: Rounds, name: str) -> str:
    return written(Spread.of(column(rounds, name, "redis_request")), 0) if name in OURS else "-"


def _fidelity(rounds: Rounds, name: str) -> str:
    found = whole_fidelity(rounds, name)
    return f"{found.lost} / {found.merged} / {found.reordered} of {found.expected:,}"


ROWS: tuple[tuple[str, Cell], ...] = (
    ("CPU per request, µs", _plain("cpu_request")),
    ("… times that LiteLLM Proxy's is as much", _times(lambda rounds, name: fewer(rounds, name, "cpu_request"))),
    ("CPU per streamed event (2 ms apart), µs", _plain("cpu_event", 1)),
    ("… times that LiteLLM Proxy's is as much", _times(lambda rounds, name: fewer(rounds, name, "cpu_event"))),
    ("added p50, one caller, µs", _added("p50")),
    ("… times that LiteLLM Proxy's is as much", _times(_later)),
    ("added p99, one caller, µs", _added("p99")),
    ("requests/s on one core, 32 callers", _plain("per_second")),
    ("… times LiteLLM Proxy's", _times(_more("per_second"))),
    ("added p50 of a streamed event, µs", _added("event_p50")),
    ("streams on one core, an event each 2 ms", _plain("streams")),
    ("… CPU per event with so many streams, µs", _plain("cpu_event_busy", 1)),
    ("… times that LiteLLM Proxy's is as much", _times(lambda rounds, name: fewer(rounds, name, "cpu_event_busy"))),
    ("… events per read with so many", _plain("read_busy", 2)),
    ("events/s of streams without a pace", _plain("flood_per_second")),
    ("events per read of the client, paced", _plain("events_per_read", 2)),
    ("lost / merged / reordered events", _fidelity),
    ("Redis' CPU per request beside it, µs", _redis),
    ("resident memory after the load, MiB", _plain("memory")),
)


def table(rounds: Rounds, starts: Mapping[str, Sequence[float]], missing: Mapping[str, str]) -> str:
    """The figures as a Markdown table, one column per subject; a subject that could not run says why."""
    names = [*rounds, *missing]
    lines = [["", *names], ["---", *("---:" for _ in names)]]
    for title, cell in ROWS:
        lines.append([title, *(cell(rounds, name) for name in rounds), *("unsupported" for _ in missing)])
    ready = [written(Spread.of(starts[name]), 2) for name in rounds]
    lines.append(["start to ready, s", *ready, *("unsupported" for _ in missing)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
