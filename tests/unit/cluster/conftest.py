"""What the tests of this room share."""

from pathlib import Path

import pytest
from cluster_programs import Programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Programs that a test puts on the PATH."""
    return Programs(tmp_path / "path", monkeypatch)
