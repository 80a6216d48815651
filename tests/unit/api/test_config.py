"""Settings come from the environment and from mounted Secrets, and never show a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from assistant_api.config import load

SECRETS = {
    "postgres_dsn": "postgresql://app:hunter2@db:5432/t",
    "redis_url": "redis://u:hunter2@redis:6379",
    "weaviate_url": "http://weaviate:8080",
    "weaviate_grpc": "weaviate:50051",
    "weaviate_api_key": "hunter2",
}


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in SECRETS.items():
        (tmp_path / name).write_text(value)
    monkeypatch.setenv("API_SECRETS_DIR", str(tmp_path))
    return tmp_path


def test_credentials_are_read_from_files_named_like_the_settings(mounted: Path) -> None:
    """The keys of the Secret are the names of the settings, without a prefix."""
    settings = load()
    assert settings.secrets_dir == mounted
    assert settings.postgres_dsn.get_secret_value() == SECRETS["postgres_dsn"]
    assert settings.weaviate_grpc == "weaviate:50051"


def test_a_variable_wins_over_a_file(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person at a terminal can point one setting elsewhere."""
    assert mounted
    monkeypatch.setenv("API_WEAVIATE_GRPC", "localhost:1")
    monkeypatch.setenv("API_PORT", "8081")
    settings = load()
    assert settings.weaviate_grpc == "localhost:1"
    assert settings.port == 8081


def test_no_secret_shows_in_the_settings_text(mounted: Path) -> None:
    """Settings end up in logs sooner or later."""
    assert mounted
    assert "hunter2" not in repr(load())


def test_a_missing_credential_is_named_and_no_other_is_shown(mounted: Path) -> None:
    """The error tells what is missing and not what is there."""
    (mounted / "redis_url").unlink()
    with pytest.raises(ValidationError) as caught:
        load()
    assert "redis_url" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_locales_of_this_clone_are_found(mounted: Path) -> None:
    """Without a setting, the folder beside the rooms is taken."""
    assert mounted
    assert (load().locales_dir / "en.json").is_file()
