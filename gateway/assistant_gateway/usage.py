"""What a provider says a call has used."""

from __future__ import annotations

import re

import msgspec

# `"usage"` with an object behind it. In text inside JSON the quotes are escaped and do not match.
SEEN = re.compile(rb'"usage"\s*:\s*\{')


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call, in the OpenAI wire's names."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None

    @property
    def input_tokens(self) -> int:
        """Tokens read; never negative, whatever the provider claims."""
        return max(0, self.prompt_tokens or 0)

    @property
    def output_tokens(self) -> int:
        """Tokens written."""
        return max(0, self.completion_tokens or 0)


NOTHING = msgspec.Raw(b"null")  # msgspec takes no union with Raw
_usage = msgspec.json.Decoder(Usage | None)


def decode_usage(raw: msgspec.Raw) -> Usage | None:
    """Return the usage in a provider's words, None where they make no sense: an answer is not lost over its bill."""
    try:
        usage: Usage | None = _usage.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return usage
