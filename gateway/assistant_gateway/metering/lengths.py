"""How long an answer may be: the many names under which requests say it, and the one under which it goes out.

Servers disagree about the name, and ignore the names that they do not know. A call whose cost is bounded must
therefore carry the provider's own field, and no other that the server might prefer to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from assistant_gateway import errors
from assistant_gateway.errors import GatewayError
from assistant_gateway.providers.catalog import Target
from assistant_gateway.wire.decoding import is_absent, is_one_of
from assistant_gateway.wire.fields import Fields

STANDARD = ("max_tokens", "max_completion_tokens")
# Other names of the same limit: OpenAI's Responses, llama.cpp, Ollama, TGI, SGLang, Anthropic's and others' older APIs.
ALIASES = frozenset(
    {
        "max_output_tokens",
        "max_new_tokens",
        "max_tokens_to_sample",
        "max_tokens_to_generate",
        "max_generated_tokens",
        "max_generation_tokens",
        "max_gen_tokens",
        "max_gen_toks",
        "max_gen_len",
        "max_length",
        "max_decode_tokens",
        "max_decode_length",
        "max_response_tokens",
        "max_answer_tokens",
        "n_predict",
        "num_predict",
    }
)
# How many answers there are to be, under names other than `n` and `best_of`.
ANSWERS = frozenset(
    {
        "n_cmpl",
        "n_choices",
        "num_return_sequences",
        "num_completions",
        "num_generations",
        "num_beams",
        "beam_width",
        "use_beam_search",
        "candidate_count",
    }
)
MOST_LOOKED_AT = 64 * 1024  # bytes of one field whose members are looked through

# Members whose inside is content or a schema, in which any name may stand; and limits on parts of the same answer.
_CONTENT = frozenset(
    {
        *("model", "messages", "input", "tools", "functions", "tool_choice", "function_call", "response_format"),
        *("metadata", "stop", "logit_bias", "prediction", "documents", "guided_json", "structured_outputs"),
        *("json_schema", "reasoning", "thinking"),
    }
)
_LENGTH = re.compile(r"(max(imum)?|num(berof)?|n)[a-z]*(tokens?|toks?|len|length|predict)")
_OF_SOMETHING_ELSE = re.compile(r"input|prompt|context|image|thinking|reasoning|logprob|document|model")
_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})")
_MEMBER = re.compile(r'"([^"\\]{1,64})"\s*:')
_LETTERS = re.compile(r"[^a-z0-9]")
_ONE = frozenset({b"null", b"false", b"1"})
_anything = msgspec.json.Decoder(object)


def folded(name: str) -> str:
    """Return a member's name as the most lenient of servers compare it: without case, `_` and `-`."""
    return _LETTERS.sub("", name.casefold())


_ALIASES = frozenset(map(folded, (*ALIASES, *STANDARD)))
_ANSWERS = frozenset(map(folded, (*ANSWERS, "best_of")))


def unify(fields: Fields, wanted: str, *, always: bool) -> None:
    """Put the two standard names of the limit under one.

    Args:
        fields: of the request; changed.
        wanted: the provider's name of it.
        always: whether a limit that is there only once is renamed, too.
    """
    present = [name for name in STANDARD if not is_absent(fields.get(name))]
    if not present or (len(present) == 1 and not always):
        return
    values = {name: fields.pop(name) for name in present}
    for name in STANDARD:
        fields.pop(name, None)
    numbers = {name: number for name, raw in values.items() if (number := whole(raw)) is not None}
    # What is no number is the provider's to refuse.
    smallest = min(numbers, key=lambda name: numbers[name]) if numbers else present[0]
    fields[wanted] = values[smallest]


def take(fields: Fields) -> int | None:
    """Take every limit on the length of one answer out of a request; return the smallest, None if there was none.

    Raises:
        GatewayError: 400, naming a member that may set the length or the number of answers in a way of its own.
    """
    found = []
    for name in [*STANDARD, *(name for name in fields if name in ALIASES)]:
        raw = fields.pop(name, None)
        if raw is not None and (number := whole(raw)) is not None:
            found.append(number)
    for name, raw in fields.items():
        if name in _CONTENT:  # none of these says how long or how many
            continue
        plain = folded(name)
        if name in ANSWERS and not is_one_of(raw, _ONE):
            raise _refused(name, "How many answers there are to be is said by 'n'")
        if not is_absent(raw) and _sets_length(plain):
            raise _refused(name, "How long an answer may be is said by 'max_tokens'")
        if raw_kind(raw) in b"{[":
            _check_inside(name, bytes(raw))
    return min(found) if found else None


def put(fields: Fields, target: Target, tokens: int) -> None:
    """Set how long each answer may be, under the provider's name alone."""
    for name in STANDARD:
        fields.pop(name, None)
    fields[target.max_tokens_field] = msgspec.Raw(str(tokens).encode())


def asked(fields: Mapping[str, msgspec.Raw]) -> int | None:
    """Return the smallest limit that a request sets on each of its answers, None where it sets none."""
    limits = [whole(fields[name]) for name in (*STANDARD, *ALIASES) if name in fields]
    return min((limit for limit in limits if limit is not None), default=None)


def answers(fields: Mapping[str, msgspec.Raw]) -> int:
    """Return how many answers the provider may write, and charge for."""
    return max([1, *[whole(fields[name]) or 1 for name in ("n", "best_of") if name in fields]])


def whole(raw: bytes | msgspec.Raw) -> int | None:
    """Return a number above zero, rounded up, None for anything else. Some servers take "5" and 5.0 for 5."""
    if len(memoryview(raw)) > 400:
        return None
    try:
        value: Any = _anything.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = math.ceil(float(value))
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None


def raw_kind(raw: bytes | msgspec.Raw) -> bytes:
    """Return the first character of a value."""
    return bytes(memoryview(raw)[:1])  # a value of a document has no space before it


def _check_inside(name: str, raw: bytes) -> None:
    if len(raw) > MOST_LOOKED_AT:
        raise _refused(name, f"A member of more than {MOST_LOOKED_AT} bytes may hide a limit of its own")
    for inner in _members(raw):
        plain = folded(inner)
        if _sets_length(plain) or plain in _ANSWERS:
            raise _refused(f"{name[:40]}.{inner}", "How long answers may be is said by 'max_tokens', how many by 'n'")


def _members(raw: bytes) -> Iterable[str]:
    """Return the names of all members at any depth, whatever they are written like."""
    text = raw.decode(errors="replace")
    if "\\u" in text:
        text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return (found[1] for found in _MEMBER.finditer(text))


def _sets_length(plain: str) -> bool:
    return plain in _ALIASES or (_LENGTH.fullmatch(plain) is not None and not _OF_SOMETHING_ELSE.search(plain))


def _refused(name: str, why: str) -> GatewayError:
    message = f"{name[:120]!r} is not passed on, because this call is under a limit. {why}."
    return errors.invalid_request(message, name[:120], code="field_not_allowed")
