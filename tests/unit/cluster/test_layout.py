"""Two nodes of one machine share nothing."""

import ipaddress
from itertools import combinations

import pytest

from assistant_cluster.layout import Layout

NODES = [Layout(f"node{index}", index) for index in range(4)]
BENCHMARKING = ipaddress.ip_network("198.18.0.0/15")


def networks(layout: Layout) -> list[ipaddress.IPv4Network]:
    cable = ipaddress.ip_network(f"{layout.node_ip}/30", strict=False)
    return [ipaddress.IPv4Network(layout.pod_range), ipaddress.IPv4Network(layout.service_range), cable]


@pytest.mark.parametrize("layout", NODES)
def test_addresses_are_never_routed_on_the_internet(layout: Layout) -> None:
    """All of them come from the range that RFC 2544 keeps for benchmarks."""
    assert all(network.subnet_of(BENCHMARKING) for network in networks(layout))


def test_no_two_nodes_use_the_same_address_file_or_name() -> None:
    """Ranges do not overlap, and each name and folder differs."""
    for one, other in combinations(NODES, 2):
        assert not any(a.overlaps(b) for a in networks(one) for b in networks(other))
        for attribute in ("state", "link", "nft_table", "cgroup", "init_program"):
            assert getattr(one, attribute) != getattr(other, attribute)


@pytest.mark.parametrize("layout", NODES)
def test_well_known_services_lie_in_the_service_range(layout: Layout) -> None:
    """The API server is the first address, as every client library expects, and DNS is the tenth."""
    services = ipaddress.ip_network(layout.service_range)
    assert ipaddress.ip_address(layout.api_service_ip) == services[1]
    assert ipaddress.ip_address(layout.dns_service_ip) == services[10]


@pytest.mark.parametrize("layout", NODES)
def test_names_fit_the_kernels_limits(layout: Layout) -> None:
    """Interface names have at most 15 characters, socket paths at most 107."""
    assert len(layout.link) <= 15
    assert len(f"{layout.containerd_socket}.ttrpc") <= 107
