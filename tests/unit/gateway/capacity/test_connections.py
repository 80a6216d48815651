"""Idle connections are bounded: of each tenant, and of each address on which nobody has proved who asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from assistant_gateway.capacity.connections import (
    IDLE_OF_A_TENANT,
    UNPROVEN_OF_AN_ADDRESS,
    UNPROVEN_SECONDS,
    Connections,
)


def opened(count: int, address: str = "10.0.0.1") -> list[Any]:
    """Return so many connections from an address."""

    class Connection(SimpleNamespace):
        __hash__ = object.__hash__
        __eq__ = object.__eq__

    return [Connection(peername=(address, number)) for number in range(count)]


def test_a_tenant_keeps_some_idle_connections_those_that_were_used_last() -> None:
    """Those with a request in work are none of them, and other tenants keep all of theirs."""
    connections = Connections()
    many, few = opened(IDLE_OF_A_TENANT + 30), opened(20)
    for connection in many:
        connections.proved(connection, "hostile")
    for connection in few:
        connections.proved(connection, "honest")
    connections.busy.update(many[:10])
    assert connections.surplus([*many, *few], 0.0) == many[10:30]
    left = [*many[:10], *many[30:]]
    connections.busy.clear()
    assert connections.surplus([*left, *few], 1.0) == left[10:20], "those that have just become idle stay"


def test_a_connection_on_which_nothing_is_proved_is_not_kept_for_long() -> None:
    """A client that sends a request's head a byte at a time is none; nor is one that never asks."""
    connections = Connections()
    silent = opened(3)
    assert connections.surplus(silent, 0.0) == []
    late = opened(1)
    assert connections.surplus(silent + late, UNPROVEN_SECONDS - 1) == []
    connections.busy.add(silent[0])
    assert connections.surplus(silent + late, UNPROVEN_SECONDS) == silent[1:]


def test_an_address_has_so_many_connections_on_which_nothing_is_proved() -> None:
    """Beyond that the oldest are closed; another address, and what is proved, are not counted with them."""
    connections = Connections()
    flood, other = opened(UNPROVEN_OF_AN_ADDRESS + 5), opened(5, "10.0.0.2")
    assert connections.surplus(flood + other, 0.0) == flood[:5]
    connections.proved(flood[5], "honest")
    assert connections.surplus(flood[5:] + other, 1.0) == []


def test_connections_that_are_gone_are_forgotten() -> None:
    """Nothing is kept of them."""
    connections = Connections()
    some = opened(10)
    for connection in some:
        connections.proved(connection, "one")
    connections.surplus(some, 0.0)
    assert connections.owner(some[0]) == "one"
    connections.surplus([], 1.0)
    assert (connections.owner(some[0]), connections._idle_since) == ("@10.0.0.1", {})
