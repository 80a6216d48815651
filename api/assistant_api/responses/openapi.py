"""The OpenAPI description of the Responses API, written by hand: its items are read one by one, not by a type."""

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

_LARGEST = 2**53  # beyond it, numbers of JSON are not the same to everybody
_COUNT = Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=_LARGEST)
_TEXT = Schema(type=OpenAPIType.STRING)
_OBJECT = Schema(type=OpenAPIType.OBJECT)
_FLAG = Schema(type=OpenAPIType.BOOLEAN)
_ITEM = Schema(
    type=OpenAPIType.OBJECT,
    description="A `message` (without a type too), a `function_call` or a `function_call_output`, as OpenAI has them.",
    properties={"type": Schema(enum=["message", "function_call", "function_call_output"])},
)
_FUNCTION = Schema(
    type=OpenAPIType.OBJECT,
    required=["type", "name"],
    additional_properties=False,
    properties={
        "type": Schema(const="function"),
        "name": Schema(type=OpenAPIType.STRING, min_length=1),
        "description": _TEXT,
        "parameters": _OBJECT,
        "strict": _FLAG,
    },
)
_FORMAT = Schema(
    type=OpenAPIType.OBJECT,
    required=["type"],
    additional_properties=False,
    properties={
        "type": Schema(enum=["text", "json_object", "json_schema"]),
        "name": _TEXT,
        "schema": _OBJECT,
        "description": _TEXT,
        "strict": _FLAG,
    },
)
_REQUEST = Schema(
    type=OpenAPIType.OBJECT,
    required=["model", "input"],
    additional_properties=False,
    description="OpenAI's request; what is not listed here is refused by name.",
    properties={
        "model": Schema(type=OpenAPIType.STRING, min_length=1, description="The assistant's name."),
        "input": Schema(
            any_of=[
                Schema(type=OpenAPIType.STRING, min_length=1),
                Schema(type=OpenAPIType.ARRAY, min_items=1, items=_ITEM),
            ]
        ),
        "instructions": Schema(type=OpenAPIType.STRING, description="Of this response, after the assistant's."),
        "previous_response_id": Schema(type=OpenAPIType.STRING, description="A stored response to go on from."),
        "store": Schema(type=OpenAPIType.BOOLEAN, default=True),
        "stream": _FLAG,
        "metadata": Schema(
            type=OpenAPIType.OBJECT,
            max_properties=16,
            property_names=Schema(type=OpenAPIType.STRING, min_length=1, max_length=64),
            additional_properties=Schema(type=OpenAPIType.STRING, max_length=512),
        ),
        "max_output_tokens": _COUNT,
        "temperature": Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=2),
        "top_p": Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=1),
        "tools": Schema(type=OpenAPIType.ARRAY, items=_FUNCTION),
        "tool_choice": Schema(
            any_of=[
                Schema(enum=["none", "auto", "required"]),
                Schema(
                    type=OpenAPIType.OBJECT,
                    required=["type", "name"],
                    additional_properties=False,
                    properties={
                        "type": Schema(const="function"),
                        "name": Schema(type=OpenAPIType.STRING, min_length=1),
                    },
                ),
            ]
        ),
        "parallel_tool_calls": _FLAG,
        "reasoning": Schema(type=OpenAPIType.OBJECT, additional_properties=False, properties={"effort": _TEXT}),
        "text": Schema(
            type=OpenAPIType.OBJECT,
            additional_properties=False,
            properties={"format": _FORMAT, "verbosity": _TEXT},
        ),
        "include": Schema(type=OpenAPIType.ARRAY, items=Schema(const="reasoning.encrypted_content")),
        "truncation": Schema(const="disabled"),
        "background": Schema(const=False),
        "stream_options": Schema(
            type=OpenAPIType.OBJECT, additional_properties=False, properties={"include_obfuscation": _FLAG}
        ),
        "user": _TEXT,
        "safety_identifier": _TEXT,
        "prompt_cache_key": _TEXT,
        "service_tier": _TEXT,
    },
)
_RESPONSE = Schema(
    type=OpenAPIType.OBJECT,
    required=["id", "object", "created_at", "status", "model", "output"],
    properties={
        "id": Schema(type=OpenAPIType.STRING, pattern="^resp_[0-9a-f]{32}$"),
        "object": Schema(const="response"),
        "created_at": Schema(type=OpenAPIType.INTEGER),
        "status": Schema(enum=["completed", "incomplete", "failed"]),
        "model": _TEXT,
        "output": Schema(
            type=OpenAPIType.ARRAY,
            items=Schema(
                type=OpenAPIType.OBJECT,
                required=["id", "type", "status"],
                properties={"id": _TEXT, "type": Schema(enum=["message", "function_call"]), "status": _TEXT},
            ),
        ),
        "store": _FLAG,
        "usage": Schema(type=[OpenAPIType.OBJECT, OpenAPIType.NULL]),
    },
)
_LIST = Schema(
    type=OpenAPIType.OBJECT,
    required=["object", "data", "first_id", "last_id", "has_more"],
    properties={
        "object": Schema(const="list"),
        "data": Schema(type=OpenAPIType.ARRAY, items=_OBJECT),
        "first_id": _TEXT,
        "last_id": _TEXT,
        "has_more": _FLAG,
    },
)
_DELETED = Schema(
    type=OpenAPIType.OBJECT,
    required=["id", "object", "deleted"],
    properties={"id": _TEXT, "object": Schema(const="response"), "deleted": Schema(const=True)},
)


def _json(description: str, schema: Schema) -> OpenAPIResponse:
    return OpenAPIResponse(description=description, content={"application/json": OpenAPIMediaType(schema=schema)})


@dataclass
class CreateOperation(Operation):
    """The operation with its body and its two kinds of answers."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=_REQUEST)})
        answer = OpenAPIResponse(
            description="A response, or server-sent events of how it comes into being.",
            content={
                "application/json": OpenAPIMediaType(schema=_RESPONSE),
                "text/event-stream": OpenAPIMediaType(schema=_TEXT),
            },
        )
        self.responses = {**(self.responses or {}), "200": answer}


@dataclass
class GetOperation(Operation):
    """The operation with its answer."""

    def __post_init__(self) -> None:
        self.responses = {**(self.responses or {}), "200": _json("The response as it was answered.", _RESPONSE)}


@dataclass
class ItemsOperation(Operation):
    """The operation with its answer."""

    def __post_init__(self) -> None:
        self.responses = {**(self.responses or {}), "200": _json("The items.", _LIST)}


@dataclass
class DeleteOperation(Operation):
    """The operation with its answer."""

    def __post_init__(self) -> None:
        self.responses = {**(self.responses or {}), "200": _json("It is gone.", _DELETED)}
