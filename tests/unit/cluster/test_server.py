"""Servers that a test starts, and their ports."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from assistant_cluster.server import Server, free_ports

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_free_ports_are_different_and_no_outgoing_connection_gets_one() -> None:
    """The kernel takes ports of outgoing connections from elsewhere, so that none is gone before a server binds it."""
    if not RANGE.exists():
        pytest.skip("this kernel does not say which ports it gives to outgoing connections")
    first, last = map(int, RANGE.read_text().split())
    ports = free_ports(200)
    assert len(set(ports)) == 200
    assert not [port for port in ports if first <= port <= last]


def test_a_server_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    """An event loop starts servers in threads that end with it; the next test still needs them."""
    program = "import pathlib, time; pathlib.Path('ready').touch(); time.sleep(60)"
    server = Server(
        name="Server",
        command=[sys.executable, "-c", program],
        environment=dict(os.environ),
        folder=tmp_path,
        ready=(tmp_path / "ready").exists,
    )
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        assert server._process is not None
        with pytest.raises(subprocess.TimeoutExpired):
            server._process.wait(0.5)
    finally:
        server.stop()
