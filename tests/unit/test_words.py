"""What users read is in the field's own words, and the glossary names files that exist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Words of a dialect that users met once: each has a better one that says who does what.
DIALECT = re.compile(r"\b(?:told|nobody|whatever|whoever|anew|roads?|grants|books|straight)\b", re.IGNORECASE)
# Files whose whole text users read. Decision records are history.
SURFACES = (
    *("README.md", "SECURITY.md", "CONTRIBUTING.md", "docs", ":!docs/decisions", "locales"),
    *("crds/*.yaml", "charts", "observability/alerts", "observability/dashboards"),
    *("observability/assistant_monitoring", "observability/assistant_observability/metrics.py"),
)
# Programs of which users meet the texts, in errors, conditions, Events, logs and OpenAPI, but not the comments.
PROGRAMS = ("api/assistant_api", "gateway/assistant_gateway", "operator/assistant_operator", "crds/assistant_crds")
ALLOWED = re.compile(r"\bGRANT\b")  # SQL


def tracked(*patterns: str) -> list[Path]:
    """Return the files in Git that match."""
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def dialect(path: Path) -> Iterator[str]:
    """Yield the places of a text that users read which are not in the field's words."""
    try:
        text = path.read_text()
    except UnicodeDecodeError:  # an archive, an image
        return
    for number, line in enumerate(text.splitlines(), 1):
        if DIALECT.search(ALLOWED.sub("", line)):
            yield f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"


def sentences(path: Path) -> Iterator[str]:
    """Yield the texts in a program that have more than one word, without docstrings and comments."""
    text = path.read_text()
    code = re.sub(r'"""(?:.|\n)*?"""', "", text)  # docstrings
    code = re.sub(r"^\s*#.*$|  #.*$", "", code, flags=re.MULTILINE)
    for literal in re.findall(r'"((?:[^"\\\n]|\\.)*)"', code):
        if " " in literal:
            yield literal


def test_what_users_read_is_in_the_fields_words() -> None:
    """Documentation, catalogues, definitions, charts, alerts, dashboards and metrics: none of the old words."""
    files = tracked(*SURFACES)
    assert len(files) > 50
    assert [place for path in files for place in dialect(path)] == []


@pytest.mark.parametrize("room", PROGRAMS)
def test_messages_are_in_the_fields_words(room: str) -> None:
    """Errors, conditions, Events, descriptions and log lines: none of the old words."""
    files = tracked(f"{room}/*.py")
    assert files
    found = [f"{path.name}: {text}" for path in files for text in sentences(path) if DIALECT.search(text)]
    assert [text for text in found if "road IN (" not in text and "CASE road" not in text] == []


def test_the_glossary_is_true() -> None:
    """Every term has a meaning and a file that exists."""
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE
    )
    terms = [row for row in rows if row[0].strip() not in {"term", "---"}]
    assert len(terms) >= 30
    names = [term.strip().lower() for term, _, _ in terms]
    assert len(set(names)) == len(names)
    assert names == sorted(names)
    files = [name for _, _, cell in terms for name in re.findall(r"`([^`]+)`", cell)]
    assert all(re.findall(r"`([^`]+)`", cell) for _, _, cell in terms)
    assert [name for name in files if not (ROOT / name).exists()] == []
