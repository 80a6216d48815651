"""The node's network: a cable to the machine, a bridge for pods, and a way out to the internet for them.

On the machine there are only the cable's end with its two routes, one nftables table and one or two forwarding
switches; all other rules (kube-proxy, kube-router, CNI) live in the node's own network namespace.
"""

import json
import shutil
import subprocess
from pathlib import Path

from assistant_cluster.errors import ClusterError
from assistant_cluster.layout import POD_BRIDGE, UPLINK, Layout
from assistant_cluster.machine import Machine
from assistant_cluster.progress import wait_until
from assistant_cluster.sandbox import Sandbox

SYSCTL = Path("/proc/sys")
# Table of routes used before the kernel looks whether an address is its own.
UPLINK_TABLE = 100


def check_ranges(layout: Layout) -> None:
    """Refuse to start where something else already routes the node's addresses."""
    for route in _routes():
        if route.get("dst", "").startswith(("198.18.", "198.19.")) and not route.get("dev", "").startswith("ap-node"):
            raise ClusterError(
                f"The node needs the addresses {layout.pod_range} and {layout.service_range}, but this machine routes "
                f"{route['dst']} through {route.get('dev')}. Remove that route, or use CLUSTER=kind or CLUSTER=current."
            )


def connect(layout: Layout, sandbox: Sandbox) -> None:
    """Lay the cable between machine and node and set up the node's side."""
    init = sandbox.find()
    if init is None:
        raise ClusterError("The node's first process is gone.")
    mtu = _uplink_mtu()
    _host(["ip", "link", "add", layout.link, "mtu", str(mtu), "type", "veth",
           "peer", "name", UPLINK, "mtu", str(mtu), "netns", str(init.pid)])  # fmt: skip
    _host(["ip", "address", "add", f"{layout.host_ip}/30", "dev", layout.link])
    _host(["ip", "link", "set", layout.link, "up"])
    sandbox.run(["ip", "-batch", "-"], stdin=_node_side(layout, mtu))
    sandbox.run(["sh", "-ec", "\n".join(f"echo {value} > {SYSCTL / name}" for name, value in NODE_SYSCTLS.items())])
    for destination in (layout.pod_range, layout.service_range):
        _host(["ip", "route", "replace", destination, "via", layout.node_ip, "dev", layout.link])


NODE_SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/bridge/bridge-nf-call-iptables": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    f"net/ipv4/conf/{UPLINK}/rp_filter": 0,
}


def _node_side(layout: Layout, mtu: int) -> str:
    """Commands for `ip -batch` inside the node.

    A node may always reach its own pods, whatever NetworkPolicy says (the kubelet's probes need it), and kube-router
    recognises a node's traffic by a source address that is local. The machine stands for its node, so its address is
    made local too; a rule that comes before the table of local addresses still sends answers back over the cable.

    Service addresses are routed to the bridge, so that one without rules goes nowhere instead of out of the machine.
    """
    return f"""\
link set lo up
link add {POD_BRIDGE} mtu {mtu} type bridge
address add {layout.pod_gateway}/24 dev {POD_BRIDGE}
link set {POD_BRIDGE} up
address add {layout.node_ip}/30 dev {UPLINK}
link set {UPLINK} up
route add default via {layout.host_ip}
route replace {layout.service_range} dev {POD_BRIDGE}
route add {layout.host_ip} dev {UPLINK} table {UPLINK_TABLE}
rule add pref 10 to {layout.host_ip} lookup {UPLINK_TABLE}
rule add pref 20 lookup local
rule del pref 0
route add local {layout.host_ip} dev lo table local
"""


def open_way_out(layout: Layout, machine: Machine) -> None:
    """Let pods reach what the machine reaches."""
    default = _default_route()
    if default is None:
        return
    (SYSCTL / "net/ipv4/conf" / layout.link / "forwarding").write_text("1")
    machine.set_switch(SYSCTL / "net/ipv4/conf" / default["dev"] / "forwarding", "1")
    rules = f"""\
add table ip {layout.nft_table}
flush table ip {layout.nft_table}
table ip {layout.nft_table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {{ {layout.pod_range}, {layout.node_ip} }} oifname != "{layout.link}" masquerade
  }}
}}
"""
    _host(["nft", "-f", "-"], stdin=rules)


def disconnect(layout: Layout) -> None:
    """Remove the cable and the table of rules."""
    if (Path("/sys/class/net") / layout.link).exists():
        # The kernel removes it in the background, too, once the node's namespace is gone.
        _host(["ip", "link", "del", layout.link], may_fail=True)
    if shutil.which("nft"):
        _host(["nft", "delete", "table", "ip", layout.nft_table], may_fail=True)
    if not wait_until(lambda: not (Path("/sys/class/net") / layout.link).exists(), seconds=10):
        raise ClusterError(f"The network link {layout.link} does not go away.")


def enforces_policies(sandbox: Sandbox) -> bool:
    """Whether kube-router has put its rules in front of all traffic between pods."""
    return "KUBE-ROUTER-FORWARD" in sandbox.run(["iptables", "--wait", "--list-rules", "FORWARD"])


def _uplink_mtu() -> int:
    default = _default_route()
    return int((Path("/sys/class/net") / default["dev"] / "mtu").read_text()) if default else 1500


def _default_route() -> dict[str, str] | None:
    return next((route for route in _routes() if route.get("dst") == "default"), None)


def _routes() -> list[dict[str, str]]:
    routes: list[dict[str, str]] = json.loads(_host(["ip", "-json", "-4", "route", "show"]) or "[]")
    return routes


def _host(command: list[str], *, stdin: str = "", may_fail: bool = False) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0 and not may_fail:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
