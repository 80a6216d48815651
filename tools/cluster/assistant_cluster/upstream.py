"""Which name servers cluster DNS may ask about names outside the cluster.

Only those that answer: on a machine without them an unknown name must fail at once, not after a time-out.
"""

import ipaddress
import secrets
import socket
import struct
from pathlib import Path

# systemd-resolved's own file names the real servers behind its loopback address.
FILES = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
SECONDS = 1.0


def name_servers() -> list[str]:
    """Name servers of this machine that pods can reach and that answer now, at most three."""
    for file in FILES:
        found = [server for server in configured(file) if answers(server)][:3]
        if found:
            return found
    return []


def configured(file: Path) -> list[str]:
    """IPv4 name servers of a resolver file, without loopback addresses: those mean something else inside a pod."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return []
    servers = [line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1]
    return [server for server in servers if _usable(server)]


def answers(server: str, port: int = 53, seconds: float = SECONDS) -> bool:
    """Whether a server replies to a DNS question (RFC 1035: the root's name servers) in time."""
    number = secrets.randbits(16)
    question = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack(">HH", 2, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect((server, port))
            connection.send(question)
            reply = connection.recv(4096)
        except OSError:
            return False
    return len(reply) >= 12 and reply[:2] == question[:2]


def _usable(server: str) -> bool:
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback
