"""Look up assistants in the configuration in use."""

from __future__ import annotations

from assistant_api.assistants.schemas import Model, ModelList
from assistant_api.errors import ASSISTANT_NOT_READY, MODEL_NOT_FOUND, ApiError, Reason
from assistant_api.tenant_config import ActiveConfig
from assistant_crds.contracts import AssistantConfig

NOT_READY_SECONDS = 5.0  # until it is worth asking again


def find(active_config: ActiveConfig, name: str) -> AssistantConfig:
    """Return the assistant called `name`.

    Raises:
        ApiError: 503 with the reason, when it exists and cannot be asked; otherwise the 404 that OpenAI clients know as
            NotFoundError.
    """
    assistant = active_config.assistants.get(name)
    if assistant is None:
        if (absent := active_config.unavailable.get(name)) is not None:
            why = Reason("unavailable", {"reason": absent.reason, "message": absent.message})
            raise ApiError(ASSISTANT_NOT_READY, field="model", retry_after=NOT_READY_SECONDS, model=name, reason=why)
        raise ApiError(MODEL_NOT_FOUND, field="model", model=name[:100])
    return assistant


def model(active_config: ActiveConfig, assistant: AssistantConfig) -> Model:
    """Return an assistant as a model."""
    return Model(
        id=assistant.name,
        created=assistant.created,
        owned_by=active_config.document.tenant.namespace,
        display_name=assistant.display_name,
        description=assistant.description,
    )


def models(active_config: ActiveConfig) -> ModelList:
    """Return every assistant as a model, sorted by name."""
    return ModelList(
        data=[model(active_config, active_config.assistants[name]) for name in sorted(active_config.assistants)]
    )
