"""Where a tenant's own endpoint may lead: to the public internet, and to what the platform team allows by name.

Without this a tenant could make the gateway, which stands inside the platform's network, call anything there.
The address is checked where the connection is made, after the name was resolved, and the connection goes to the
address that was checked; a name that resolves differently a moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import fnmatch
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohappyeyeballs import AddrInfoType

from assistant_gateway.capacity.fairness import BusyError, Shares

RESOLVER_RATIO = 0.25  # of the threads that are left free for the others: six of 32 for one tenant
RESOLVER_WAIT_SECONDS = 30.0  # for a thread; whoever asks gives up earlier

# For whom a connection is made; a task of a call, or of a probe, says so before it makes one.
asking: contextvars.ContextVar[str] = contextvars.ContextVar("asking", default="")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_IPV6_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# What `ipaddress` calls global and is not a host one may call: Teredo, documentation (RFC 9637), 6to4 relays.
_NOT_HOSTS_6 = tuple(ipaddress.ip_network(text) for text in ("2001::/32", "3fff::/20"))
_NOT_HOSTS_4 = (ipaddress.ip_network("192.88.99.0/24"),)
# Services of a cloud's host that answer on an address which counts as public.
_HOST_SERVICES = frozenset({ipaddress.ip_address("168.63.129.16")})


class EgressRefusedError(OSError):
    """The address is not one that a tenant may reach. An `OSError`, so that the client treats it as one."""


def parse(host: str) -> Address | None:
    """Return `host` as an IP address, or None when it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether an address is a host on the public internet, and nothing that leads elsewhere."""
    address = _embedded(address)
    if address.is_multicast or address.is_reserved or not address.is_global or address in _HOST_SERVICES:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address in _IPV6_GLOBAL_UNICAST and not any(address in network for network in _NOT_HOSTS_6)
    return not any(address in network for network in _NOT_HOSTS_4)


def is_never_allowed(address: Address) -> bool:
    """Whether an address is refused even to an allowed name: metadata services, multicast, `0.0.0.0`."""
    address = _embedded(address)
    return address.is_link_local or address.is_multicast or address.is_unspecified or address in _HOST_SERVICES


def is_allowed_host(host: str, patterns: Sequence[str]) -> bool:
    """Whether the platform team allows this name (or literal address) whatever it resolves to."""
    plain = host.strip("[]").rstrip(".").lower()
    return any(fnmatch.fnmatchcase(plain, pattern.lower()) for pattern in patterns)


def check(host: str, addresses: Sequence[Address], patterns: Sequence[str]) -> None:
    """Refuse when any of the addresses is out of bounds.

    Raises:
        EgressRefusedError: with the host's name but not its address, which would map the network for the asker.
    """
    allowed = is_allowed_host(host, patterns)
    for address in addresses:
        if is_never_allowed(address) or not (allowed or is_public(address)):
            raise EgressRefusedError(f"{host} is not on the public internet and not in tenantEndpoints.allowHosts")


class GuardedResolver:
    """Resolves names for tenants' endpoints and hands over only addresses that were checked.

    It has its own threads: a name whose servers never answer must not hold up the platform's own providers. Each such
    name takes a thread for as long as the system tries, so a tenant has a share of them and no more.
    """

    def __init__(self, patterns: Callable[[], Sequence[str]], threads: int = 32) -> None:
        self._patterns = patterns
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._places = Shares(threads, ratio=RESOLVER_RATIO, most_waiting=threads, always_one=True)

    def check_literal(self, host: str) -> None:
        """Check a host that is an address, also of a connection that is open already.

        Raises:
            EgressRefusedError: it is out of bounds.
        """
        address = parse(host)
        if address is not None:
            check(host, [address], self._patterns())

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """Return the checked addresses of `host`.

        Raises:
            EgressRefusedError: one of them is out of bounds.
            OSError: the name does not resolve.
        """
        loop, tenant = asyncio.get_running_loop(), asking.get()
        try:
            await self._places.take(tenant, 1, loop.time() + RESOLVER_WAIT_SECONDS)
        except BusyError:
            raise OSError("too many names are being resolved") from None
        looking = loop.run_in_executor(self._threads, _look_up, host, port)
        looking.add_done_callback(lambda _done: self._places.give(tenant, 1))  # whoever asked may be gone by then
        found = await asyncio.shield(looking)
        addresses = [parse(str(where[0])) for *_, where in found]
        check(host, [address for address in addresses if address is not None], self._patterns())
        return [entry for entry, address in zip(found, addresses, strict=True) if address is not None]

    async def close(self) -> None:
        """Let go of the threads without waiting for names that never answer."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class PlatformResolver:
    """Resolves the names of the platform's providers, in threads that nothing else runs in."""

    def __init__(self, threads: int = 4) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="platform-resolver")

    async def resolve(self, host: str, port: int) -> Sequence[AddrInfoType]:
        """Return the addresses of `host`.

        Raises:
            OSError: the name does not resolve.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port)

    async def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> Sequence[AddrInfoType]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
