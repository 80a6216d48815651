"""Several system messages become one, where they may."""

from __future__ import annotations

import json

import msgspec
import pytest

from assistant_gateway.calls.system_messages import is_refusal, merged

ASKED = {"role": "user", "content": "Hi"}


def system(content: object, role: str = "system") -> dict[str, object]:
    """Return a message that is not the user's."""
    return {"role": role, "content": content}


def sent(messages: object, *, everywhere: bool = False) -> object:
    """Return the messages that go out."""
    return json.loads(bytes(merged(msgspec.Raw(json.dumps(messages).encode()), everywhere=everywhere)))


def test_those_at_the_beginning_are_one_in_their_order() -> None:
    """The assistant's first, then the caller's; whichever of the two roles they have."""
    messages = [system("Instructions."), system("Mine.", "developer"), ASKED]
    assert sent(messages) == [system("Instructions.\n\nMine."), ASKED]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert sent([system("I"), system(parts), ASKED]) == [system("I\n\na\nb"), ASKED]


def test_parts_that_say_more_than_their_text_stay_parts() -> None:
    """A mark for the provider's cache is not lost."""
    marked = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    assert sent([system("I"), system([marked]), ASKED]) == [system([{"type": "text", "text": "I"}, marked]), ASKED]


def test_those_in_the_middle_keep_their_place_unless_they_may_not() -> None:
    """With the setting, all of them come first."""
    messages = [system("I"), ASKED, system("later"), ASKED]
    assert sent(messages) == messages
    assert sent(messages, everywhere=True) == [system("I\n\nlater"), ASKED, ASKED]
    assert sent([ASKED, system("later")], everywhere=True) == [system("later"), ASKED]


@pytest.mark.parametrize(
    "messages",
    [
        [ASKED],
        [system("I"), ASKED],
        [system("I", "developer"), ASKED],
        [system("I"), {"role": "user", "content": 'the word "system" in "system"'}],
        [system("I"), system(3), ASKED],
        [system("I"), 5, system("x")],
        "system system",
    ],
)
def test_others_are_not_touched(messages: object) -> None:
    """One system message, none, or what is no list of messages: the very bytes go on."""
    raw = msgspec.Raw(json.dumps(messages).encode())
    assert merged(raw, everywhere=False) is raw


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("System message must be at the beginning.", True),
        ("Jinja Exception: System message must be the first message", True),
        ("Only the first message can have the system role", True),
        ("only one system message is allowed", True),
        ("Unexpected role 'system' after role 'user'", True),
        ("Conversation roles must alternate user/assistant/user/assistant/...", True),
        ("The system is overloaded", False),
        ("messages: field required", False),
    ],
)
def test_refusals_are_known_by_their_words(said: str, expected: bool) -> None:
    """Of servers and of the templates that they run."""
    assert is_refusal(said) is expected
