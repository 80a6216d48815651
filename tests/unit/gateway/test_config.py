"""Settings from the environment and from mounted files."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from assistant_gateway.config import Settings

REQUIRED = {"GATEWAY_NAMESPACE": "platform", "GATEWAY_ROUTES_NAMESPACE": "platform-routes"}


pytestmark = pytest.mark.usefixtures("required")


@pytest.fixture
def required(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what has no default."""
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def test_redis_address_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mounted Secret carries plain names; the environment wins where both are there; no text shows the password."""
    (tmp_path / "redis_url").write_text("redis://gateway:password@redis:6379\n")
    monkeypatch.setenv("GATEWAY_SECRETS_DIR", str(tmp_path))
    settings = Settings()
    assert settings.redis_url == "redis://gateway:password@redis:6379"
    assert "password" not in repr(settings)
    monkeypatch.setenv("GATEWAY_REDIS_URL", "redis://other")
    assert Settings().redis_url == "redis://other"


def test_the_ledgers_address_holds_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from a file like that of Redis, and no text shows it; without one the ledger stays in Redis."""
    assert Settings().ledger_url == ""
    (tmp_path / "ledger_url").write_text("postgresql://assistant_ledger_app:password@pg/assistant_ledger\n")
    monkeypatch.setenv("GATEWAY_SECRETS_DIR", str(tmp_path))
    assert Settings().ledger_url == "postgresql://assistant_ledger_app:password@pg/assistant_ledger"
    assert "password" not in repr(Settings())


@pytest.mark.parametrize(
    "name", ["GATEWAY_LEDGER_DRAIN_SECONDS", "GATEWAY_LEDGER_COMPARE_SECONDS", "GATEWAY_REDIS_ANSWER_SECONDS"]
)
def test_an_interval_is_longer_than_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero would be a loop without a pause."""
    monkeypatch.setenv(name, "0")
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://10.0.0.1:6443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "https://[fd00::1]:443"),
        ({"GATEWAY_KUBERNETES_URL": "https://api.example/"}, "https://api.example"),
    ],
)
def test_cluster_is_the_one_the_pod_runs_in(variables: dict, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a setting the pod's own environment says where the API server is."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings().cluster_url() == url


def test_outside_of_a_pod_the_cluster_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is guessed."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ValueError, match="GATEWAY_KUBERNETES_URL"):
        Settings().cluster_url()
