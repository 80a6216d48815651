"""LiteLLM is loaded before it is called: beside the event loop, with all that its first calls need, and offline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import translation_loader


@pytest.mark.timeout(300)  # a busy machine loads it for a minute
def test_loading_is_done_before_the_first_call_and_beside_the_loop(tmp_path: Path) -> None:
    """A gateway with translated providers loads by itself; then no kind of call to any family imports anything.

    The loop goes on meanwhile: measured 0.2 s at the longest, of 6 to 11 s of loading on two busy cores.
    """
    command = [sys.executable, translation_loader.__file__, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    print(f"loaded in {found['seconds']:.1f} s, the loop held for {found['longest'] * 1000:.0f} ms at the longest")
    assert not [name for name in found["imported_on_the_loop"] if name.startswith(("litellm", "boto", "httpx"))]
    assert found["collections"] <= 1  # of all objects: each holds the loop up, and there may have been one before
    assert found["frozen"] > 100_000
    assert found["longest"] < found["seconds"] / 4
    assert found["calls"] >= 30
    assert found["imported_by_calls"] == []
    assert found["addresses"] == ["127.0.0.1"]  # where the test's own servers are; nothing is fetched from elsewhere
