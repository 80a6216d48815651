"""Tables of Markdown (GitHub's pipe tables), found line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator

_DELIMITER = re.compile(r"^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield (header, text) in reading order: a table's header rows with its rows, and ("", text) for what is no table.

    A header is its row and the delimiter row, each with its line end.
    """
    lines = text.split("\n")
    prose: list[str] = []
    index = 0
    while index < len(lines):
        if not _begins_table(lines, index):
            prose.append(lines[index])
            index += 1
            continue
        end = index + 2
        while end < len(lines) and lines[end].strip() and "|" in lines[end]:
            end += 1
        if "".join(prose).strip():
            yield "", "\n".join(prose).strip("\n")
        prose = []
        rows = "\n".join(lines[index + 2 : end])
        head = f"{lines[index]}\n{lines[index + 1]}\n"
        yield (head, rows) if rows else ("", head)
        index = end
    if "".join(prose).strip():
        yield "", "\n".join(prose).strip("\n")


def _begins_table(lines: list[str], index: int) -> bool:
    """Whether a header row and a delimiter row with as many cells stand here (GitHub Flavored Markdown, 4.10)."""
    if index + 1 >= len(lines) or "|" not in lines[index] or not _DELIMITER.match(lines[index + 1]):
        return False
    return _cells(lines[index]) == _cells(lines[index + 1])


def _cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row.strip().strip("|"))) + 1
