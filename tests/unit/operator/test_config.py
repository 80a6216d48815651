"""Settings come from the environment, credentials from files."""

import pytest
from pydantic import ValidationError

from assistant_crds.contracts import Budget
from assistant_operator import config

REQUIRED = {
    "NAMESPACE": "assistant-platform",
    "ROUTES_NAMESPACE": "assistant-platform-routes",
    "MIGRATIONS_DIR": "/app/migrations",
    "TENANT_POSTGRES": "pg:5432",
    "TENANT_REDIS": "redis:6379",
    "TENANT_WEAVIATE_URL": "http://w:8080",
    "TENANT_WEAVIATE_GRPC": "w:50051",
    "GATEWAY_URL": "http://g:8081",
    "API_IMAGE": "api:1",
}
SECRETS = {
    "postgres_dsn": "postgresql://o:secret@pg/postgres",
    "redis_url": "redis://o:secret@redis/0",
    "weaviate_url": "http://w:8080",
    "weaviate_grpc": "w:50051",
    "weaviate_api_key": "root-secret",
}


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name, value in REQUIRED.items():
        monkeypatch.setenv(f"OPERATOR_{name}", value)
    for name, value in SECRETS.items():
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setenv("OPERATOR_SECRETS_DIR", str(tmp_path))
    return monkeypatch


def test_credentials_are_read_from_files(environment):
    """Files of the mounted Secret are settings, without the line end that editors leave."""
    settings = config.load()
    assert settings.postgres_dsn.get_secret_value() == SECRETS["postgres_dsn"]
    assert settings.weaviate_api_key.get_secret_value() == "root-secret"


def test_a_setting_that_is_missing_is_named(environment):
    """The operator does not start half configured."""
    environment.delenv("OPERATOR_GATEWAY_URL")
    with pytest.raises(ValidationError, match="gateway_url"):
        config.load()


def test_structured_settings_are_json(environment):
    """Resources and networks are given as the chart writes them."""
    environment.setenv("OPERATOR_DEFAULT_RESOURCES", '{"requests": {"cpu": "1"}, "limits": {}}')
    environment.setenv("OPERATOR_EGRESS", '[{"cidr": "10.0.0.0/8", "ports": [5432]}]')
    settings = config.load()
    assert settings.default_resources.requests == {"cpu": "1"}
    assert settings.egress[0].ports == [5432]


def test_secrets_do_not_show(environment):
    """Printing the settings gives nothing away."""
    text = repr(config.load())
    assert "root-secret" not in text
    assert ":secret@" not in text


def test_default_limits_are_read_as_the_chart_writes_them(environment):
    """Money becomes micro-units; an amount left empty is no budget."""
    assert config.load().budget is None
    environment.setenv("OPERATOR_DEFAULT_BUDGET", '{"amount": "", "currency": "USD", "period": "Month"}')
    assert config.load().budget is None
    environment.setenv("OPERATOR_DEFAULT_BUDGET", '{"amount": "25.10", "currency": "USD", "period": "Day"}')
    environment.setenv("OPERATOR_DEFAULT_TIME_ZONE", "Europe/Berlin")
    settings = config.load()
    assert settings.budget == Budget(amount_micros=25_100_000, currency="USD", period="Day")
    assert settings.default_time_zone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("TIME_ZONE", "Mars/Olympus", "such as Europe/Berlin"),
        ("BUDGET", '{"amount": "1,5"}', 'such as "25.00"'),
        ("BUDGET", '{"amount": "1", "currency": "EUR"}', "USD"),
        ("FAILURE_POLICY", "Open", "Closed"),
    ],
)
def test_default_limits_that_make_no_sense_stop_the_start(environment, name, value, sentence):
    """Nobody is served under limits other than those that were meant."""
    environment.setenv(f"OPERATOR_DEFAULT_{name}", value)
    with pytest.raises(ValidationError, match=sentence):
        config.load()
