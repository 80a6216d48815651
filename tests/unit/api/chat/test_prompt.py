"""What the model is told, and what is searched for."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import msgspec
import pytest
from api_world import passage
from hypothesis import given
from hypothesis import strategies as st

from assistant_api.chat.prompt import passages_block, question, system_message, with_system_message
from assistant_api.chat.schemas import ChatMessage, Part


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def test_the_last_question_is_searched_for() -> None:
    """Not what the model said, and not what the system was told."""
    long = "How many days of leave does a person get in the first year here?"
    messages = [user("Hello"), ChatMessage(role="assistant", content="Hi"), user(long)]
    assert question(messages) == long


def test_a_short_question_is_searched_with_the_one_before() -> None:
    """ "And in winter?" means nothing alone."""
    messages = [
        user("How warm is the office in summer?"),
        ChatMessage(role="assistant", content="20"),
        user("In winter?"),
    ]
    assert question(messages) == "How warm is the office in summer?\nIn winter?"


def test_the_question_of_a_tool_loop_is_still_the_users() -> None:
    """The last message may be a tool's; the answer needs the passages all the same."""
    messages = [
        user("Which torque do I need for the axle of the Larkspur bicycle?"),
        ChatMessage(role="tool", content="{}"),
    ]
    assert question(messages).startswith("Which torque")


@pytest.mark.parametrize(
    "messages",
    [
        [ChatMessage(role="system", content="x")],
        [user("   ")],
        [ChatMessage(role="user", content=[Part(type="image_url")])],
        [ChatMessage(role="user")],
    ],
)
def test_without_words_there_is_nothing_to_search(messages: list[ChatMessage]) -> None:
    """A picture alone is no query."""
    assert question(messages) == ""


def test_the_words_of_a_message_in_parts_are_joined() -> None:
    """Pictures between them do not matter."""
    parts = [Part(type="text", text="What is"), Part(type="image_url"), Part(type="text", text="this?")]
    assert question([ChatMessage(role="user", content=parts)]) == "What is\nthis?"


def test_a_huge_question_is_cut() -> None:
    """Embedding models take a few thousand tokens."""
    assert len(question([user("word " * 100_000)])) <= 2000


def test_the_block_has_the_agreed_format() -> None:
    """The demo's offline model reads exactly this."""
    block = passages_block(
        [passage(3, text="5 < 6 & 7 > 2"), passage(4, page=None, document_name='a "b".md', text="T")]
    )
    assert block == (
        "<passages>\n"
        '<passage n="1" document="handbook.pdf" page="3">\n5 &lt; 6 &amp; 7 &gt; 2\n</passage>\n'
        '<passage n="2" document="a &quot;b&quot;.md">\nT\n</passage>\n'
        "</passages>"
    )


printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))


@given(st.lists(st.tuples(printable, printable), max_size=5))
def test_no_document_can_break_out_of_its_passage(documents: list[tuple[str, str]]) -> None:
    """Whatever a document holds, the block parses into as many passages with the same texts."""
    block = passages_block([passage(1, document_name=name, text=text) for name, text in documents])
    parsed = ET.fromstring(block)
    assert [item.text for item in parsed] == [f"\n{text}\n" for _, text in documents]
    assert [item.get("n") for item in parsed] == [str(number) for number, _ in enumerate(documents, 1)]


def test_instructions_come_first_and_do_not_change() -> None:
    """Providers cache what begins alike."""
    first, second = (system_message("Be kind.", [passage(number)]) for number in (1, 2))
    assert first.startswith("Be kind.\n\n")
    assert first != second


def test_an_assistant_without_knowledge_gets_its_instructions_alone() -> None:
    """No empty block, no talk of passages."""
    assert system_message("Be kind.", None) == "Be kind."
    assert system_message("  ", None) == ""


def test_an_assistant_that_found_nothing_is_told_so() -> None:
    """An empty block makes the model say that it does not know."""
    assert system_message("", []).endswith("<passages>\n</passages>")


@pytest.mark.parametrize("space", ["", " \n\t"])
def test_the_callers_messages_follow_untouched(space: str) -> None:
    """Members that we do not know reach the model as they were sent."""
    sent = msgspec.Raw(space.encode() + b'[{"role":"user","content":"x","cache_control":{"a":1}}]')
    assert msgspec.json.decode(with_system_message(sent, 'Say "hi"')) == [
        {"role": "system", "content": 'Say "hi"'},
        {"role": "user", "content": "x", "cache_control": {"a": 1}},
    ]
    assert with_system_message(sent, "") is sent
