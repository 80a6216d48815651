"""The tests that docs/figures.md names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [line for line in (ROOT / "docs" / "figures.md").read_text().splitlines() if line.startswith("| ")]
TESTS = sorted({name for row in ROWS for name in re.findall(r"`(tests/[^`]+)`", row)})


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_is_named_exists(name: str) -> None:
    """A promise whose test was renamed or removed would be held by nothing."""
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    assert not function or re.search(rf"^(?:async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_every_attack_has_a_row() -> None:
    """Twelve attacks are promised to fail."""
    attacks = (ROOT / "docs" / "figures.md").read_text().partition("## Attacks")[2]
    assert re.findall(r"^\| (\d+) ", attacks, re.MULTILINE) == [str(number) for number in range(1, 13)]
