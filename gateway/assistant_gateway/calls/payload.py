"""Request bodies: checked as far as the gateway needs, changed where the policy says, passed on otherwise.

The top level is taken apart into raw slices and put together again; what is inside messages, tools or schemas is
never decoded, so that a field this gateway has not heard of reaches the provider as it was written.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from assistant_gateway import errors
from assistant_gateway.calls import system_messages
from assistant_gateway.metering import lengths
from assistant_gateway.providers import kinds
from assistant_gateway.providers.catalog import ROUTING_FIELDS, Target
from assistant_gateway.tenants.routing import ChatRoute, Destination, EmbeddingRoute
from assistant_gateway.wire.decoding import LARGEST_DECODED, UNREADABLE, is_absent, is_filled_array
from assistant_gateway.wire.fields import Fields

_TRUE = msgspec.Raw(b"true")
# What something here, a limit or a price depends on, and the rest of OpenAI's members. Some servers take a
# name in another case for the same member (those in Go, and those that read JSON as protobuf does), and the last one
# wins: `Model` beside `model` would name another model than the one that was checked.
KNOWN = frozenset(
    {
        *("model", "messages", "input", "stream", "stream_options", "n", "best_of", "temperature", "top_p"),
        *("service_tier", "speed", "inference_geo", "tools", "tool_choice", "parallel_tool_calls", "functions"),
        *("function_call", "response_format", "stop", "seed", "user", "store", "metadata", "modalities", "audio"),
        *("prediction", "web_search", "web_search_options", "search_parameters", "previous_response_id", "documents"),
        *("presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "reasoning"),
        *("reasoning_effort", "verbosity", "dimensions", "encoding_format", "chat_template", "mm_processor_kwargs"),
        *("options", "prompt_cache_key", "safety_identifier", "thinking", "reasoning_format"),
        *lengths.STANDARD,
        *lengths.ALIASES,
        *lengths.ANSWERS,
        *ROUTING_FIELDS,
    }
)
_KNOWN_AS = {lengths.folded(name): name for name in KNOWN}
_fields = msgspec.json.Decoder(Fields)
_encode = msgspec.json.Encoder().encode

T = TypeVar("T")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_STR = msgspec.json.Decoder(str | None)
_BOOL = msgspec.json.Decoder(bool | None)
_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw] | None)
_GIVEN_OPTIONS = msgspec.json.Decoder(Fields | None)
_OPTIONS = msgspec.json.Decoder(_StreamOptions | None)


class Body(msgspec.Struct, frozen=True):
    """A request's body, taken apart."""

    fields: Fields
    model: str


def parse(raw: bytes | bytearray, required: str) -> Body:
    """Take a body apart; `required` names the field that has to be there besides `model`.

    Raises:
        GatewayError: 400, naming the field.
    """
    try:
        fields = _fields.decode(raw)
    except UNREADABLE:
        message = "The body is not a JSON object."
        raise errors.invalid_request(message, code="invalid_json") from None
    _check_names(fields)
    model = _field(fields, "model", _STR, "the name of an assistant, as a string")
    if not model:
        raise errors.invalid_request("'model' is required: the name of an assistant.", "model", code="missing_field")
    if is_absent(fields.get(required)):
        raise errors.invalid_request(f"{required!r} is required.", required, code="missing_field")
    return Body(fields, model)


def _check_names(fields: Fields) -> None:
    """Refuse members that some servers would take for another.

    Raises:
        GatewayError: 400, naming the member.
    """
    for name in fields:
        if name not in KNOWN and (meant := _KNOWN_AS.get(lengths.folded(name))) is not None:
            shown = name[:64]
            message = (
                f"{shown!r} differs from {meant!r} in case or punctuation only; some servers take both for the same."
            )
            raise errors.invalid_request(f"{message} Write it as {meant!r}.", shown, code="ambiguous_field")


