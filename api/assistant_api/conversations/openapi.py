"""The bodies of requests about conversations, which are read by this package and not by the framework."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)

from assistant_api.asgi import JSON
from assistant_api.chat.stream import EVENT_STREAM
from assistant_api.conversations.schemas import MAX_COMMENT, MAX_TITLE

_NO_NUL = r"^[^\x00]*$"
_TITLE = Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL], min_length=1, max_length=MAX_TITLE, pattern=_NO_NUL)
_FLAG = Schema(type=OpenAPIType.BOOLEAN)
_ID = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.UUID)


_CONTENT = Schema(type=OpenAPIType.STRING, min_length=1, pattern=_NO_NUL)
_EVENTS = Schema(
    type=OpenAPIType.STRING,
    description="Server-sent events: `message.started`, `message.delta` with `text`, and at the end"
    " `message.completed` or `message.failed` with the message.",
)
_MESSAGE = Reference(ref="#/components/schemas/MessageView")
_TURN = Schema(
    type=OpenAPIType.OBJECT,
    required=["user_message", "message"],
    properties={
        "user_message": Schema(any_of=[_MESSAGE, Schema(type=OpenAPIType.NULL)]),
        "message": _MESSAGE,
    },
)
_KEY = Parameter(
    name="Idempotency-Key",
    param_in="header",
    description="Names the request: sent again with the same name, it finds the answer that it began.",
    schema=Schema(type=OpenAPIType.STRING, min_length=1, max_length=255, pattern="^[ -~]+$"),
)
_LAST_EVENT = Parameter(
    name="Last-Event-ID",
    param_in="header",
    description="The number of the last event that was seen.",
    schema=Schema(type=OpenAPIType.STRING, pattern=r"^[0-9]{1,9}(\.end)?$"),
)


def _body(required: list[str], properties: dict[str, Schema]) -> RequestBody:
    schema = Schema(
        type=OpenAPIType.OBJECT, required=required or None, properties=dict(properties), additional_properties=False
    )
    return RequestBody(required=True, content={JSON: OpenAPIMediaType(schema=schema)})


def _taking(required: list[str], properties: dict[str, Schema]) -> type[Operation]:
    """Return an operation with a JSON object as its body."""

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = _body(required, properties)

    return WithBody


def _answering(required: list[str], properties: dict[str, Schema]) -> type[Operation]:
    """Return an operation that an assistant's answer comes of: whole, or as events."""

    @dataclass
    class WithAnswer(Operation):
        def __post_init__(self) -> None:
            if properties:
                self.request_body = _body(required, properties)
            self.parameters = [*(self.parameters or []), _KEY]
            turn = OpenAPIMediaType(schema=_TURN)
            content = {JSON: turn, EVENT_STREAM: OpenAPIMediaType(schema=_EVENTS)}
            answer = OpenAPIResponse(description="The answer, with what it answers.", content=content)
            self.responses = {**(self.responses or {}), "200": answer}

    return WithAnswer


@dataclass
class EventsOperation(Operation):
    """The events of an answer."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or []), _LAST_EVENT]
        self.responses = {
            **(self.responses or {}),
            "200": OpenAPIResponse(description="The events.", content={EVENT_STREAM: OpenAPIMediaType(schema=_EVENTS)}),
            "204": OpenAPIResponse(description="The last event has been seen."),
        }


@dataclass
class ExportOperation(Operation):
    """A conversation as a file."""

    def __post_init__(self) -> None:
        text = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
        content = {JSON: OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT)), "text/markdown": text}
        answer = OpenAPIResponse(description="The conversation.", content=content)
        self.responses = {**(self.responses or {}), "200": answer}


CreateOperation = _taking(
    ["assistant"],
    {"assistant": Schema(type=OpenAPIType.STRING, description="The assistant's name."), "title": _TITLE},
)
ChangeOperation = _taking([], {"title": _TITLE, "archived": _FLAG, "pinned": _FLAG})
ActivateOperation = _taking(["message_id"], {"message_id": _ID})
FeedbackOperation = _taking(
    ["rating"],
    {
        "rating": Schema(enum=["up", "down"]),
        "comment": Schema(
            type=[OpenAPIType.STRING, OpenAPIType.NULL], min_length=1, max_length=MAX_COMMENT, pattern=_NO_NUL
        ),
    },
)
MessageOperation = _answering(
    ["content"],
    {
        "content": _CONTENT,
        "parent_id": Schema(
            type=[OpenAPIType.STRING, OpenAPIType.NULL],
            format=OpenAPIFormat.UUID,
            description="The answer after which it is said; without one, the end of the active path.",
        ),
    },
)
EditOperation = _answering(["content"], {"content": _CONTENT})
RegenerateOperation = _answering([], {})
