"""What of a conversation the model is sent."""

from __future__ import annotations

import pytest

from assistant_api.conversations.history import Said, history


def path(*texts: str, start: int = 0) -> list[Said]:
    """Messages of a person and of the assistant in turn; `start` are before them."""
    return [Said(depth, "assistant" if depth % 2 else "user", words) for depth, words in enumerate(texts, start=start)]


def sent(found: list[Said], question: str, most: int) -> tuple[list[str], int]:
    made = history(found, question, most)
    return [message["content"] for message in made.messages], made.omitted_turns


def test_a_first_message_stands_alone() -> None:
    """There is nothing before it, and nothing is left out."""
    assert history([], "Hello").messages == [{"role": "user", "content": "Hello"}]
    assert history([], "Hello").omitted_turns == 0


def test_all_turns_are_sent_in_their_order_when_they_fit() -> None:
    """With the roles that chat completions know."""
    made = history(path("a", "b", "c", "d"), "e")
    assert [message["role"] for message in made.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert [message["content"] for message in made.messages] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("most", "expected", "omitted"),
    [
        (50, ["aa", "bb", "cc", "dd", "ee"], 0),
        (10, ["aa", "bb", "cc", "dd", "ee"], 0),
        (9, ["cc", "dd", "ee"], 1),
        (6, ["cc", "dd", "ee"], 1),
        (5, ["ee"], 2),
        (0, ["ee"], 2),
    ],
)
def test_the_oldest_turns_go_first_and_whole(most: int, expected: list[str], omitted: int) -> None:
    """Never half a turn, never the question itself; how many went is known."""
    assert sent(path("aa", "bb", "cc", "dd"), "ee", most) == (expected, omitted)


def test_bytes_count_and_not_characters() -> None:
    """A letter of Arabic has two."""
    assert sent(path("سس", "سس"), "x", 8) == (["x"], 1)
    assert sent(path("سس", "سس"), "x", 9) == (["سس", "سس", "x"], 0)


def test_what_was_not_even_read_counts_as_left_out() -> None:
    """The path may begin in the middle, and with an answer."""
    assert sent(path("b", "c", "d", start=7), "e", 100) == (["c", "d", "e"], 4)


def test_a_turn_without_an_answer_is_not_sent() -> None:
    """The model would answer that question, too. It was not left out for want of room."""
    assert sent(path("a", "", "c", "d"), "e", 100) == (["c", "d", "e"], 0)
