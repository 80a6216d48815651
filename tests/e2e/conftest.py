"""The whole platform on a real node, brought up once; tenants that clean up after themselves."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_platform import NewTenant, Platform, Tenant
from e2e_stores import Stores
from e2e_values import VALUES
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from assistant_demo import endpoint, machine, up
from assistant_demo.documents import handbook
from assistant_demo.settings import STAND_IN
from assistant_demo.terminal import Terminal

E2E_SECONDS = 300
NODE_TESTS = "test_cluster_lifecycle.py"


class ByCluster(LoadScopeScheduling):
    """Gives the tests of the second node one process, and all others, which share the platform, another."""

    def _split_scope(self, nodeid: str) -> str:
        return "node" if NODE_TESTS in nodeid else "platform"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByCluster:
    """Share the tests out, where there are several processes.

    A scheduler of our own: `--dist loadgroup` of pytest-xdist 3.8 has no effect with pytest 9.2.
    """
    return ByCluster(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the platform, or a node, and more time than a unit test.

    The tests of convergence come first: unlike others they measure no time, which the second node would lengthen.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(E2E_SECONDS))
    items.sort(key=lambda item: item.path.name != "test_convergence.py")


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform with the stand-in model, from this checkout; what runs already is used."""
    terminal = Terminal()
    folder = tmp_path_factory.mktemp("forwards")
    with machine.only_one():
        with terminal.step("Cluster") as step:
            cluster, step.result = machine.cluster_up(step)
        with terminal.step("Images") as step:
            images, step.result = machine.build_images(step)
        demo_was_there = cluster.get("namespace", up.TENANT) is not None
        with terminal.step("Platform") as step:
            up.install_platform(cluster, step, images, STAND_IN, VALUES)
    running = Platform(cluster, images, folder, machine.audit_log())
    try:
        yield running
        running.wait_until_left()
    finally:
        endpoint.close(folder)
        if demo_was_there:
            with machine.only_one(), terminal.step("Platform, as the demo has it") as step:
                up.install_platform(cluster, step, images, STAND_IN)


@pytest.fixture(scope="session")
def stores(platform: Platform) -> Stores:
    """The stores, seen by the platform team."""
    return Stores(platform)


@contextlib.contextmanager
def namespaces(platform: Platform) -> Iterator[NewTenant]:
    """Make namespaces with the strictest Pod Security; their deletion begins in the end, and nobody waits for it."""
    made: list[str] = []

    def new(prefix: str) -> Tenant:
        name = f"e2e-{prefix}-{secrets.token_hex(3)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "assistant-e2e": "true"}
        platform.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        made.append(name)
        return platform.tenant(name)

    try:
        yield new
    finally:
        for name in made:
            platform.cluster.kubectl("delete", "tenant", name, "--ignore-not-found", "--wait=false")
            platform.cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
        platform.leaving += made


@pytest.fixture
def new_tenant(platform: Platform) -> Iterator[NewTenant]:
    """Make a namespace for one test."""
    with namespaces(platform) as new:
        yield new


@pytest.fixture(scope="session")
def shared_tenant(platform: Platform) -> Iterator[NewTenant]:
    """Make a namespace that several tests share."""
    with namespaces(platform) as new:
        yield new


@pytest.fixture(scope="session")
def acme(shared_tenant: NewTenant) -> Tenant:
    """A tenant with an assistant, a knowledge base and the handbook in it, shared by tests that change nothing."""
    tenant = shared_tenant("acme")
    tenant.knowledge_base()
    tenant.assistant("support", instructions="Answer from the handbook.", knowledgeBases=[{"name": "handbook"}])
    tenant.assistant("plain", displayName="Plain", instructions="Be brief.")
    tenant.assistant("slow", model={"provider": STAND_IN.provider, "name": "stand-in-slow"})
    tenant.wait_ready()
    for path in handbook(machine.folder() / "handbook"):
        tenant.wait_document(tenant.upload(path.name, path.read_bytes())["id"], "ready")
    return tenant
