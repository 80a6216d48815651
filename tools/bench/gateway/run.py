"""Our gateway and our whole chain beside LiteLLM Proxy, Portkey, nginx and Envoy, against one mock, in one run.

    python tools/bench/gateway/run.py [--quick] [--rounds 5] [--write]

The subject of the moment has one core for itself; load generator, mock provider, Redis and Postgres share the other.
Rounds are interleaved: every round asks every subject, each time beginning with another one. Reported are ratios
between figures of one round, as median with smallest and largest. CPU is processor time of the subject's processes:
unlike latencies and rates it hardly depends on what else the machine does. Everything stays on the loopback interface.
Leaves with 1 if a requirement is missed. `--write` puts the table into tools/bench/README.md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "tests" / "integration" / "gateway" / "support"))

import peers  # noqa: E402
import report  # noqa: E402
import subjects  # noqa: E402
import tools  # noqa: E402
from cluster import cluster  # noqa: E402
from figures import between  # noqa: E402
from gateway_world import policy_secret  # noqa: E402
from machine import mapped, pin, temporary_folder  # noqa: E402
from measure import FULL, QUICK, RETRIES, FailedError, Load, Measurer, Round  # noqa: E402
from report import Verdict  # noqa: E402
from subjects import Bench, Subject  # noqa: E402

from assistant_cluster import stores  # noqa: E402
from assistant_cluster.server import free_ports  # noqa: E402
from assistant_crds import contracts  # noqa: E402

README = ROOT / "tools" / "bench" / "README.md"
RESERVE = ROOT / "tools" / "bench" / "limits" / "reserve_settle.py"
PAIRS = 5000
T = TypeVar("T")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds, for trying the benchmark itself")
    parser.add_argument("--rounds", type=int, help="how many rounds (5; quick: 2)")
    parser.add_argument(
        "--starts", type=int, help="how often each subject is started for the time it takes (3; quick: 1)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=["gateway", "chain", "litellm", "portkey", "nginx", "envoy"],
        help="leave the others out",
    )
    parser.add_argument("--subject-core", type=int, help="core of the subjects (the first that may be used)")
    parser.add_argument("--ends-core", type=int, help="core of load generator, mock and stores (the second)")
    parser.add_argument("--write", action="store_true", help="put the table into tools/bench/README.md")
    parser.add_argument("--note", default="", help="a sentence for the table: what else the machine did")
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (2 if chosen.quick else 5)
    chosen.starts = chosen.starts or (1 if chosen.quick else 3)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed: one for the subject, one for everything else")
    chosen.subject_core = cores[0] if chosen.subject_core is None else chosen.subject_core
    chosen.ends_core = cores[1] if chosen.ends_core is None else chosen.ends_core
    if chosen.subject_core == chosen.ends_core or not {chosen.subject_core, chosen.ends_core} <= set(cores):
        parser.error(f"choose two different ones of the cores {cores}")
    return chosen


class Run:
    """One run: what was started, and what was found."""

    def __init__(self, chosen: argparse.Namespace, stack: ExitStack, folder: Path) -> None:
        self.chosen = chosen
        self.stack = stack
        self.folder = folder
        self.subjects: dict[str, Subject] = {}
        self.starts: dict[str, list[float]] = {}
        self.missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.rounds: dict[str, list[Round]] = {}
        self.load_before = os.getloadavg()[0]

    def start(self) -> Measurer:
        """Start the ends, the stores and all subjects."""
        chosen, stack = self.chosen, self.stack
        program = tools.ends()
        (port,) = free_ports(1)
        bench = Bench(self.folder, chosen.subject_core, f"127.0.0.1:{port}", stack)
        self._take("direct", lambda _: subjects.start_mock(bench, program, chosen.ends_core), 1)
        redis, postgres = stack.enter_context(stores.redis()), stack.enter_context(stores.postgres())
        served = stack.enter_context(
            cluster([policy_secret(subjects.IDENTITY.key, contracts.encode(subjects.policy()))])
        )
        mounted = {"postgres_dsn": subjects.database_of(postgres), "redis_url": redis.operator_url}
        books = {"redis_url": redis.gateway_url, "ledger_url": subjects.ledger_of(postgres)}
        self._take("gateway", lambda number: subjects.start_gateway(bench, served, books, number))
        gateway = self.subjects["gateway"]
        self._take("chain", lambda number: subjects.start_api(bench, served, gateway, mounted, number))
        self._others(bench)
        self.versions["Python"] = platform.python_version()
        self.versions["Redis"] = tools.number(tools.output("redis-server", "--version"))
        self.versions["Go"] = tools.number(tools.output("go", "version"))
        return Measurer(Load(program, self.folder), QUICK if chosen.quick else FULL, redis.server.pid)

    def _others(self, bench: Bench) -> None:
        self._other("litellm", "LiteLLM Proxy", tools.litellm, partial(subjects.start_litellm, bench))
        self._other("portkey", "Portkey", tools.portkey, partial(peers.start_portkey, bench))
        self._other("nginx", "nginx", tools.nginx, partial(subjects.start_nginx, bench))
        self._other("envoy", "Envoy", tools.envoy, partial(peers.start_envoy, bench))

    def _other(self, name: str, title: str, tool: Callable[[], T], start: Callable[[T, int], Subject]) -> None:
        """Start a subject that is not ours, or say why it cannot be had here."""
        if not self._wanted(name):
            return
        try:
            program = tool()
        except tools.MissingToolError as error:
            self.missing[name] = str(error)
            return
        self._take(name, lambda number: start(program, number))
        self.versions[title] = tools.version_of(name, program)

    def _wanted(self, name: str) -> bool:
        return self.chosen.only is None or name in self.chosen.only

    def _take(self, name: str, start: subjects.Start, starts: int | None = None) -> None:
        """Start a subject a few times, keep the last one running."""
        times = starts or self.chosen.starts
        print(f"starting {name} ...", end="", flush=True)
        for number in range(times):
            subject = start(number)
            self.starts.setdefault(name, []).append(subject.processes[0].ready_seconds)
            print(f" {subject.processes[0].ready_seconds:.2f} s", end="", flush=True)
            if number < times - 1:
                subject.processes[0].stop()
        print(flush=True)
        self.subjects[name] = subject

    def measure(self, measurer: Measurer) -> None:
        """Go through the rounds."""
        names = ["direct", *(name for name in self.subjects if name != "direct" and self._wanted(name))]
        self.rounds = {name: [] for name in names}
        for name in names:
            measurer.tried(measurer.warm, self.subjects[name])
        for number in range(self.chosen.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                seen = measurer.tried(measurer.round, self.subjects[name])
                self.rounds[name].append(seen)
                print(
                    f"round {number + 1} {name:8} {seen.cpu_request:7.0f} µs/request {seen.cpu_event:7.1f} µs/event"
                    f" {seen.per_second:7.0f}/s p50 {seen.p50:7.0f} µs, event p50 {seen.event_p50:6.0f} µs,"
                    f" {seen.streams} streams, {seen.memory:.0f} MiB",
                    flush=True,
                )

    def verdicts(self, pairs: float | None) -> list[Verdict]:
        """Judge what was found."""
        found: list[Verdict] = []
        if "litellm" in self.rounds and set(report.OURS) <= self.rounds.keys():
            found += report.against_peer(self.rounds)
        if {"portkey", "gateway"} <= self.rounds.keys():
            found.append(report.against_portkey(self.rounds))
        if set(report.OURS) <= self.rounds.keys():
            loaded = mapped(self.subjects["gateway"].processes[0].pid, "litellm")
            found += report.of_ourselves(self.rounds, self.starts, litellm_loaded=loaded)
        if pairs is not None:
            text = f"reserve and settle: at least {PAIRS:,} pairs/s from one process"
            found.append(Verdict(text, f"{pairs:,.0f} pairs/s", pairs >= PAIRS))
        return [*found, *report.of_the_mock(self.rounds)]

    def text(self, verdicts: list[Verdict]) -> str:
        """What goes into tools/bench/README.md."""
        chosen = self.chosen
        kind = "quick run" if chosen.quick else "full run"
        when = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        about = [f"- {name}: {subject.configuration}" for name, subject in self.subjects.items() if name in self.rounds]
        about += [f"- {name}: unsupported here: {why}" for name, why in self.missing.items()]
        versions = "; ".join(f"{name} {version}" for name, version in self.versions.items())
        load = f"load average {self.load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
        return "\n".join(
            [
                f"{kind.capitalize()} of {when}: {chosen.rounds} rounds; {_cpu()}, {os.cpu_count()} cores, Linux"
                f" {platform.release()}; {load}. {chosen.note}".strip(),
                "",
                "Cells: median (smallest to largest) over the rounds. Ratios are made within a round.",
                "",
                report.table(self.rounds, self.starts, self.missing),
                "",
                *(
                    f"- {'**missed**: ' if not verdict.holds else ''}{verdict.text}: {verdict.found}"
                    for verdict in verdicts
                ),
                "",
                f"Versions: {versions}.",
                "",
                *about,
            ]
        )


def reserve_and_settle(*, quick: bool, cores: Mapping[str, int]) -> float:
    """Run the limits' own benchmark; return its median pairs per second."""
    size = ["--pairs", "5000" if quick else "20000", "--rounds", "3"]

    def both() -> None:
        os.sched_setaffinity(0, set(cores.values()))

    done = subprocess.run(
        [sys.executable, str(RESERVE), *size],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        preexec_fn=both,  # nothing here holds a lock that the child needs
    )
    print(done.stdout, end="")
    found = re.search(r"^median (\d+) pairs/s", done.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{RESERVE} printed no median")
    return float(found[1])


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def main() -> int:
    """Run it."""
    chosen = options()
    # Ended from outside, everything that was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    pin(chosen.ends_core)
    with ExitStack() as stack:
        run = Run(chosen, stack, stack.enter_context(temporary_folder()))
        run.measure(run.start())
        pairs = None
        if chosen.only is None:
            cores = {"subject": chosen.subject_core, "ends": chosen.ends_core}
            pairs = reserve_and_settle(quick=chosen.quick, cores=cores)
        verdicts = run.verdicts(pairs)
        text = run.text(verdicts)
    print(f"\n{text}\n")
    for verdict in verdicts:
        print(verdict)
    if chosen.write:
        README.write_text(between(README.read_text(), report.BEGIN, report.END, text))
        print(f"\nWritten into {README.relative_to(ROOT)}.")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except FailedError as failed:
        sys.exit(f"{failed} (tried {RETRIES + 1} times)")
