"""What holds for every suite."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

# A deadline per example measures how busy the machine is.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage among what the imports make: it stays, and to look through it takes each process seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@cache
def _has_a_long_size(path: Path) -> bool:
    return "TEST_LONG" in path.read_text()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as `sized` what looks at TEST_LONG; leave out what is marked `long` when TEST_LONG is not 1."""
    for item in items:
        if _has_a_long_size(item.path):
            item.add_marker(pytest.mark.sized)
    if os.environ.get("TEST_LONG") == "1":
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
