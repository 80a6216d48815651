"""`/v1/models`."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from assistant_api.assistants import service
from assistant_api.assistants.schemas import Model, ModelList
from assistant_api.tenant_config import ActiveConfig


class ModelController(Controller):
    """The assistants that the caller may ask."""

    path = "/models"
    tags = ["OpenAI"]

    @get("/", summary="List the assistants", sync_to_thread=False)
    def list_models(self, active_config: NamedDependency[ActiveConfig]) -> ModelList:
        """Return every assistant of this tenant."""
        return service.models(active_config)

    @get("/{name:str}", summary="Get one assistant", sync_to_thread=False)
    def get_model(self, active_config: NamedDependency[ActiveConfig], name: FromPath[str]) -> Model:
        """Return the assistant called `name`."""
        return service.model(active_config, service.find(active_config, name))
