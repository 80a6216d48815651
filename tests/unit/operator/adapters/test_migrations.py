"""Which version of a database needs a migration."""

from __future__ import annotations

from pathlib import Path

import pytest

from assistant_operator.adapters.migrations import Migrations

ROOT = Path(__file__).parents[4]
FOLDERS = ("api/assistant_api/database/migrations", "gateway/assistant_gateway/ledger/migrations")


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_unknown_version_is_a_newer_releases_and_left_alone(folder: str) -> None:
    """After a roll-back the database is ahead of the code: that is current, as is the newest that is known."""
    migrations = Migrations(ROOT / folder)
    assert migrations.is_current(migrations.head)
    assert migrations.is_current("of_the_next_release")
    assert not migrations.is_current(None)


def test_an_older_version_needs_a_migration(tmp_path: Path) -> None:
    """A version that is known and not the newest is migrated."""
    (tmp_path / "versions").mkdir()
    for revision, before in (("0001", None), ("0002", "0001")):
        text = f"revision = {revision!r}\ndown_revision = {before!r}\nbranch_labels = None\ndepends_on = None\n"
        (tmp_path / "versions" / f"{revision}.py").write_text(text)
    migrations = Migrations(tmp_path)
    assert [migrations.is_current(version) for version in ("0001", "0002", "0003")] == [False, True, True]
