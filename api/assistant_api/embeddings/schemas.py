"""What is read of a request for embeddings; other members pass through, as in chat completions.

Source of the format: OpenAI's API reference, `embeddings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from assistant_api.errors import invalid_field

MAX_INPUTS = 2048  # of the format
# Of one input in tokens: what the largest embedding models take, several times over.
MAX_TOKENS = 32_768

LARGEST_TOKEN = 2**53  # beyond it, numbers of JSON are not the same to everybody
# 6.0 is a whole number, as JSON Schema means it; clients in JavaScript write no other.
Token = Annotated[int, Meta(ge=0, le=LARGEST_TOKEN)] | Annotated[float, Meta(ge=0, le=LARGEST_TOKEN)]
Encoding = Literal["float", "base64"]


class EmbeddingsRequest(msgspec.Struct):
    """A text, a list of texts, the tokens of one text, or those of several."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[str | Token | list[Token]]
    encoding_format: Encoding | None = None
    dimensions: Annotated[int, Meta(ge=1)] | Annotated[float, Meta(ge=1)] | None = None
    user: str | None = None

    @property
    def encoding(self) -> Encoding:
        """How the caller wants the vectors."""
        return self.encoding_format or "float"

    def check(self) -> None:
        """Refuse what no embedding model takes, before one is asked; ApiError names the field."""
        _check_whole(self.dimensions, "dimensions")
        inputs = [self.input] if isinstance(self.input, str) else self.input
        kinds = {_kind(each) for each in inputs}
        if kinds == {float}:
            _check_tokens(inputs, "input")
            return
        if len(kinds) > 1:
            raise invalid_field("input", "mixed_inputs")
        if not 1 <= len(inputs) <= MAX_INPUTS:
            raise invalid_field("input", "count", low="1", high=str(MAX_INPUTS))
        for position, each in enumerate(inputs):
            if not each:
                raise invalid_field("input" if isinstance(self.input, str) else f"input[{position}]", "empty")
            if isinstance(each, list):
                _check_tokens(each, f"input[{position}]")

    @property
    def rewritten(self) -> msgspec.Raw | None:
        """The input with its tokens as plain integers, None where that is what they are."""
        inputs = self.input if isinstance(self.input, list) else []
        flat = (token for each in inputs for token in (each if isinstance(each, list) else [each]))
        if not any(isinstance(token, float) for token in flat):
            return None
        return msgspec.Raw(
            msgspec.json.encode([list(map(int, each)) if isinstance(each, list) else int(each) for each in inputs])
        )


def _kind(given: object) -> type:
    return float if isinstance(given, int | float) else type(given)


def _check_tokens(tokens: Sequence[object], field: str) -> None:
    if len(tokens) > MAX_TOKENS:
        raise invalid_field(field, "tokens_of_input", most=str(MAX_TOKENS))
    for position, token in enumerate(tokens):
        _check_whole(token, f"{field}[{position}]")


def _check_whole(number: object, field: str) -> None:
    if isinstance(number, float) and not number.is_integer():
        raise invalid_field(field, "type", expected="types.int", actual="types.float")


decode_request = msgspec.json.Decoder(EmbeddingsRequest).decode
decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
