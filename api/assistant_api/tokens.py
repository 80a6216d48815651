"""How many tokens an answer says it took, for the log: read off its bytes, because decoding it would cost more."""

from __future__ import annotations

import re

_USAGE = b'"usage"'  # inside a JSON text its quotes would be escaped
_LONGEST = 2048  # of a usage object, as far as it is looked at
_INPUT = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,12})')
_OUTPUT = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,12})')

Tokens = tuple[int, int]  # of the prompt, of the answer


def tokens_of(content: bytes) -> Tokens | None:
    """Return the tokens that the last `usage` in `content` names, None when there is none."""
    start = content.rfind(_USAGE)
    if start < 0:
        return None
    usage = content[start : start + _LONGEST]
    prompt, answer = _INPUT.search(usage), _OUTPUT.search(usage)
    if prompt is None or answer is None:
        return None
    return int(prompt[1]), int(answer[1])
