"""Whether a whole answer is what was asked for, and what it says of its usage."""

from __future__ import annotations

import msgspec

from assistant_gateway import errors
from assistant_gateway.providers import openai_wire
from assistant_gateway.providers.catalog import Target
from assistant_gateway.wire import chunks
from assistant_gateway.wire.decoding import UNREADABLE, is_array
from assistant_gateway.wire.usage import Usage, chunk_of
from assistant_http.events import Event


class _Chat(msgspec.Struct, frozen=True):
    choices: msgspec.Raw


class _Embeddings(msgspec.Struct, frozen=True):
    data: msgspec.Raw


_chat = msgspec.json.Decoder(_Chat)
_embeddings = msgspec.json.Decoder(_Embeddings)


def checked(raw: bytes, target: Target, *, embedding: bool) -> Usage | None:
    """Return the usage of an answer that is what it should be.

    Raises:
        GatewayError: 502: it is something else.
    """
    decoder: msgspec.json.Decoder[_Embeddings] | msgspec.json.Decoder[_Chat] = _embeddings if embedding else _chat
    try:
        decoded = decoder.decode(raw)
        if not is_array(decoded.data if isinstance(decoded, _Embeddings) else decoded.choices):
            raise msgspec.ValidationError("not an array")  # as if the decoder had said so
        chunk = chunk_of(raw)
        if not embedding and b'"error"' in raw:
            _check_broken(raw, target)
    except UNREADABLE:
        detail = openai_wire.error_detail(target, raw)
        if detail is not None:  # some answer 200 and put the error inside
            raise openai_wire.hidden(target, detail) from None
        what = "embeddings" if decoder is _embeddings else "a chat completion"
        raise errors.provider_error(target.provider, f"answered with something that is not {what}").paid() from None
    return chunk.reported() if chunk is not None else None


def _check_broken(raw: bytes, target: Target) -> None:
    """Refuse an answer that has choices and an error nevertheless: half an answer, or none.

    Raises:
        GatewayError: what the error means.
    """
    document = chunks.document_of(raw)
    if document is None:
        return
    found = chunks.error_of(Event(raw), document)
    if found is None and chunks.said(document).broken:
        found = b'{"error": {"message": "it broke the answer off"}}'
    if found is not None:
        raise openai_wire.in_event(target, found, midway=False)
