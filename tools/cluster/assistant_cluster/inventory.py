"""What is on this machine that a node could leave behind. Taken before and after, the two must be equal.

It looks at the machine, not at our records: a record of what was made cannot show what was forgotten.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from assistant_cluster import processes
from assistant_cluster.binaries import cache_folder
from assistant_cluster.layout import STATE_ROOT, Layout
from assistant_cluster.processes import Process
from assistant_cluster.sandbox import Sandbox

Inventory = dict[str, frozenset[str]]

SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# Where Kubernetes, containerd, CNI and we ourselves could leave files: direct children only, except where noted.
FOLDERS = (
    "/etc",
    "/etc/cni",
    "/etc/cni/net.d",
    "/etc/kubernetes",
    "/opt",
    "/opt/cni",
    "/opt/cni/bin",
    "/opt/containerd",
    "/run",
    "/run/lock",
    "/run/netns",
    "/run/containerd",
    "/usr/libexec/kubernetes",
    "/var/lib",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log",
    "/var/run/netns",
    str(STATE_ROOT),
)
COMMANDS = {
    "links": ["ip", "-oneline", "-brief", "link"],
    "addresses": ["ip", "-oneline", "-brief", "address"],
    "routes": ["ip", "route", "show", "table", "all"],
    "rules": ["ip", "rule"],
    "nftables": ["nft", "--stateless", "list", "ruleset"],
    "ipsets": ["ipset", "list", "-name"],
    "network namespaces": ["ip", "netns"],
}


def take(besides: Layout | None = None) -> Inventory:
    """Everything as sets of lines, without what lives inside another node (`besides`): its pods come and go."""
    others = Sandbox(besides).find() if besides else None
    return {
        **{name: _lines(command) for name, command in COMMANDS.items()},
        "mounts": frozenset(_mounts()),
        "folders": frozenset(_folders()),
        "cgroups": frozenset(_cgroups(besides)),
        "sysctls": frozenset(_sysctls()),
        "processes": frozenset(_contained_processes(others)),
    }


def difference(before: Inventory, after: Inventory) -> dict[str, list[str]]:
    """What came (`+`) and what went (`-`), by subject; empty when nothing changed."""
    changes = {}
    for subject in before:
        came, went = after[subject] - before[subject], before[subject] - after[subject]
        if came or went:
            changes[subject] = [f"+ {line}" for line in sorted(came)] + [f"- {line}" for line in sorted(went)]
    return changes


def _lines(command: list[str]) -> frozenset[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        return frozenset()
    return frozenset(line.strip() for line in done.stdout.splitlines() if line.strip())


def _mounts() -> Iterator[str]:
    images = str(cache_folder().parent)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        # Image building, which needs no node, mounts its layers in the cache.
        if not fields[4].startswith(images):
            yield f"{fields[4]} {fields[fields.index('-') + 1]}"


def _folders() -> Iterator[str]:
    for folder in FOLDERS:
        if Path(folder).is_dir():
            yield folder
            yield from (entry.path for entry in os.scandir(folder))


def _cgroups(besides: Layout | None) -> Iterator[str]:
    for folder, inner, _ in os.walk("/sys/fs/cgroup"):
        yield folder
        if besides and Path(folder).name == besides.cgroup:
            inner.clear()


def _sysctls() -> Iterator[str]:
    switches = [Path("/proc/sys") / name for name in SYSCTLS]
    switches += sorted(Path("/proc/sys/net/ipv4/conf").glob("*/forwarding"))
    for switch in switches:
        if switch.exists():
            yield f"{switch} = {switch.read_text().strip()}"


def _contained_processes(others: Process | None) -> Iterator[str]:
    """Processes in a network namespace other than ours, and programs that run from the state folder."""
    ours = processes.namespace(os.getpid(), "net")
    for pid in processes.pids():
        start = processes.start_ticks(pid)
        theirs = processes.namespace(pid, "net")
        if start is None or theirs is None:
            continue
        if others and processes.descends(pid, others.pid):
            continue
        command = _command(pid)
        if theirs != ours or command.startswith(str(STATE_ROOT)):
            yield f"{pid} {start} {command}"


def _command(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""
