"""The handbook that the demo uploads."""

from pathlib import Path

import pypdfium2

from assistant_demo.documents import handbook


def test_the_pdf_is_printed_alike_each_time(tmp_path: Path) -> None:
    """A second demo uploads the same bytes, which the API recognises as the same document."""
    first = {path.name: path.read_bytes() for path in handbook(tmp_path / "a")}
    second = {path.name: path.read_bytes() for path in handbook(tmp_path / "b")}
    assert first == second
    assert {Path(name).suffix for name in first} == {".md", ".txt", ".pdf"}


def test_the_fact_the_demo_asks_for_stands_only_in_the_pdf(tmp_path: Path) -> None:
    """The demo's question can be answered from page 3 of the PDF and from no other document."""
    documents = handbook(tmp_path)
    pdf = next(path for path in documents if path.suffix == ".pdf")
    pages = [page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(pdf)]
    assert len(pages) == 6
    assert [number for number, text in enumerate(pages, 1) if "42 newton metres" in text] == [3]
    assert not any("newton" in path.read_text() for path in documents if path != pdf)
