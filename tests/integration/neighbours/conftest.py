"""What the tests of neighbours share."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_world import Cluster, prepare


@pytest.fixture(scope="session")
def cluster(kube: Any, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The API server with the gateway's rights."""
    return prepare(kube.url, kube.kubectl, tmp_path_factory.mktemp("gateway-credentials"))
