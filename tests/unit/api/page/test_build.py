"""The built page, which is checked in, comes of the sources that are checked in."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from assistant_api.page.files import DIGEST, STATIC

WEB = Path(__file__).parents[4] / "api" / "web"


def load_build() -> ModuleType:
    found = importlib.util.spec_from_file_location("page_build", WEB / "build.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_built_page_is_up_to_date() -> None:
    """After a change in api/web run `make page`."""
    assert (STATIC / DIGEST).read_text().strip() == load_build().digest()
