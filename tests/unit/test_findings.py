"""The form of `findings/`: what each script says in its header, pins, and cleans up. They run outside CI."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "findings").glob("*.sh"))
MEMBERS = ("Package", "Expected", "Seen", "Here")
PIN = re.compile(r"==[0-9]|@v?[0-9]|=[0-9]+[:.][0-9]")


def header(script: Path) -> dict[str, str]:
    """Return the members of a script's first comment."""
    lines = script.read_text().splitlines()
    members: dict[str, str] = {}
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        if found := re.match(r"# (\w+): +(.*)", line):
            name, text = found.groups()
            members[name] = text
        else:
            members[name] += " " + line.removeprefix("#").strip()
    return members


def test_there_are_findings() -> None:
    """Else all other tests here would pass on nothing."""
    assert SCRIPTS
    assert {path.suffix for path in (ROOT / "findings").iterdir()} == {".sh", ".md"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_has_its_form(script: Path) -> None:
    """Executable, strict, in a temporary folder; packages are pinned in the header and where they are installed."""
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\nfolder=$(mktemp -d)\ntrap 'rm -rf \"$folder\"' EXIT\n" in text
    said = header(script)
    assert tuple(said) == MEMBERS
    assert PIN.search(said["Package"])
    assert re.search(r"\bSources?: ", said["Expected"])
    installed = [line for line in text.replace("\\\n", " ").splitlines() if re.search(r" install | download ", line)]
    assert installed
    assert all(PIN.search(line) for line in installed)
    assert "changed: " in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_names_what_is_there(script: Path) -> None:
    """The files of ours that it names exist; none is used, as a finding is about others."""
    said = header(script)["Here"]
    paths = re.findall(r"[\w/-]+/[\w.-]+\.(?:py|sh|lua|yaml)", said)
    assert paths
    assert all((ROOT / path).exists() for path in paths), paths
    body = script.read_text().partition("set -euo pipefail")[2]
    assert not re.search(r"import assistant_|from assistant_|ROOT|BASH_SOURCE|dirname \"?\$0", body)
