"""The settings of the API and of its worker, read once at start: environment variables `API_*` and mounted Secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

MOUNTED_SECRETS = Path("/etc/assistant/stores")


def _locales_dir() -> Path:
    # In the image the folder lies beside the package; in a clone it lies beside the room.
    here = Path(__file__).resolve()
    return next(
        (path / "locales" for path in here.parents[1:3] if (path / "locales").is_dir()), here.parent / "locales"
    )


class Settings(BaseSettings):
    """Everything a pod is told at start; what changes while it runs is in `TenantConfig`.

    The credentials of the stores may be environment variables too (tests, a terminal), but a pod gets them as files
    in `secrets_dir`, named as the fields: they then show up in no process list and no `kubectl describe`.
    """

    model_config = SettingsConfigDict(env_prefix="API_", extra="ignore", frozen=True)

    config_file: Path = Path("/etc/assistant/config/tenant.json")
    secrets_dir: Path = MOUNTED_SECRETS
    gateway_token_file: Path = Path("/var/run/secrets/assistant-gateway/token")
    locales_dir: Path = Field(default_factory=_locales_dir)

    host: str = "0.0.0.0"  # noqa: S104  a pod listens on every address; NetworkPolicy decides who reaches it
    port: int = 8080
    metrics_port: int = 9090
    log_format: Literal["json", "console"] = "json"
    log_level: str = "INFO"

    shutdown_seconds: float = Field(25.0, ge=0)  # how long running streams may go on after SIGTERM
    drain_seconds: float = Field(1.0, ge=0)  # how long new connections are still taken, until Endpoints have changed

    postgres_dsn: SecretStr
    redis_url: SecretStr
    weaviate_url: str
    weaviate_grpc: str  # host:port
    weaviate_api_key: SecretStr

    # Missing in the Secret of an older release: people cannot sign in then.
    signing_key: SecretStr | None = None  # seed of the Ed25519 key of access tokens, base64url
    audit_key: SecretStr | None = None  # of the audit log's HMACs, base64url
    admin_dir: Path = Path("/etc/assistant/admin")  # files `email` and `password` of the first owner

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take explicit values first, then the environment, then files in the folder that those two name."""
        del dotenv_settings, file_secret_settings
        named: dict[str, object] = {**env_settings(), **init_settings()}
        folder = Path(str(named.get("secrets_dir", MOUNTED_SECRETS)))
        if not folder.is_dir():
            return init_settings, env_settings
        # No prefix: the files are the keys of the Secret.
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=folder, env_prefix="")


def load() -> Settings:
    """Return the settings of this process; a missing one is named in the error, its value never is."""
    return Settings()  # type: ignore[call-arg]  # the values come from the sources above
