"""The rules of the house hold: rooms, lock, documentation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("crds", "observability", "http", "operator", "gateway", "api", "tools/cluster", "tools/demo")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==([^\s;]+)", re.IGNORECASE | re.MULTILINE)


def pins(text: str) -> dict[str, str]:
    return {name.lower().replace("_", "-").replace(".", "-"): version for name, version in PIN.findall(text)}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_not_itself_a_package(room: str) -> None:
    """operator/__init__.py would hide the standard library's operator."""
    assert (ROOT / room / f"assistant_{Path(room).name}" / "__init__.py").is_file()
    assert not (ROOT / room / "__init__.py").exists()


def test_tests_are_not_packages() -> None:
    """Test folders hold no __init__.py, so that test files of one name may live in two rooms."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_file_of_the_rooms_is_longer_than_400_lines() -> None:
    """A longer file has more than one subject."""
    long = {
        str(path.relative_to(ROOT)): lines
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_no_room_is_a_drawer() -> None:
    """No module is called utils, common, helpers or lib."""
    names = {
        p for room in ROOMS for p in (ROOT / room).rglob("*.py") if p.stem in {"utils", "common", "helpers", "lib"}
    }
    assert not names


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_lock_agrees_with_the_project_file(extra: str) -> None:
    """Every pin of an extra, and of the base, stands in its lock file; what is not pinned fails."""
    wanted = [*PROJECT["project"]["dependencies"], *EXTRAS[extra]]
    direct = [d for d in wanted if not d.startswith("assistant-platform[")]
    assert all("==" in d for d in direct)
    locked = pins((ROOT / "requirements" / f"{extra}.txt").read_text())
    assert pins("\n".join(direct)).items() <= locked.items()


@pytest.mark.parametrize("part", [e for e in EXTRAS if e != "dev"])
def test_the_locks_are_one_resolution(part: str) -> None:
    """Each part's lock is a subset of the development lock."""
    dev = pins((ROOT / "requirements" / "dev.txt").read_text())
    assert pins((ROOT / "requirements" / f"{part}.txt").read_text()).items() <= dev.items()


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_lock_has_hashes_and_no_address(extra: str) -> None:
    """Packages are verified by content, whatever index they come from."""
    text = (ROOT / "requirements" / f"{extra}.txt").read_text()
    assert text.count("--hash=sha256:") >= len(pins(text))
    assert "://" not in text


def test_the_paths_that_the_architecture_names_exist() -> None:
    """The concept-to-file table cannot rot."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ")]
    named = {p for line in table for p in re.findall(r"`([a-z.][\w./-]*/[\w./-]*)`", line)}
    assert len(named) > 30
    assert not {p for p in named if not (ROOT / p).exists()}


def test_links_in_the_documentation_lead_somewhere() -> None:
    """Relative links of every Markdown file resolve."""
    broken = {
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text())
        if not (page.parent / target).exists()
    }
    assert not broken
