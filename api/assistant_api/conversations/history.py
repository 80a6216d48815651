"""What of a conversation the model is sent: whole turns, the latest first, as many as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# A token has about four bytes in English and three or more in most other languages; who counts three sends too little
# rather than too much.
BYTES_PER_TOKEN = 3
MAX_CONTEXT_TOKENS = 16_000
MAX_CONTEXT_BYTES = MAX_CONTEXT_TOKENS * BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a path; `depth` messages are before it, and those of a person and of the assistant alternate."""

    depth: int
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class History:
    """Messages as chat completions take them, and how many of the oldest turns of the path are not among them."""

    messages: list[dict[str, Any]]
    omitted_turns: int


def history(path: Sequence[Said], question: str, most: int = MAX_CONTEXT_BYTES) -> History:
    """Return what is sent with `question`, which always is.

    A turn is a message of a person and the answer to it. A turn without an answer would be a question that the model
    answers, too, so it is left out; it does not count as omitted.

    Args:
        path: the messages before the question, or the latest of them; it may begin with an answer.
        question: what is to be answered now.
        most: bytes of all texts together.
    """
    left = most - len(question.encode())
    turns: list[tuple[Said, Said]] = []
    first = None  # the depth where what is sent begins
    for position in range(len(path) - 1, 0, -2):
        asked, answer = path[position - 1], path[position]
        left -= len(asked.content.encode()) + len(answer.content.encode())
        if left < 0:
            break
        first = asked.depth
        if answer.content:
            turns.append((asked, answer))
    before = first if first is not None else (path[-1].depth + 1 if path else 0)
    sent = [{"role": message.role, "content": message.content} for turn in reversed(turns) for message in turn]
    return History([*sent, {"role": "user", "content": question}], before // 2)
