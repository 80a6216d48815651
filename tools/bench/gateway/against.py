"""This checkout's gateway and chain beside those of an older commit, in one run, as ratios.

    python tools/bench/gateway/against.py [COMMIT] [--quick] [--rounds 5]

Both run at once in the same Python environment, each with Redis and Postgres of its own; rounds alternate, and the one
that begins changes with each round. CPU is processor time of the subject's own processes. Leaves with 1 if a ratio's
median is above 1.05. Everything stays on the loopback interface.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "tests" / "integration" / "gateway" / "support"))

import subjects  # noqa: E402
import tools  # noqa: E402
from figures import ratios  # noqa: E402
from machine import pin, temporary_folder  # noqa: E402
from measure import FULL, QUICK, Load, Measurer, Round  # noqa: E402
from report import written  # noqa: E402
from subjects import Bench, Subject  # noqa: E402

from assistant_cluster.server import free_ports  # noqa: E402

BASE = "dcfb673"
BOUND = 1.05
PARTS = ("crds", "observability", "http", "operator", "gateway", "api")
TOOLS = ("cluster", "demo", "bench/gateway")
# In older commits the tools lay at the top.
FOLDERS = (*PARTS, *(f"tools/{tool}" for tool in TOOLS), *TOOLS, "tests/integration/gateway/support")
FIGURES = {
    "cpu_request": "CPU per request",
    "cpu_event": "CPU per event, two streams",
    "cpu_event_busy": "CPU per event, as many streams as a core carries",
}
READY_SECONDS = 180


@dataclass(frozen=True)
class Pid:
    """A process that another one started."""

    pid: int


@contextlib.contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out into a folder of its own."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", "--quiet", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


@contextlib.contextmanager
def served(tree: Path, bench: Bench) -> Iterator[tuple[dict[str, Subject], int]]:
    """Start gateway and chain of a checkout; yields them, and the process id of their Redis."""
    folder = bench.folder / tree.name
    folder.mkdir(exist_ok=True)
    path = os.pathsep.join(str(tree / room) for room in FOLDERS)
    script = str(ROOT / "tools" / "bench" / "gateway" / "serve_tree.py")
    command = [sys.executable, "-P", script, str(bench.core), bench.mock, str(folder)]
    with (folder / "serve.log").open("wb") as log:
        child = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise SystemExit(f"{tree} could not be served:\n{(folder / 'serve.log').read_text()[-3000:]}")
        told = json.loads(line)
        found = {
            name: Subject(
                name,
                one["address"],
                one["model"],
                one["headers"],
                processes=[Pid(pid) for pid in one["pids"]],  # type: ignore[misc]  # only their ids are used
            )
            for name, one in told["subjects"].items()
        }
        yield found, told["redis"]
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", default=BASE)
    parser.add_argument("--quick", action="store_true", help="short rounds")
    parser.add_argument("--rounds", type=int, default=0, help="how many rounds (7; quick: 5)")
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (5 if chosen.quick else 7)
    return chosen


def main() -> int:
    """Run it."""
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    first, second, *_ = sorted(os.sched_getaffinity(0))
    pin(second)
    rounds: dict[tuple[str, str], list[Round]] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        (port,) = free_ports(1)
        bench = Bench(folder, first, f"127.0.0.1:{port}", stack)
        program = tools.ends()
        subjects.start_mock(bench, program, second)
        trees = {"now": ROOT, "then": stack.enter_context(checkout(chosen.commit, folder / "then"))}
        measured = []
        for when, tree in trees.items():
            found, redis = stack.enter_context(served(tree, bench))
            measurer = Measurer(Load(program, folder), QUICK if chosen.quick else FULL, redis)
            for subject in found.values():
                measurer.tried(measurer.warm, subject)
            measured.append((when, measurer, found))
        for number in range(chosen.rounds):
            for name in ("gateway", "chain"):
                for when, measurer, found in measured if number % 2 else measured[::-1]:
                    seen = measurer.tried(measurer.round, found[name])
                    rounds.setdefault((when, name), []).append(seen)
                    print(
                        f"round {number + 1} {name:8} {when:4} {seen.cpu_request:7.0f} µs/request"
                        f" {seen.cpu_event:7.1f} µs/event {seen.cpu_event_busy:7.1f} busy, {seen.memory:.0f} MiB",
                        flush=True,
                    )
    missed = False
    print(f"\nThis checkout / {chosen.commit}, median (smallest to largest) of {chosen.rounds} rounds:")
    for name in ("gateway", "chain"):
        for figure, text in FIGURES.items():
            now, then = ([getattr(seen, figure) for seen in rounds[when, name]] for when in ("now", "then"))
            spread = ratios(now, then)
            missed = missed or spread.middle > BOUND
            told = "pass" if spread.middle <= BOUND else "FAIL"
            print(f"{told}  {name}: {text}: {written(spread, 3)}, at most {BOUND}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
