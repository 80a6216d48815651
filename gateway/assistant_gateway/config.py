"""The gateway's settings, read once at start from the environment and from mounted Secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Settings(BaseSettings):
    """Environment variables with the prefix `GATEWAY_`; files in `GATEWAY_SECRETS_DIR` are named like the settings."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", frozen=True, extra="ignore")

    namespace: str  # the platform's: the operator that may ask for probes lives there
    routes_namespace: str
    catalog_file: Path = Path("/etc/assistant/catalog/catalog.yaml")
    provider_keys_dir: Path = Path("/etc/assistant/provider-keys")
    redis_url: str = Field(default="", repr=False)  # "": every limit is local to the process
    redis_answer_seconds: float = Field(default=0.1, gt=0)  # a call whose answer takes longer is limited locally
    ledger_url: str = Field(default="", repr=False)  # Postgres; "": the ledger stays in Redis
    ledger_drain_seconds: float = Field(default=1.0, gt=0)  # how often entries are moved from Redis to Postgres
    ledger_compare_seconds: float = Field(default=300.0, gt=0)  # how often ledger and counters are compared

    host: str = ""  # "": all addresses, IPv4 and IPv6
    port: int = 8081
    metrics_port: int = 9090

    kubernetes_url: str = ""  # "": the cluster the pod runs in
    kubernetes_credentials_dir: Path = SERVICE_ACCOUNT_DIR  # files `token` and `ca.crt`
    issuer_url: str = ""  # expected `iss` of tokens; "": asked of the cluster

    max_request_bytes: int = 10 * 2**20
    max_answer_bytes: int = 32 * 2**20  # of answers that are not streamed
    max_event_bytes: int = 8 * 2**20  # of one streamed event
    max_stream_bytes: int = 64 * 2**20  # of one stream in all
    # Bodies and answers in flight of all tenants together; one tenant holds at most what is left free for the others.
    memory_bytes: int = Field(default=72 * 2**20, ge=2**20)
    drain_seconds: float = 5.0  # not ready, still serving: until every client has heard of it
    stream_seconds: float = 30.0  # the longest that shutting down waits for running answers

    log_format: Literal["json", "console"] = "json"
    log_level: str = "INFO"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # part of the signature
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take secrets from files without the prefix, as Secrets are mounted under the settings' plain names."""
        folder = os.environ.get("GATEWAY_SECRETS_DIR")
        if not folder:
            return init_settings, env_settings
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=folder, env_prefix="")

    def cluster_url(self) -> str:
        """Return the Kubernetes API server's address.

        Raises:
            ValueError: it is not set and the process does not run in a pod.
        """
        if self.kubernetes_url:
            return self.kubernetes_url.rstrip("/")
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
        if not host:
            raise ValueError("GATEWAY_KUBERNETES_URL is not set, and this is not a pod (no KUBERNETES_SERVICE_HOST)")
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
