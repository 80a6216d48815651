"""The passages that an answer used are found by their markers."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from api_world import completion, passage
from hypothesis import given
from hypothesis import strategies as st

from assistant_api.chat.citations import MAX_ANNOTATED, Tracker, annotate, annotations_of

MARKED = [
    ("Nothing here.", set()),
    ("Take 42 Nm [1].", {1}),
    ("Both [1][3] and [2].", {1, 2, 3}),
    ("Both [1, 3], see [2,4].", {1, 2, 3, 4}),
    ("a[0] = b[12]; [x] [1a] [ 1] [-1]", {0, 12}),
    ("[[2]] and [2", {2}),
    ("[1234]", set()),
]


def used(*pieces: str) -> set[int]:
    tracker = Tracker()
    for piece in pieces:
        tracker.feed(piece)
    return tracker.used


@pytest.mark.parametrize(("text", "numbers"), MARKED)
def test_markers_are_found(text: str, numbers: set[int]) -> None:
    """Alone, in rows and in lists; nothing else in brackets."""
    assert used(text) == numbers


@given(st.sampled_from(MARKED), st.lists(st.integers(0, 40)))
def test_it_does_not_matter_where_the_text_is_cut(case: tuple[str, set[int]], cuts: list[int]) -> None:
    """Tokens of a model end anywhere."""
    text, numbers = case
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    assert used(*(text[start:end] for start, end in itertools.pairwise(edges))) == numbers


def test_a_bracket_that_never_closes_is_not_kept() -> None:
    """Memory does not grow with the answer."""
    tracker = Tracker()
    tracker.feed("[")
    for _ in range(1000):
        tracker.feed("no marker ")
    assert len(tracker._open) <= 50


def test_an_annotation_says_where_the_words_come_from() -> None:
    """In the agreed shape; numbers without a passage are left out."""
    passages = [passage(1), passage(2, page=None, text="x" * 500, score=0.83333333)]
    assert msgspec.to_builtins(annotations_of({0, 2, 3, 99}, passages)) == [
        {
            "type": "file_citation",
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
    annotated = msgspec.json.decode(annotate(msgspec.json.encode(answer), [passage(1), passage(2)]))
    notes = annotated["choices"][0]["message"].pop("annotations")
    assert [note["file_citation"]["index"] for note in notes] == [2]
    assert annotated == answer


def test_annotations_of_the_provider_are_kept() -> None:
    """Ours come after them."""
    answer = completion("See [1].")
    answer["choices"][0]["message"]["annotations"] = [{"type": "url_citation"}]
    annotated = msgspec.json.decode(annotate(msgspec.json.encode(answer), [passage(1)]))
    assert [note["type"] for note in annotated["choices"][0]["message"]["annotations"]] == [
        "url_citation",
        "file_citation",
    ]


NESTED = b'{"choices":[{"message":{"content":"See [1].","x":%s}}]}' % (b"[" * 20_000 + b"]" * 20_000)


def test_an_answer_too_large_to_decode_passes_unchanged() -> None:
    """Its objects could take more memory than the pod has."""
    large = msgspec.json.encode(completion("See [1]." + "x" * MAX_ANNOTATED))
    assert annotate(large, [passage(1)]) == large


@pytest.mark.parametrize(
    "content",
    [NESTED, b"", b"{", b"[]", b'"x"', b"{}", b'{"choices":{}}', b'{"choices":[1,{"message":2},{}]}', b"\xff"],
)
def test_what_is_no_completion_passes_unchanged(content: bytes) -> None:
    """A strange provider's answer is the caller's to judge."""
    assert annotate(content, [passage(1)]) == content


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
    (note,) = annotations_of({1}, [hostile])
    assert note.file_citation.quote == shown
    assert note.file_citation.filename == shown
