"""A gateway and an API process that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_gateway import FakeGateway
from api_process import ApiProcess, api_process, assistant, document


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeGateway]:
    """A gateway that answers without a model."""
    with FakeGateway().running() as gateway:
        yield gateway


@pytest.fixture(scope="module")
def api(gateway: FakeGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """A running API with the assistants `plain` and `support`; no store answers, and none is needed."""
    config = document(gateway.url, [assistant("plain"), assistant("support", instructions="")])
    with api_process(tmp_path_factory.mktemp("api") / "pod", config) as api:
        api.wait_ready()
        yield api
