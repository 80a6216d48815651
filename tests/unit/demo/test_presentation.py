"""What the user of the demo sees."""

import io

import pytest

from assistant_demo.errors import DemoError
from assistant_demo.presentation import show_answer, show_how_to_go_on
from assistant_demo.tenant_api import Source, _pieces
from assistant_demo.terminal import Terminal


@pytest.fixture
def screen() -> io.StringIO:
    """What was printed."""
    return io.StringIO()


def test_an_answer_is_shown_with_its_sources(screen) -> None:
    """Pieces become one text, long lines are wrapped between words, and each source has its page and quote."""
    words = ["The", *(f" word{number}" for number in range(40)), " [1]"]
    source = Source(1, "manual.pdf", 3, "The quoted sentence.")
    assert show_answer(Terminal(screen), "Why?", [*words, source]) == [source]
    shown = screen.getvalue()
    assert " ".join("".join(words).split()) in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 110
    assert "[1] manual.pdf, page 3" in shown
    assert "The quoted sentence." in shown


def test_the_way_on_names_the_address_but_not_the_key(screen) -> None:
    """Commands to copy take the key from the file, so that it stands in no terminal's history."""
    show_how_to_go_on(Terminal(screen), "http://198.18.0.9:8080", ".cluster/demo.env", "support")
    assert "http://198.18.0.9:8080/v1" in screen.getvalue()
    assert '-H "Authorization: Bearer $ASSISTANT_API_KEY"' in screen.getvalue()
    signing_in = r'-d "{\"email\": \"$ASSISTANT_ADMIN_EMAIL\", \"password\": \"$ASSISTANT_ADMIN_PASSWORD\"}"'
    assert signing_in in screen.getvalue()


def test_a_step_says_what_it_waits_for_and_how_long_it_took(screen) -> None:
    """The same reason is said once, a new one at once, and the result with its duration."""
    reasons = iter(["pulling", "pulling", "starting", None])
    with Terminal(screen).step("Platform") as step:
        step.wait(lambda: next(reasons), seconds=5, hint="", every=0)
        step.result = "runs"
    lines = [line.split("  ", 1)[1].strip() for line in screen.getvalue().splitlines()]
    assert lines[:2] == ["Platform: pulling", "Platform: starting"]
    assert lines[2].startswith("✓ Platform: runs (")


def test_a_wait_that_takes_too_long_ends_with_the_reason_and_the_next_step(screen) -> None:
    """Nothing waits for ever, and the error says what was missing and where to look."""
    with pytest.raises(DemoError, match="no image\nLook there"), Terminal(screen).step("Platform") as step:
        step.wait(lambda: "no image", seconds=0, hint="Look there", every=0)
    assert "✗ Platform: failed" in screen.getvalue()


def test_an_event_stream_becomes_text_and_sources() -> None:
    """Content, annotations and errors within a stream are told apart; other lines are left out."""
    note = '{"type":"file_citation","file_citation":{"index":2,"filename":"a.md","page":null,"quote":"q"}}'
    assert list(_pieces('data: {"choices":[{"delta":{"content":"Hi"}}]}')) == ["Hi"]
    assert list(_pieces(f'data: {{"choices":[{{"delta":{{"annotations":[{note}]}}}}]}}')) == [
        Source(2, "a.md", None, "q")
    ]
    assert [*_pieces("data: [DONE]"), *_pieces(""), *_pieces(": ping")] == []
    with pytest.raises(DemoError, match="gone"):
        list(_pieces('data: {"error":{"message":"gone"}}'))
