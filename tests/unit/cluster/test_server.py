"""Ports for servers that a test starts."""

from pathlib import Path

import pytest

from assistant_cluster.server import free_ports

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_free_ports_are_different_and_no_outgoing_connection_gets_one() -> None:
    """The kernel takes ports of outgoing connections from elsewhere, so that none is gone before a server binds it."""
    if not RANGE.exists():
        pytest.skip("this kernel does not say which ports it gives to outgoing connections")
    first, last = map(int, RANGE.read_text().split())
    ports = free_ports(200)
    assert len(set(ports)) == 200
    assert not [port for port in ports if first <= port <= last]
