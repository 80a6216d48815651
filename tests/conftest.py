"""What holds for every suite."""

from __future__ import annotations

import gc
from collections.abc import Generator

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
