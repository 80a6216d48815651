"""The command line: `python -m assistant_cluster up|down|status|binaries|kubectl|helm`."""

import argparse
import os
import sys
from collections.abc import Sequence

from assistant_cluster import binaries, lifecycle, modes
from assistant_cluster.checkout import Checkout
from assistant_cluster.client import Client
from assistant_cluster.errors import ClusterError
from assistant_cluster.node import NodeCluster
from assistant_cluster.processes import resident_bytes, started_seconds_ago
from assistant_cluster.progress import Progress
from assistant_cluster.tools import TOOLS

EXIT_PROBLEM, EXIT_NOT_READY, EXIT_INTERRUPTED = 1, 3, 130
CLIENTS = {"kubectl": "kubernetes", "helm": "helm"}  # command: the tool of its program
# kind is of use only where there is a container engine, etcd usually comes from Debian, and Helm 3 is for tests.
ON_DEMAND = {"kind", "etcd", "helm3"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ClusterError as error:
        print(f"\nError: {error}", file=sys.stderr)
        return EXIT_PROBLEM
    except KeyboardInterrupt:
        print("\nInterrupted. `make cluster-up` goes on from here, `make cluster-down` removes it.", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m assistant_cluster",
        description="The local cluster of the Assistant Platform, for the demo and for tests.",
        epilog="The environment variable CLUSTER chooses, too:\n" + modes.CHOICES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, run, text in (
        ("up", _up, "bring the cluster up, or find it up; writes .cluster/kubeconfig"),
        ("down", _down, "remove the cluster and everything it made on this machine"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--mode", choices=modes.MODES, help="which cluster (default: CLUSTER, or auto)")
        command.set_defaults(run=run)
    status = commands.add_parser("status", help="what runs, and how to use it (exit code 3 when it is not ready)")
    status.set_defaults(run=_status)
    tools = commands.add_parser("binaries", help="find, download or build the programs that the cluster needs")
    tools.add_argument("names", nargs="*", metavar="name", help=f"some of: {', '.join(TOOLS)}")
    tools.set_defaults(run=_binaries)
    for name, tool in CLIENTS.items():
        client = commands.add_parser(name, help=f"run {name} against the cluster", add_help=False)
        client.add_argument("arguments", nargs=argparse.REMAINDER)
        client.set_defaults(run=_client, tool=tool, program=name)
    return parser


def _up(options: argparse.Namespace) -> int:
    progress = Progress()
    info = lifecycle.up(options.mode, progress=progress)
    progress(f"cluster is up ({info.mode}, {info.server})")
    print(f"\n  export KUBECONFIG={info.kubeconfig}\n  kubectl get nodes")
    return 0


def _down(options: argparse.Namespace) -> int:
    progress = Progress()
    progress(lifecycle.down(options.mode, progress=progress))
    return 0


def _binaries(options: argparse.Namespace) -> int:
    unknown = [name for name in options.names if name not in TOOLS]
    if unknown:
        raise ClusterError(f"Unknown: {', '.join(unknown)}. There are: {', '.join(TOOLS)}.")
    progress = Progress()
    for name in options.names or [name for name in TOOLS if name not in ON_DEMAND]:
        programs = binaries.ensure(name, progress)
        progress(f"{name} {programs.tool.version}: {' '.join(programs.command())} ({programs.source})")
    return 0


def _client(options: argparse.Namespace) -> int:
    info = lifecycle.find()
    if info is None:
        raise ClusterError("This checkout has no cluster: `make cluster-up` makes one.")
    program = binaries.ensure(options.tool).command(options.program)
    environment = {**os.environ, "KUBECONFIG": str(info.kubeconfig)}
    os.execve(program[0], [*program, *options.arguments], environment)  # noqa: S606 - that is its purpose


def _status(_options: argparse.Namespace) -> int:
    info = lifecycle.find()
    node_mode = info is None or info.mode == "node"
    if node_mode and os.geteuid() == 0:
        ready = _print_node()
    elif info:
        ready = Client(info.kubeconfig).ready() if info.mode == "kind" else True
        print(f"cluster     {info.mode}, {info.server}{'' if ready else ' (does not answer)'}")
    else:
        ready = False
        print("cluster     none in this checkout (run as root to see the machine's node)")
    if info:
        print(f"kubeconfig  {info.kubeconfig}\n\n  export KUBECONFIG={info.kubeconfig}")
    elif node_mode:
        print(f"kubeconfig  none in {Checkout().root}: `make cluster-up` writes it")
    return 0 if ready else EXIT_NOT_READY


def _print_node() -> bool:
    node = NodeCluster()
    status = node.status()
    if not status.running:
        print("cluster     no node runs on this machine")
        return False
    version = node.version() or "unknown version"
    parts = {"API server": status.api_ready, "node": status.node_ready, "cluster DNS": status.dns_ready}
    print(f"cluster     node {node.layout.name}, Kubernetes {version}, {node.layout.api_url}")
    print("health      " + ", ".join(f"{name} {'ready' if ok else 'NOT ready'}" for name, ok in parts.items()))
    print(f"\n{'component':<26}{'pid':>8}{'memory':>10}{'age':>9}")
    total = 0
    for name, process in status.components.items():
        if process is None:
            print(f"{name:<26}{'-':>8}{'':>10}{'stopped':>9}")
            continue
        memory = resident_bytes(process.pid)
        total += memory
        print(f"{name:<26}{process.pid:>8}{_mebibytes(memory):>10}{_age(started_seconds_ago(process)):>9}")
    print(f"{'':<26}{'':>8}{_mebibytes(total):>10}\n\nlogs        {node.layout.logs}")
    return status.healthy


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def _age(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if hours < 2 else f"{hours:.0f} h"
