"""Stand-ins for programs on the PATH: shell scripts that note how they were called."""

from pathlib import Path

import pytest


class Programs:
    """A folder that is the whole PATH of a test, beside the shell's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.calls_file = folder / ".calls"
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def add(self, name: str, script: str = "") -> Path:
        """A program that notes its name and arguments, then runs `script`."""
        file = self.folder / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.calls_file}\n{script}\n')
        file.chmod(0o755)
        return file

    @property
    def calls(self) -> list[str]:
        """Command lines so far."""
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
