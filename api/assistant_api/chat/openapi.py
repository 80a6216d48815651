"""The OpenAPI description of chat completions, written by hand because the body is passed on, not parsed."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, RequestBody, Schema

_MESSAGE = Schema(
    type=OpenAPIType.OBJECT,
    required=["role"],
    properties={
        "role": Schema(enum=["system", "developer", "user", "assistant", "tool", "function"]),
        "content": Schema(description="Text, or a list of parts."),
    },
)
_REQUEST = Schema(
    type=OpenAPIType.OBJECT,
    required=["model", "messages"],
    description="OpenAI's chat completion request; members not listed here reach the model unchanged.",
    properties={
        "model": Schema(type=OpenAPIType.STRING, description="The assistant's name."),
        "messages": Schema(type=OpenAPIType.ARRAY, min_items=1, items=_MESSAGE),
        "stream": Schema(type=OpenAPIType.BOOLEAN),
        "stream_options": Schema(
            type=OpenAPIType.OBJECT, properties={"include_usage": Schema(type=OpenAPIType.BOOLEAN)}
        ),
        "temperature": Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=2),
        "top_p": Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=1),
        "n": Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=128),
        "max_completion_tokens": Schema(type=OpenAPIType.INTEGER, minimum=1),
        "user": Schema(
            type=OpenAPIType.STRING, description="Whose usage this is in `GET /v1/usage`; without it the API key's."
        ),
    },
)
_ANSWER = OpenAPIResponse(
    description="A chat completion, or server-sent events of its chunks. Sources are `file_citation` annotations.",
    content={
        "application/json": OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT)),
        "text/event-stream": OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING)),
    },
)


@dataclass
class ChatOperation(Operation):
    """The operation with its body and its two kinds of answers."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=_REQUEST)})
        self.responses = {**(self.responses or {}), "200": _ANSWER}
