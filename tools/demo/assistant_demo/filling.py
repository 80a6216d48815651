"""Fill a JSON schema in from the words of a question: what is quoted, numbers, values of an enumeration it names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]
QUOTED = re.compile(r"'([^'\n]+)'|\"([^\"\n]+)\"|`([^`\n]+)`|«([^»\n]+)»")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
DEPTH_MAX = 16  # how deep a schema is followed: it may lead to itself


def quoted(question: str) -> list[str]:
    """Return what stands between quotation marks."""
    return ["".join(groups) for groups in QUOTED.findall(question)]


def instance(schema: Schema, question: str) -> Any:
    """Return a value that fits a JSON schema."""
    return _Filler(schema, question).made(schema, 0)


class _Filler:
    """Takes quoted words and numbers in their order, each once; without any, a text is the whole question."""

    def __init__(self, schema: Schema, question: str) -> None:
        self._schema = schema
        self._question = question
        self._said = question.strip() or "nothing was said"
        self._quoted = iter(quoted(question))
        self._numbers = iter(NUMBER.findall(question))
        self._kinds = {"object": self._object, "array": self._array, "integer": self._integer, "number": self._number}

    def made(self, schema: Any, depth: int) -> Any:
        """Return a value that fits a part of the schema."""
        part = self._resolved(schema if isinstance(schema, Mapping) else {})
        if "const" in part:
            return part["const"]
        if part.get("enum"):
            return self._one_of(part["enum"])
        kind = _kind(part)
        if depth > DEPTH_MAX or kind == "null":
            return None
        if kind == "boolean":
            return True
        options = part.get("anyOf") or part.get("oneOf") or part.get("allOf")
        if kind is None and options:
            return self.made(
                next((option for option in options if option.get("type") != "null"), options[0]), depth + 1
            )
        return self._kinds.get(kind or "", self._text)(part, depth)

    def _resolved(self, part: Schema) -> Schema:
        reference = str(part.get("$ref", ""))
        if not reference:
            return part
        target: Any = self._schema
        for step in reference.removeprefix("#/").split("/"):
            target = target.get(step, {}) if isinstance(target, Mapping) else {}
        return {**target, **{key: value for key, value in part.items() if key != "$ref"}}

    def _one_of(self, values: Sequence[Any]) -> Any:
        named = (value for value in values if isinstance(value, str) and value and value in self._question)
        return next(named, values[0])

    def _object(self, part: Schema, depth: int) -> dict[str, Any]:
        properties = {**(part.get("properties") or {})}
        for name in part.get("required") or []:
            properties.setdefault(name, {})
        return {name: self.made(schema, depth + 1) for name, schema in properties.items()}

    def _array(self, part: Schema, depth: int) -> list[Any]:
        return [self.made(part.get("items", {}), depth + 1) for _ in range(max(1, int(part.get("minItems", 1))))]

    def _integer(self, part: Schema, depth: int) -> int:
        return round(self._number(part, depth))

    def _number(self, part: Schema, _depth: int) -> float:
        value = float(next(self._numbers, 1))
        low = part.get("minimum", part.get("exclusiveMinimum", -math.inf) + 1)
        high = part.get("maximum", part.get("exclusiveMaximum", math.inf) - 1)
        return float(max(low, min(high, value)))

    def _text(self, part: Schema, _depth: int) -> str:
        found = next(self._quoted, self._said)
        return found[: int(part.get("maxLength", len(found)))].ljust(int(part.get("minLength", 0)), ".")


def _kind(part: Schema) -> str | None:
    kind = part.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    return kind or ("object" if "properties" in part else None)
