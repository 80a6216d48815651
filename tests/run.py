"""`make test`: every suite in order, with its time, and at the end one table of what passed and what was left out.

The suites run one after another, so that the stores of one do not slow another down; only the cluster and the images of
the end-to-end tests get ready while the charts are tested. What else is needed is fetched or built before the suites,
with progress: on a bare machine that takes longer than any test may. A cluster that was not there before is taken away
again.

`make test-long` (`--long`): only the tests that are marked `long` or look at TEST_LONG, one at a time so that they do
not disturb each other's figures; without the charts and a node. What tests record with `record_property` is printed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assistant_cluster import ClusterError, binaries, kind, modes, stores
from assistant_cluster.checkout import Checkout
from assistant_cluster.node import NodeCluster
from assistant_cluster.packages import ensure_packages
from assistant_cluster.progress import Progress
from assistant_demo import machine
from assistant_demo.errors import DemoError
from assistant_demo.terminal import Terminal

ROOT = Path(__file__).parents[1]
LONG = "--long"
ALONE = "alone"  # the marker of tests that measure
PREPARE_PLATFORM = "--prepare-platform"  # does only that, in a process of its own
KINDS = ("passed", "flaky", "failed", "errors", "skipped")
# Tests meet the machine's busy seconds, those on real stores and a real node more often than those in one process. So
# many failed ones of a suite are run once more, by themselves, and counted as flaky when they pass; more at once are no
# accident. The charts' tests rely on those before them in their file, so they cannot run by themselves.
MOST_RETRIED = {"unit": 1, "integration": 3, "e2e": 3}
# Each process has stores and an API server of its own. The charts' tests rely on what those before them in their file
# did; the end-to-end tests share one cluster, but for those that start a node of their own.
PARALLEL = {
    "unit": ["-n", "auto", "--dist", "worksteal"],
    "integration": ["-n", "2", "--dist", "worksteal"],
    "charts": ["-n", "2", "--dist", "loadfile"],
    "e2e": ["-n", "2", "--dist", "loadscope"],
}


@dataclass
class Result:
    """What became of one suite."""

    suite: str
    seconds: float = 0.0
    code: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    left_out: str = ""
    figures: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether something did not pass; in CI a suite that was left out did not."""
        return self.code != 0 or (bool(self.left_out) and os.environ.get("CI") == "true")

    def __str__(self) -> str:
        if self.left_out:
            return f"  {self.suite:<18} LEFT OUT  {self.left_out}"
        told = (
            ", ".join(f"{self.counts[kind]} {kind}" for kind in KINDS if self.counts[kind]) or f"exit code {self.code}"
        )
        return f"  {self.suite:<18} {duration(self.seconds):>10}  {told}"


def run(
    suite: str, folder: Path, options: list[str], parallel: list[str] | None = None, title: str | None = None
) -> Result:
    """Run one suite with pytest; `parallel` replaces how its tests are shared out, `title` names a part of it."""
    title = title or suite
    print(f"\n=== {title} ===", flush=True)
    report = folder / f"{title.replace(' ', '-')}.xml"
    started = time.monotonic()
    parallel = PARALLEL.get(suite, []) if parallel is None else parallel
    given = [*parallel, "--durations=5", *options]
    command = [sys.executable, "-m", "pytest", f"tests/{suite}", f"--junitxml={report}", *given]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    result = Result(title, time.monotonic() - started, code)
    if report.exists():
        tree = ET.parse(report)
        for case in tree.iter("testcase"):
            told = [f"{found.get('name')} {found.get('value')}" for found in case.iter("property")]
            result.figures += [f"  {case.get('name')}: {', '.join(told)}"] if told else []
        for element in tree.iter("testsuite"):
            for name, attribute in (("failed", "failures"), ("errors", "errors"), ("skipped", "skipped")):
                result.counts[name] += int(element.get(attribute, 0))
            result.counts["passed"] += int(element.get("tests", 0))
        result.counts["passed"] -= sum(result.counts[name] for name in ("failed", "errors", "skipped"))
    return result


def prepare() -> None:
    """Get the programs of the stores, the API server and Helm, and the tests' OpenAI clients; says what it installs.

    Raises:
        ClusterError: one of them cannot be had here.
    """
    progress = Progress()
    if os.geteuid() == 0 and shutil.which("apt-get"):
        ensure_packages(("etcd-server",), progress, purpose="the tests' API server")
        ensure_packages(("prometheus",), progress, purpose="the tests of alerts")
        # Without them the page's tests are left out, and say so.
        with contextlib.suppress(ClusterError):
            ensure_packages(("chromium", "fonts-noto-core"), progress, purpose="the tests of the page")
    stores.install(progress)
    for name in ("etcd", "kubernetes", "helm", "helm3"):
        binaries.ensure(name, progress)
    # What cannot be had is told again by the test that needs it.
    for program in ("clients/environment.py", "integration/api/support/page_packages.py"):
        subprocess.run([sys.executable, ROOT / "tests" / program], check=False)


