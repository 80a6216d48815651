"""What stands before a Markdown document: title and tags are its text, everything else is about the file.

Front matter is YAML between lines of `---`, or TOML between lines of `+++`, at the very beginning (as Jekyll, Hugo,
Obsidian and Pandoc have it).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

import yaml

MAX_CHARACTERS = 64 * 1024
_BLOCKS = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_TITLE_HEADING = re.compile(r"\s*#[ \t]+\S")


def with_front_matter_as_text(text: str) -> str:
    """Return a Markdown text with its front matter's title as a heading and its tags as a line; the rest is left out.

    What only looks like front matter (a thematic break, a block that does not parse) stays as it is.
    """
    found = _BLOCKS.match(text[:MAX_CHARACTERS])
    fields = _fields(found[1], found[2]) if found else None
    if found is None or fields is None:
        return text
    body = text[found.end() :]
    title = fields.get("title")
    lines = []
    if isinstance(title, str | int | float) and str(title).strip() and not _TITLE_HEADING.match(body):
        lines.append("# " + " ".join(str(title).split()))
    if tags := _tags(fields):
        lines.append(", ".join(tags))
    return "\n\n".join([*lines, body.lstrip("\n")]) if lines else body.lstrip("\n")


def _fields(fence: str, block: str) -> Mapping[str, object] | None:
    try:
        read = tomllib.loads(block) if fence == "+++" else yaml.load(block, Loader=_Loader)  # noqa: S506  a safe one
    except (tomllib.TOMLDecodeError, yaml.YAMLError, ValueError, RecursionError):
        return None
    if read is None and "#" in block:
        return {}  # comments only
    return {str(name).lower(): value for name, value in read.items()} if isinstance(read, dict) else None


def _tags(fields: Mapping[str, object]) -> list[str]:
    tags: list[str] = []
    for name in ("tags", "keywords", "categories"):
        value = fields.get(name)
        items = re.split(r"[,\s]+", value) if isinstance(value, str) else value if isinstance(value, list) else ()
        tags += [
            tag for item in items if isinstance(item, str | int) and (tag := str(item).strip()) and tag not in tags
        ]
    return tags


class _Loader(yaml.SafeLoader):
    """Plain data without aliases: a few lines of those can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)
