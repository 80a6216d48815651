"""`GET /v1/models` of the OpenAI wire format, with two members of ours."""

from __future__ import annotations

from typing import Literal

import msgspec


class Model(msgspec.Struct, frozen=True):
    """One assistant; `id` is what clients send as `model`."""

    id: str
    created: int
    owned_by: str
    display_name: str
    description: str
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct, frozen=True):
    """Every assistant of the tenant, by name."""

    data: list[Model]
    object: Literal["list"] = "list"