def _field(fields: Fields, name: str, decoder: msgspec.json.Decoder[T], wanted: str) -> T | None:
    """Return one field decoded, None where it is absent or null.

    Raises:
        GatewayError: 400: it is something else.
    """
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except UNREADABLE:
        raise errors.invalid_request(f"{name!r} has to be {wanted}.", name) from None


class ChatBody(msgspec.Struct, frozen=True):
    """A chat request that was checked."""

    fields: Fields
    stream: bool
    wants_usage: bool  # whether the client asked for the event that carries usage

    def prepare(self, route: ChatRoute, to: Destination, target: Target) -> Fields:
        """Return the fields that go to one of the route's destinations.

        Raises:
            GatewayError: 400, naming a field that this provider must not be sent.
        """
        _check_routing(self.fields, target)
        fields = dict(self.fields)
        fields["model"] = to.model_json
        single = target.settings.single_system_message
        fields["messages"] = system_messages.merged(fields["messages"], everywhere=single)
        for name, value in route.defaults.items():
            if is_absent(fields.get(name)):
                fields[name] = value
        if route.max_output_tokens is not None and all(is_absent(fields.get(name)) for name in lengths.STANDARD):
            for name in lengths.STANDARD:
                fields.pop(name, None)
            fields[target.max_tokens_field] = route.max_output_tokens
        lengths.unify(fields, target.max_tokens_field, always=target.settings.max_tokens_field is not None)
        if not target.settings.stream_usage:
            fields.pop("stream_options", None)  # it says what a stream used without being asked, or never
        elif self.stream:  # written anew also where the client asks for usage: members may be there twice
            options = _field(fields, "stream_options", _GIVEN_OPTIONS, "an object with 'include_usage'") or {}
            others = {name: value for name, value in options.items() if lengths.folded(name) != "includeusage"}
            fields["stream_options"] = msgspec.Raw(_encode({**others, "include_usage": _TRUE}))
        return fields


def chat(body: Body) -> ChatBody:
    """Check what the gateway itself acts on.

    Raises:
        GatewayError: 400, naming the field.
    """
    if len(memoryview(body.fields["messages"])) > LARGEST_DECODED:  # not taken apart: it may have any number of items
        messages = is_filled_array(body.fields["messages"])
    else:
        messages = bool(_field(body.fields, "messages", _MESSAGES, "an array of messages"))
    if not messages:
        raise errors.invalid_request("'messages' has to hold at least one message.", "messages")
    stream = _field(body.fields, "stream", _BOOL, "true or false") or False
    options = _field(body.fields, "stream_options", _OPTIONS, "an object with 'include_usage'")
    return ChatBody(body.fields, stream, bool(options and options.include_usage))


def _check_routing(fields: Fields, target: Target) -> None:
    if ROUTING_FIELDS.isdisjoint(fields) or target.own:  # a tenant's own server is the tenant's own bill
        return
    for name in sorted(ROUTING_FIELDS.intersection(fields) - target.settings.allow_fields):
        if is_absent(fields.get(name)):
            continue
        message = (
            f"{name!r} could send the request to another model than this assistant's, so it is not passed on. Leave it "
            f"out, or ask the platform team to allow it (providers.{target.provider}.allowFields)."
        )
        raise errors.invalid_request(message, name, code="field_not_allowed")


def embeddings(body: Body, route: EmbeddingRoute, target: Target, purpose: str = "") -> Fields:
    """Return the fields that go to the provider; `purpose` sets `input_type` where the provider takes one.

    Raises:
        GatewayError: 400, naming a field that this provider must not be sent.
    """
    _check_routing(body.fields, target)
    fields = dict(body.fields)
    fields["model"] = route.to.model_json
    if target.settings.embedding_dimensions:
        fields["dimensions"] = route.dimensions
    else:
        fields.pop("dimensions", None)
    types = target.settings.embedding_input_types if target.settings.kind == kinds.NATIVE else None
    if types and (kind := types.of(purpose)):
        fields["input_type"] = msgspec.Raw(_encode(kind))
    return fields
