"""Embeddings of meaning: where they are used, and what the model is handed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from assistant_demo import multilingual
from assistant_demo.multilingual import BATCH, DIMENSIONS, Multilingual

Handed = list[tuple[list[str], bool]]


@pytest.fixture
def handed() -> Handed:
    """Return what the model was called with."""
    return []


@pytest.fixture
def model(handed: Handed) -> Multilingual:
    """Return a model whose vectors say how long the text is."""

    def encode(texts: list[str], is_query: bool) -> Sequence[Sequence[float]]:
        handed.append((texts, is_query))
        return [[float(len(text)), *[0.0] * (DIMENSIONS - 1)] for text in texts]

    return Multilingual(encode)


@pytest.mark.parametrize(
    ("input_type", "query"), [("query", True), ("passage", False), ("document", False), (None, True), ("other", True)]
)
async def test_a_question_is_told_from_a_passage(
    model: Multilingual, handed: Handed, input_type: str | None, query: bool
) -> None:
    """The model was trained with a prefix for each; without a word of what it is, a text is a query."""
    await model.embed(["a"], input_type)
    assert handed == [(["a"], query)]


async def test_many_texts_go_in_turns_and_come_back_in_order(model: Multilingual, handed: Handed) -> None:
    """A document does not hold up a question for longer than a few of its passages."""
    texts = ["x" * length for length in range(1, 2 * BATCH + 2)]
    assert [vector[0] for vector in await model.embed(texts, "passage")] == [len(text) for text in texts]
    assert [len(batch) for batch, _ in handed] == [BATCH, BATCH, 1]


async def test_what_cannot_be_encoded_is_replaced(model: Multilingual, handed: Handed) -> None:
    """Half a surrogate pair is no text, and the library would stop reading at a NUL."""
    await model.embed(["a\0b", "\ud83d"], "query")
    assert handed == [(["a b", "?"], True)]


@pytest.mark.parametrize(
    ("machine", "flags", "package", "told"),
    [
        ("x86_64", "fpu avx2 fma", True, ""),
        ("aarch64", "fpu avx2 fma", True, "this is aarch64"),
        ("x86_64", "fpu fma", True, "no avx2"),
        ("x86_64", "fpu avx2 fma", False, "could not be installed"),
    ],
)
def test_it_says_why_it_cannot_be_used(
    machine: str, flags: str, package: bool, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A processor without the instructions would end the process that loads the library."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object() if package else None)
    monkeypatch.setattr(multilingual, "CPU_INFO", tmp_path / "cpuinfo")
    why = multilingual.missing()
    assert why if told else not why
    assert told in why
