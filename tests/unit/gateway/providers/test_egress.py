"""Where a tenant's own endpoint may lead."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Sequence

import pytest
from aiohappyeyeballs import AddrInfoType

from assistant_gateway.providers import egress
from assistant_gateway.providers.egress import EgressRefusedError, GuardedResolver

INSIDE = [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.100.100.200", "198.18.0.1", "198.19.255.255", "192.0.0.1", "192.0.2.1",
    "198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "168.63.129.16",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "fe80::1", "fc00::1",
    "fd00:ec2::254", "fec0::1", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::",
    "2002:a00:1::1", "2001::1", "2001:db8::1", "100::1", "3fff::1", "5f00::1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", INSIDE)
def test_address_that_is_not_public_is_refused(address: str) -> None:
    """Loopback, private, link-local, shared, benchmark, multicast, reserved, and each of them dressed up as IPv6."""
    assert not egress.is_public(ipaddress.ip_address(address))
    with pytest.raises(EgressRefusedError) as raised:
        egress.check("llm.example", [ipaddress.ip_address(address)], [])
    assert address not in str(raised.value)


@pytest.mark.parametrize("address", OUTSIDE)
def test_public_address_is_allowed(address: str) -> None:
    """Hosts of the internet may be called."""
    egress.check("llm.example", [ipaddress.ip_address(address)], [])


def test_one_bad_address_among_good_ones_is_enough() -> None:
    """A name that resolves both ways is refused: which address would be used is chance."""
    addresses = [ipaddress.ip_address(text) for text in ("8.8.8.8", "10.0.0.1")]
    with pytest.raises(EgressRefusedError):
        egress.check("llm.example", addresses, [])


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("llm.internal.example", True),
        ("LLM.Internal.Example.", True),
        ("models.corp.example", True),
        ("10.1.2.3", True),
        ("corp.example", False),
        ("llm.internal.example.evil.example", False),
        ("evil-models.corp.example.net", False),
        ("10.1.2.4", False),
    ],
)
def test_allowed_hosts_are_patterns_on_the_whole_name(host: str, allowed: bool) -> None:
    """A listed host may resolve to a private address; a name that merely contains a listed one may not."""
    patterns = ["llm.internal.example", "*.corp.example", "10.1.2.3"]
    private = [ipaddress.ip_address("10.1.2.3")]
    if allowed:
        egress.check(host, private, patterns)
    else:
        with pytest.raises(EgressRefusedError):
            egress.check(host, private, patterns)


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "168.63.129.16", "::"])
def test_metadata_services_are_never_allowed(address: str) -> None:
    """Not even a list that allows everything opens the cloud's metadata services."""
    with pytest.raises(EgressRefusedError):
        egress.check("x.example", [ipaddress.ip_address(address)], ["*"])


async def test_resolver_hands_over_what_it_checked() -> None:
    """The connection is made to the checked address itself: a second look-up cannot change it."""
    resolver = GuardedResolver(lambda: ["localhost"])
    found = await resolver.resolve("localhost", 8000)
    addresses = {where[:2] for *_, where in found}
    assert ("127.0.0.1", 8000) in addresses
    assert addresses <= {("127.0.0.1", 8000), ("::1", 8000)}
    await resolver.close()


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433", "017700000001"])
async def test_resolver_refuses_every_way_to_write_the_loopback_address(host: str) -> None:
    """A name, and the numbers that old functions read as addresses, are judged by what they mean."""
    resolver = GuardedResolver(list)
    with pytest.raises(EgressRefusedError):
        await resolver.resolve(host, 80)
    await resolver.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "::ffff:10.0.0.1", "fe80::1%eth0"])
async def test_literal_addresses_are_checked_too(host: str) -> None:
    """An address is checked also when its connection is open already."""
    resolver = GuardedResolver(list)
    with pytest.raises(EgressRefusedError):
        resolver.check_literal(host)
    resolver.check_literal("llm.example")  # a name is the resolver's business
    resolver.check_literal("8.8.8.8")
    await resolver.close()


async def test_names_that_never_resolve_hold_up_only_the_tenant_that_asks_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One tenant with more silent names than there are threads: another's name is resolved meanwhile."""
    silent = threading.Event()

    def look_up(host: str, port: int) -> Sequence[AddrInfoType]:
        if host.startswith("silent"):
            silent.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", port))]

    monkeypatch.setattr(egress, "_look_up", look_up)
    resolver = GuardedResolver(list, threads=8)

    async def ask(tenant: str, host: str) -> Sequence[AddrInfoType]:
        egress.asking.set(tenant)
        return await resolver.resolve(host, 443)

    hostile = [asyncio.create_task(ask("hostile", f"silent-{number}.test")) for number in range(20)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            assert await asyncio.create_task(ask("honest", "model.test"))
    finally:
        silent.set()
        for task in hostile:
            task.cancel()
        await asyncio.gather(*hostile, return_exceptions=True)
        await resolver.close()
