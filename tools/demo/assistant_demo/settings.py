"""Which model answers in the demo, read from the environment once.

A key for OpenAI or the address of any OpenAI-compatible server is used when it is there; otherwise the stand-in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from assistant_demo import multilingual
from assistant_demo.errors import DemoError
from assistant_demo.model_server import CHAT_MODEL, DEFAULT_DIMENSIONS, EMBEDDING_MODEL

STAND_IN_NAMESPACE = "assistant-demo-model"
STAND_IN_SERVICE = "assistant-model-server"
STAND_IN_PORT = 8000
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - names, nothing is bound


@dataclass(frozen=True)
class Model:
    """A provider of the catalogue, and the names of the models that the demo uses."""

    provider: str
    url: str
    chat: str
    embedding: str
    dimensions: int
    key: str | None = None  # a secret; None: none is sent, or for the stand-in one is made up
    sends_dimensions: bool = True

    @property
    def stand_in(self) -> bool:
        """Whether this is the offline stand-in."""
        return self.chat == CHAT_MODEL

    @property
    def port(self) -> int:
        """The port the gateway must be able to reach."""
        address = urlsplit(self.url)
        return address.port or (443 if address.scheme == "https" else 80)

    def catalogue_entry(self) -> dict[str, Any]:
        """The provider as the chart's value `providers` takes it."""
        entry: dict[str, Any] = {"url": self.url}
        if self.key or self.stand_in:
            entry["keyRef"] = self.provider
        if self.stand_in:  # it costs nothing, and budgets can be tried with it
            entry["models"] = {"*": {"inputPerMillion": "0", "outputPerMillion": "0"}}
            entry["embeddingInputTypes"] = {"search": "query", "ingest": "passage"}
        return entry if self.sends_dimensions else entry | {"embeddingDimensions": False}

    def __str__(self) -> str:
        if self.stand_in:
            return "an offline stand-in (it quotes the documents; it is no language model)"
        return f"{self.chat} and {self.embedding} at {self.url}"


STAND_IN = Model(
    provider="demo",
    url=f"http://{STAND_IN_SERVICE}.{STAND_IN_NAMESPACE}.svc:{STAND_IN_PORT}/v1",
    chat=CHAT_MODEL,
    embedding=EMBEDDING_MODEL,
    dimensions=DEFAULT_DIMENSIONS,
)
# The same server with embeddings of meaning, where its image holds them.
MULTILINGUAL = replace(STAND_IN, embedding=multilingual.NAME, dimensions=multilingual.DIMENSIONS)


class ModelSettings(BaseSettings):
    """The environment variables that choose the model; an empty one counts as absent."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    openai_api_key: SecretStr | None = None
    demo_model_url: str | None = None
    demo_model_key: SecretStr | None = None
    demo_model_name: str | None = None
    demo_embedding_name: str | None = None
    demo_embedding_dimensions: int | None = None

    def model(self) -> Model:
        """Return the chosen model; `DEMO_MODEL_URL` wins over `OPENAI_API_KEY`."""
        if self.demo_model_url:
            return self._own_server(self.demo_model_url)
        if self.openai_api_key:
            return Model(
                provider="openai",
                url="https://api.openai.com/v1",
                chat=self.demo_model_name or "gpt-4.1-mini",
                embedding=self.demo_embedding_name or "text-embedding-3-small",
                dimensions=self.demo_embedding_dimensions or 1536,
                key=self.openai_api_key.get_secret_value(),
            )
        return STAND_IN if self.demo_embedding_name == STAND_IN.embedding else MULTILINGUAL

    def _own_server(self, url: str) -> Model:
        host = urlsplit(url).hostname
        if urlsplit(url).scheme not in {"http", "https"} or not host:
            raise DemoError(f"DEMO_MODEL_URL is {url!r}; it must look like http://192.0.2.7:11434/v1.")
        if host in LOCAL_HOSTS:
            raise DemoError(
                f"DEMO_MODEL_URL names {host}, which inside a pod is the pod itself. Give an address of this machine "
                "that others can reach, and let the server listen there (Ollama: OLLAMA_HOST=0.0.0.0)."
            )
        if not (self.demo_model_name and self.demo_embedding_name and self.demo_embedding_dimensions):
            raise DemoError(
                "With DEMO_MODEL_URL, set DEMO_MODEL_NAME, DEMO_EMBEDDING_NAME and DEMO_EMBEDDING_DIMENSIONS too, for "
                "example llama3.2, nomic-embed-text and 768."
            )
        return Model(
            provider="demo",
            url=url.rstrip("/"),
            chat=self.demo_model_name,
            embedding=self.demo_embedding_name,
            dimensions=self.demo_embedding_dimensions,
            key=self.demo_model_key.get_secret_value() if self.demo_model_key else None,
            sends_dimensions=False,
        )
