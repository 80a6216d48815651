"""The OpenAPI description of chat completions, written by hand because the body is passed on, not parsed."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)

_LARGEST = 2**53  # beyond it, numbers of JSON are not the same to everybody
_COUNT = Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=_LARGEST)
_TEXT = Schema(type=OpenAPIType.STRING)
_PART = Schema(
    type=OpenAPIType.OBJECT,
    required=["type"],
    properties={"type": _TEXT, "text": Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL])},
)
_MESSAGE = Schema(
    type=OpenAPIType.OBJECT,
    required=["role"],
    properties={
        "role": Schema(enum=["system", "developer", "user", "assistant", "tool", "function"]),
        "content": Schema(
            description="Text, or a list of parts.",
            any_of=[
                Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL]),
                Schema(type=OpenAPIType.ARRAY, items=_PART),
            ],
        ),
    },
)
_REQUEST = Schema(
    type=OpenAPIType.OBJECT,
    required=["model", "messages"],
    description="OpenAI's chat completion request; members not listed here reach the model unchanged.",
    properties={
        "model": Schema(type=OpenAPIType.STRING, min_length=1, description="The assistant's name."),
        "messages": Schema(type=OpenAPIType.ARRAY, min_items=1, items=_MESSAGE),
        "stream": Schema(type=OpenAPIType.BOOLEAN),
        "stream_options": Schema(
            type=OpenAPIType.OBJECT, properties={"include_usage": Schema(type=OpenAPIType.BOOLEAN)}
        ),
        "temperature": Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=2),
        "top_p": Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=1),
        "n": Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=128),
        "max_tokens": _COUNT,
        "max_completion_tokens": _COUNT,
        "stop": Schema(any_of=[_TEXT, Schema(type=OpenAPIType.ARRAY, items=_TEXT)]),
        "tools": Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.OBJECT)),
        "safety_identifier": Schema(type=OpenAPIType.STRING, description="As `user`, by OpenAI's newer name."),
        "user": Schema(
            type=OpenAPIType.STRING, description="Whose usage this is in `GET /v1/usage`; without it the API key's."
        ),
    },
)
_NUMBER = Schema(type=OpenAPIType.INTEGER, minimum=0)
_URL_CITATION = Schema(
    type=OpenAPIType.OBJECT,
    required=["start_index", "end_index", "url", "title"],
    description="Where the mark `[n]` is in the text, in code points, and what opens the passage behind it.",
    properties={"start_index": _NUMBER, "end_index": _NUMBER, "url": _TEXT, "title": _TEXT},
)
_FILE_CITATION = Schema(
    type=OpenAPIType.OBJECT,
    required=["index", "file_id", "filename", "page", "knowledge_base", "score", "quote"],
    properties={
        "index": _COUNT,
        "file_id": Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.UUID),
        "filename": _TEXT,
        "page": Schema(type=[OpenAPIType.INTEGER, OpenAPIType.NULL]),
        "knowledge_base": _TEXT,
        "score": Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=1),
        "quote": _TEXT,
    },
)
_ANNOTATION = Schema(
    type=OpenAPIType.OBJECT,
    required=["type"],
    description="A source. Ours have both members; those of a provider pass through.",
    properties={
        "type": Schema(type=OpenAPIType.STRING, description="url_citation"),
        "url_citation": _URL_CITATION,
        "file_citation": _FILE_CITATION,
    },
)
_CHOICE = Schema(
    type=OpenAPIType.OBJECT,
    required=["index", "message"],
    properties={
        "index": _NUMBER,
        "finish_reason": Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL]),
        "message": Schema(
            type=OpenAPIType.OBJECT,
            properties={
                "role": _TEXT,
                "content": Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL]),
                "annotations": Schema(type=[OpenAPIType.ARRAY, OpenAPIType.NULL], items=_ANNOTATION),
            },
        ),
    },
)
_COMPLETION = Schema(
    type=OpenAPIType.OBJECT,
    required=["choices"],
    description="OpenAI's chat completion; members not listed here are the model's.",
    properties={
        "id": _TEXT,
        "object": Schema(const="chat.completion"),
        "created": _NUMBER,
        "model": _TEXT,
        "choices": Schema(type=OpenAPIType.ARRAY, items=_CHOICE),
        "usage": Schema(type=[OpenAPIType.OBJECT, OpenAPIType.NULL]),
    },
)
_ANSWER = OpenAPIResponse(
    description="A chat completion, or server-sent events of its chunks. Sources are `url_citation` annotations.",
    content={
        "application/json": OpenAPIMediaType(schema=_COMPLETION),
        "text/event-stream": OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING)),
    },
)


@dataclass
class ChatOperation(Operation):
    """The operation with its body and its two kinds of answers."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=_REQUEST)})
        self.responses = {**(self.responses or {}), "200": _ANSWER}
