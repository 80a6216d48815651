"""Settings of the operator, read once at start from the environment and from mounted Secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, Field, PrivateAttr, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from assistant_crds import meta
from assistant_crds.contracts import Budget
from assistant_operator.tenant import limits

_SECRET_FILES = (
    "postgres_dsn",
    "postgres_ca",
    "ledger_url",
    "redis_url",
    "weaviate_url",
    "weaviate_grpc",
    "weaviate_api_key",
)


class ResourcesSetting(BaseModel):
    """Kubernetes quantities by resource name."""

    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class BudgetSetting(BaseModel):
    """Money per period; without an amount there is no budget."""

    amount: str = ""
    currency: Literal["USD"] = "USD"
    period: Literal["Day", "Month"] = "Month"


class EgressSetting(BaseModel):
    """A network outside the cluster that tenants' pods may reach: a managed store, for example."""

    cidr: str
    ports: list[int]


class Settings(BaseSettings):
    """Every setting has the environment variable `OPERATOR_<NAME>`; store credentials may also be files."""

    model_config = SettingsConfigDict(env_prefix="OPERATOR_", extra="ignore")
    _budget: Budget | None = PrivateAttr(default=None)

    namespace: str
    routes_namespace: str
    pod_name: str = Field(default_factory=lambda: os.environ.get("HOSTNAME", "operator"))
    lease_name: str = "assistant-operator"
    lease_seconds: int = Field(default=15, ge=5)

    postgres_dsn: SecretStr
    postgres_ca: str = ""  # PEM: the authority of its certificate, for tenants' pods; "": there is none of its own
    ledger_url: SecretStr = SecretStr("")  # as the gateway logs in; "": there is no ledger in Postgres
    ledger_migrations_dir: Path | None = None
    redis_url: SecretStr
    weaviate_url: str
    weaviate_grpc: str
    weaviate_api_key: SecretStr
    migrations_dir: Path

    # The same stores as tenants' pods reach them.
    tenant_postgres: str  # host:port
    tenant_redis: str  # host:port
    tenant_weaviate_url: str
    tenant_weaviate_grpc: str  # host:port
    egress: list[EgressSetting] = []

    gateway_url: str
    gateway_token_file: Path = Path("/var/run/secrets/assistant-gateway/token")
    catalog_file: Path = Path("/etc/assistant/catalog/catalog.yaml")

    api_image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    # Names of image pull Secrets in the tenants' own namespaces, for their pods.
    api_pull_secrets: list[str] = []
    otlp_endpoint: str = ""
    sample_ratio: float = Field(default=1, ge=0, le=1)  # of requests whose traces may be recorded
    default_requests_per_minute: int | None = 600
    default_tokens_per_day: int | None = None
    default_budget: BudgetSetting = BudgetSetting()
    default_time_zone: Annotated[str, AfterValidator(limits.time_zone)] = "UTC"
    default_failure_policy: Literal["Closed", "Bounded"] = "Closed"
    default_replicas: int = 1
    default_resources: ResourcesSetting = ResourcesSetting(
        requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "256Mi"}
    )
    default_worker_resources: ResourcesSetting = ResourcesSetting(
        requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "1Gi"}
    )

    resync_seconds: float = 300
    observe_seconds: float = 15
    health_seconds: float = 3
    workers: int = 8
    metrics_port: int = 9090
    log_format: Literal["json", "console"] = "json"
    log_level: str = "INFO"

    @model_validator(mode="after")
    def _read_budget(self) -> Settings:
        self._budget = None
        if self.default_budget.amount:
            self._budget = limits.parse(meta.Budget(**self.default_budget.model_dump()))
        return self

    @property
    def budget(self) -> Budget | None:
        """The default budget of a tenant, in micro-units."""
        return self._budget


def with_query(url: str, **more: str) -> str:
    """Return the URL with further parameters."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *more.items()], safe="/")))


def load() -> Settings:
    """Return the settings; files of the folder `OPERATOR_SECRETS_DIR` take precedence over the environment."""
    values: dict[str, Any] = {}
    folder = os.environ.get("OPERATOR_SECRETS_DIR")
    if folder:
        for name in _SECRET_FILES:
            file = Path(folder) / name
            if file.is_file():
                values[name] = file.read_text().strip()
        if values.get("postgres_ca") and "sslrootcert=" not in values.get("postgres_dsn", ""):
            values["postgres_dsn"] = with_query(values["postgres_dsn"], sslrootcert=str(Path(folder) / "postgres_ca"))
    return Settings(**values)
