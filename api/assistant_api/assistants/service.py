"""Look up assistants in the configuration in use."""

from __future__ import annotations

from assistant_api.assistants.schemas import Model, ModelList
from assistant_api.errors import ASSISTANT_NOT_READY, MODEL_NOT_FOUND, ApiError, Reason
from assistant_api.tenant_config import Served
from assistant_crds.contracts import AssistantConfig

NOT_READY_SECONDS = 5.0  # until it is worth asking again


def find(served: Served, name: str) -> AssistantConfig:
    """Return the assistant called `name`.

    Raises:
        ApiError: 503 with the reason, when it exists and cannot be asked; otherwise the 404 that OpenAI clients know as
            NotFoundError.
    """
    assistant = served.assistants.get(name)
    if assistant is None:
        if (absent := served.unavailable.get(name)) is not None:
            why = Reason("unavailable", {"reason": absent.reason, "message": absent.message})
            raise ApiError(ASSISTANT_NOT_READY, field="model", retry_after=NOT_READY_SECONDS, model=name, reason=why)
        raise ApiError(MODEL_NOT_FOUND, field="model", model=name[:100])
    return assistant


def model(served: Served, assistant: AssistantConfig) -> Model:
    """Return an assistant as a model."""
    return Model(
        id=assistant.name,
        created=assistant.created,
        owned_by=served.document.tenant.namespace,
        display_name=assistant.display_name,
        description=assistant.description,
    )


def models(served: Served) -> ModelList:
    """Return every assistant as a model, sorted by name."""
    return ModelList(data=[model(served, served.assistants[name]) for name in sorted(served.assistants)])
