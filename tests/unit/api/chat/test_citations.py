"""The passages that an answer used are found by their markers."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from api_world import completion, passage
from hypothesis import given
from hypothesis import strategies as st

from assistant_api.chat.citations import MAX_ANNOTATED, MAX_MARKS, Mark, Sources, Tracker, annotate
from assistant_api.knowledge.schemas import Passage

MARKED = [
    ("Nothing here.", set()),
    ("Take 42 Nm [1].", {1}),
    ("Both [1][3] and [2].", {1, 2, 3}),
    ("Both [1, 3], see [2,4].", {1, 2, 3, 4}),
    ("a[0] = b[12]; [x] [1a] [ 1] [-1]", {12}),
    ("\U0001f6b2 [3] e\u0301\U0001f6b2\U0001f6b2[2]", {2, 3}),
    ("[[2]] and [2", {2}),
    ("[1234]", set()),
]


ORIGIN = "https://acme.example"
HANDBOOK = f"{ORIGIN}/api/v1/knowledge-bases/handbook/documents"


def sources(*passages: Passage) -> Sources:
    return Sources(passages, ORIGIN)


def marks(*pieces: str, passages: int = 999) -> list[Mark]:
    tracker = Tracker(passages)
    for piece in pieces:
        tracker.feed(piece)
    return tracker.marks


@pytest.mark.parametrize(("text", "numbers"), MARKED)
def test_markers_are_found(text: str, numbers: set[int]) -> None:
    """Alone, in rows and in lists; nothing else in brackets."""
    assert {mark.number for mark in marks(text)} == numbers


@given(st.sampled_from(MARKED), st.lists(st.integers(0, 40)))
def test_it_does_not_matter_where_the_text_is_cut(case: tuple[str, set[int]], cuts: list[int]) -> None:
    """Tokens of a model end anywhere."""
    text, numbers = case
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    found = marks(*(text[start:end] for start, end in itertools.pairwise(edges)))
    assert {mark.number for mark in found} == numbers
    assert found == marks(text)
    for mark in found:  # its place is where it is in the text
        assert text[mark.start] == "["
        assert text[mark.end - 1] == "]"
        assert str(mark.number) in text[mark.start : mark.end]


def test_each_mark_has_its_place() -> None:
    """In code points, also behind characters that JavaScript counts twice; a list is one place for all its numbers."""
    assert marks("\U0001f6b2 [1], [2, 1] and [1][7].", passages=2) == [
        Mark(2, 5, 1),
        Mark(7, 13, 2),
        Mark(7, 13, 1),
        Mark(18, 21, 1),
    ]


def test_an_answer_of_nothing_but_marks_is_annotated_within_bounds() -> None:
    """Each annotation is some hundred times its marker; a passage that is cited late is told all the same."""
    found = marks("[1]" * 100_000 + "[2][2]", passages=2)
    assert len(found) == MAX_MARKS + 1
    assert found[-1] == Mark(300_000, 300_003, 2)


def test_a_bracket_that_never_closes_is_not_kept() -> None:
    """Memory does not grow with the answer."""
    tracker = Tracker(9)
    tracker.feed("[")
    for _ in range(1000):
        tracker.feed("no marker ")
    assert len(tracker._open) <= 50


def test_an_annotation_says_where_the_words_come_from() -> None:
    """In OpenAI's shape, with ours beside it."""
    found = sources(passage(1), passage(2, page=None, text="x" * 500, score=0.83333333))
    assert msgspec.to_builtins(found.annotations([Mark(4, 7, 2)])) == [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": 4,
                "end_index": 7,
                "url": f"{HANDBOOK}/00000000-0000-0000-0000-000000000002/content#:~:text={'x' * 500}",
                "title": "handbook.pdf",
            },
            "file_citation": {
                "index": 2,
                "file_id": "00000000-0000-0000-0000-000000000002",
                "filename": "handbook.pdf",
                "page": None,
                "knowledge_base": "handbook",
                "score": 0.8333,
                "quote": "x" * 200,
            },
        }
    ]


def test_a_whole_answer_is_annotated_choice_by_choice() -> None:
    """Everything else in it stays."""
    answer = completion("Take 42 Nm [2].", service_tier="x")
    second = {"index": 1, "message": {"role": "assistant", "content": None, "tool_calls": []}, "finish_reason": "stop"}
    answer["choices"].append(second)
    annotated = msgspec.json.decode(annotate(msgspec.json.encode(answer), sources(passage(1), passage(2))))
    notes = annotated["choices"][0]["message"].pop("annotations")
    assert [note["file_citation"]["index"] for note in notes] == [2]
    assert annotated == answer


def test_annotations_of_the_provider_are_kept() -> None:
    """Ours come after them."""
    answer = completion("See [1].")
    answer["choices"][0]["message"]["annotations"] = [{"type": "url_citation"}]
    annotated = msgspec.json.decode(annotate(msgspec.json.encode(answer), sources(passage(1))))
    theirs, ours = annotated["choices"][0]["message"]["annotations"]
    assert theirs == {"type": "url_citation"}
    assert ours["file_citation"]["index"] == 1


NESTED = b'{"choices":[{"message":{"content":"See [1].","x":%s}}]}' % (b"[" * 20_000 + b"]" * 20_000)


def test_an_answer_too_large_to_decode_passes_unchanged() -> None:
    """Its objects could take more memory than the pod has."""
    large = msgspec.json.encode(completion("See [1]." + "x" * MAX_ANNOTATED))
    assert annotate(large, sources(passage(1))) == large


@pytest.mark.parametrize(
    "content",
    [NESTED, b"", b"{", b"[]", b'"x"', b"{}", b'{"choices":{}}', b'{"choices":[1,{"message":2},{}]}', b"\xff"],
)
def test_what_is_no_completion_passes_unchanged(content: bytes) -> None:
    """A strange provider's answer is the caller's to judge."""
    assert annotate(content, sources(passage(1))) == content


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("See ![x](http://a/?q=1) and !![y][z].", "See [x](http://a/?q=1) and [y][z]."),
        ("<IMG src=x> <b>5 < 6</b> <script>", "< IMG src=x> <b>5 < 6</b> < script>"),
        ("Stop! [1]", "Stop! [1]"),
    ],
)
def test_what_a_citation_shows_fetches_nothing(words: str, shown: str) -> None:
    """A document's own words are text, wherever a client renders them."""
    hostile = msgspec.structs.replace(passage(1), text=words, document_name=words)
    (note,) = sources(hostile).annotations([Mark(0, 3, 1)])
    assert note.file_citation.quote == shown
    assert note.file_citation.filename == note.url_citation.title == shown
    assert not set(note.url_citation.url.removeprefix(HANDBOOK)) & set("<>[]() ")
