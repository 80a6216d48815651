"""What an answer took is read off its bytes."""

from __future__ import annotations

import pytest

from assistant_api.tokens import tokens_of

USAGE = b'"usage": {"prompt_tokens": 12, "completion_tokens":3, "total_tokens": 15}'


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (b'{"choices": [], ' + USAGE + b"}", (12, 3)),
        (b'data: {"choices": [], ' + USAGE + b"}\n\ndata: [DONE]\n\n", (12, 3)),
        (b'{"choices": [{"message": {"content": "\\"usage\\": {\\"prompt_tokens\\": 9}"}}], ' + USAGE + b"}", (12, 3)),
        (b'{"usage": null}', None),
        (b'{"usage": {"prompt_tokens": -1, "completion_tokens": 3}}', None),
        (b"", None),
    ],
)
def test_the_last_usage_counts(content: bytes, tokens: tuple[int, int] | None) -> None:
    """Words of the model that look like one are none."""
    assert tokens_of(content) == tokens
