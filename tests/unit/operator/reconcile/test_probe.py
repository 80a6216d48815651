"""The endpoint is asked as a client would ask it."""

from types import SimpleNamespace

import pytest

from assistant_crds import naming
from assistant_operator.errors import ProbeError
from assistant_operator.reconcile import probe
from assistant_operator.tenant.observation import PodReadiness

SERVING = PodReadiness("assistant-api-1", in_service=True, ready=True, generation="c1")


class Services:
    """Services by address; each question takes the next of its answers."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.probes = self

    async def service(self, address):
        self.asked.append(address)
        if self.answers.pop(0) is False:
            raise ProbeError("no connection (ClientConnectorError).")


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(probe, "SERVICE_TRIES", (0.0, 0.0))


def owned(address="10.96.0.7"):
    return {("Service", naming.API): {"metadata": {"name": naming.API}, "spec": {"clusterIP": address}}}


async def test_a_service_without_endpoints_is_found():
    """Two refusals in a row are a fault, one is a node that has not heard of a new pod yet."""
    world = Services(False, False)
    assert "no connection" in await probe.ask_service(owned(), [SERVING], world)
    assert world.asked == ["10.96.0.7"] * 2
    assert await probe.ask_service(owned(), [SERVING], Services(False, True)) == ""
    assert await probe.ask_service(owned(), [SERVING], Services(True)) == ""


@pytest.mark.parametrize(
    ("objects", "answers"),
    [
        ({}, [SERVING]),
        (owned("None"), [SERVING]),
        (owned(), []),
        (owned(), [PodReadiness("p", in_service=False, ready=True, generation="c1")]),
        (owned(), [PodReadiness("p", in_service=True, ready=False, generation="c1")]),
    ],
)
async def test_without_an_address_or_a_serving_pod_nobody_is_asked(objects, answers):
    """The pods' own fault is told already, and a headless Service has no address to ask."""
    world = SimpleNamespace(probes=None)
    assert await probe.ask_service(objects, answers, world) == ""
