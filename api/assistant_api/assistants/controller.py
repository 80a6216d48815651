"""`/v1/models`."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from assistant_api.assistants import service
from assistant_api.assistants.schemas import Model, ModelList
from assistant_api.tenant_config import Served


class ModelController(Controller):
    """The assistants that the caller may ask."""

    path = "/models"
    tags = ["OpenAI"]

    @get("/", summary="List the assistants", sync_to_thread=False)
    def list_models(self, served: NamedDependency[Served]) -> ModelList:
        """Return every assistant of this tenant."""
        return service.models(served)

    @get("/{name:str}", summary="Get one assistant", sync_to_thread=False)
    def get_model(self, served: NamedDependency[Served], name: FromPath[str]) -> Model:
        """Return the assistant called `name`."""
        return service.model(served, service.find(served, name))