@contextlib.contextmanager
def head_start(log: Path) -> Iterator[None]:
    """Meanwhile, do what `prepare_platform` does; then show how that goes on, and wait for its end."""
    program = [sys.executable, __file__, PREPARE_PLATFORM]
    with log.open("w") as output:
        process = subprocess.Popen(program, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield
        with log.open() as told:
            while process.poll() is None:
                print(told.read(), end="", flush=True)
                time.sleep(0.2)
            print(told.read(), end="", flush=True)
    finally:
        process.terminate()
        process.wait()


def prepare_platform() -> None:
    """Bring up the cluster and build the images, which the end-to-end tests then find.

    Raises:
        ClusterError, DemoError: it cannot be done.
    """
    terminal = Terminal()
    with machine.only_one():
        with terminal.step("Cluster") as step:
            _, step.result = machine.cluster_up(step)
        with terminal.step("Images") as step:
            _, step.result = machine.build_images(step)


def cluster_is_there() -> bool:
    """Whether a cluster runs that this run must not take away."""
    mode, _ = modes.choose(None, Checkout())
    if mode == "node":
        return NodeCluster().status().running
    return mode == "current" or kind.KindCluster().exists()


def retried(result: Result, suite: str, folder: Path, options: list[str]) -> Result:
    """Run the few failed tests of a suite once more; those that pass then are `flaky`."""
    failed = result.counts["failed"] + result.counts["errors"]
    if result.code != pytest.ExitCode.TESTS_FAILED or not 0 < failed <= MOST_RETRIED[suite]:
        return result
    again = run(suite, folder, ["--last-failed", *options], parallel=[], title=f"{result.suite} again")
    result.seconds += again.seconds
    if again.code == 0:
        result.code = 0
        result.counts.update(flaky=failed, failed=-result.counts["failed"], errors=-result.counts["errors"])
    return result


def run_and_measure(suite: str, folder: Path, options: list[str]) -> list[Result]:
    """Run a suite, and then by themselves those of its tests that measure; of each part, few failures once more."""
    chosen = ["-m", f"not {ALONE}", *options]
    together = retried(run(suite, folder, chosen), suite, folder, chosen)
    chosen = ["-m", ALONE, *options]
    alone = run(suite, folder, chosen, parallel=[], title=f"{suite} {ALONE}")
    alone = retried(alone, suite, folder, chosen)
    if alone.code == pytest.ExitCode.NO_TESTS_COLLECTED:  # `options` chose others
        return [together]
    return [together, alone]


def run_long(options: list[str]) -> int:
    """Run what is too long for every commit and print the figures; returns 0 when all of it passed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        chosen = ["-m", "long or sized", *options]
        results = [run(suite, Path(name), chosen, parallel=[]) for suite in ("unit", "integration")]
    for result in results:
        result.code = 0 if result.code == pytest.ExitCode.NO_TESTS_COLLECTED else result.code
    print("\n=== figures ===", *(figure for result in results for figure in result.figures), sep="\n")
    print("\n=== long runs ===", *results, f"=== {duration(time.monotonic() - started)} ===", sep="\n")
    return int(any(result.failed for result in results))


def main(options: list[str]) -> int:
    """Run all suites; returns 0 when all of them passed."""
    results: list[Result] = []
    started = time.monotonic()
    try:
        prepare()
    except ClusterError as error:
        print(f"Error: {error}")
        return 1
    if LONG in options:
        return run_long([option for option in options if option != LONG])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results.append(retried(run("unit", folder, options), "unit", folder, options))
        results += run_and_measure("integration", folder, options)
        try:
            there = cluster_is_there()
        except ClusterError as error:
            results.append(run("charts", folder, options))
            results.append(Result("e2e", left_out=str(error).splitlines()[0]))
        else:
            try:
                with head_start(folder / "head-start.log"):
                    results.append(run("charts", folder, options))
                prepare_platform()
                results += run_and_measure("e2e", folder, options)
            except (ClusterError, DemoError) as error:
                print(f"Error: {error}")
                results.append(Result("e2e", code=1))
            finally:
                if not there:
                    print("\nThe cluster was not there before, so it is taken away again.", flush=True)
                    subprocess.run([sys.executable, "-m", "assistant_demo", "down"], cwd=ROOT, check=False)
    total = sum((result.counts for result in results), Counter())
    print("\n=== all suites ===")
    for result in results:
        print(result)
    told = ", ".join(f"{total[kind]} {kind}" for kind in KINDS if total[kind])
    print(f"=== {told} in {duration(time.monotonic() - started)} ===")
    for result in results:
        if result.left_out:
            print(f"NOT everything was tested: {result.suite} needs a node or kind. {result.left_out}")
    return int(any(result.failed for result in results))


def duration(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    if sys.argv[1:] == [PREPARE_PLATFORM]:
        with contextlib.suppress(ClusterError, DemoError):  # what went wrong is met again, and told, after the charts
            prepare_platform()
    else:
        sys.exit(main(sys.argv[1:]))
