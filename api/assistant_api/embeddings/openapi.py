"""The OpenAPI description of embeddings, written by hand because the body is passed on, not parsed."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)

from assistant_api.embeddings.schemas import MAX_INPUTS, MAX_TOKENS

_LARGEST = 2**53  # beyond it, numbers of JSON are not the same to everybody
_NUMBER = Schema(type=OpenAPIType.INTEGER, minimum=0)
_TEXT = Schema(type=OpenAPIType.STRING, min_length=1)
_TOKENS = Schema(
    type=OpenAPIType.ARRAY,
    min_items=1,
    max_items=MAX_TOKENS,
    items=Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=_LARGEST),
)
_REQUEST = Schema(
    type=OpenAPIType.OBJECT,
    required=["model", "input"],
    description="OpenAI's request; members not listed here reach the model unchanged.",
    properties={
        "model": Schema(type=OpenAPIType.STRING, min_length=1, description="A knowledge base's name."),
        "input": Schema(
            description="A text, several texts, the tokens of a text, or those of several.",
            any_of=[
                _TEXT,
                Schema(type=OpenAPIType.ARRAY, min_items=1, max_items=MAX_INPUTS, items=_TEXT),
                _TOKENS,
                Schema(type=OpenAPIType.ARRAY, min_items=1, max_items=MAX_INPUTS, items=_TOKENS),
            ],
        ),
        "encoding_format": Schema(enum=["float", "base64"], default="float"),
        "dimensions": Schema(
            type=OpenAPIType.INTEGER, minimum=1, maximum=_LARGEST, description="Only what the knowledge base has."
        ),
        "user": Schema(
            type=OpenAPIType.STRING, description="Whose usage this is in `GET /v1/usage`; without it the API key's."
        ),
    },
)
_EMBEDDING = Schema(
    type=OpenAPIType.OBJECT,
    required=["embedding"],
    properties={
        "object": Schema(const="embedding"),
        "index": _NUMBER,
        "embedding": Schema(
            description="Numbers; in `base64` little-endian numbers of 32 bits.",
            any_of=[
                Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.NUMBER)),
                Schema(type=OpenAPIType.STRING),
            ],
        ),
    },
)
_LIST = Schema(
    type=OpenAPIType.OBJECT,
    required=["data"],
    properties={
        "object": Schema(const="list"),
        "data": Schema(type=OpenAPIType.ARRAY, items=_EMBEDDING),
        "model": Schema(type=OpenAPIType.STRING, description="The model behind the knowledge base."),
        "usage": Schema(type=OpenAPIType.OBJECT),
    },
)
_ANSWER = OpenAPIResponse(
    description="One vector for each input.", content={"application/json": OpenAPIMediaType(schema=_LIST)}
)


@dataclass
class EmbeddingsOperation(Operation):
    """The operation with its body and its answer."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=_REQUEST)})
        self.responses = {**(self.responses or {}), "200": _ANSWER}
