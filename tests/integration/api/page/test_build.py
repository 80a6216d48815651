"""The built page is what its sources give, and its calls fit the API as it is described now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import page_packages
import pytest

from assistant_api.page.files import STATIC


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(900)
def test_the_built_page_is_what_its_sources_give(tmp_path: Path) -> None:
    """Types from today's description, strict checks without a warning, and the same bytes as those checked in."""
    try:
        packages = page_packages.ensure()
    except page_packages.MissingError as missing:
        pytest.skip(str(missing))
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    built = tmp_path / "static"
    command = [sys.executable, page_packages.WEB / "build.py", "--into", built]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(built) == contents(STATIC)
