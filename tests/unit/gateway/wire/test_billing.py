"""Billing truth: recorded answers of every family of providers, and the entry that each must give.

Every case is run twice: as the code is, and without the lines that handle it, which must give something else. So no
case passes by accident, and no handling stays that nothing needs.
"""

import functools
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from assistant_gateway import wire
from assistant_gateway.wire.usage import Usage

WIRE = Path(__file__).parent / "recorded"
SOURCES = Path(wire.__file__).parent
CASES: dict[str, dict[str, Any]] = yaml.safe_load((WIRE / "cases.yaml").read_text())
MODULES = ("counts", "units", "usage", "completion_text", "sse")  # in the order in which they import each other
UNSAID = {name: "reported" if name == "source" else value for name, value in msgspec.structs.asdict(Usage()).items()}


@functools.cache
def compiled(source: str, name: str) -> types.CodeType:
    """Most cases change one module only."""
    return compile(source, f"{name}.py", "exec")


class Code:
    """The modules, as they are or with one place of one of them changed."""

    def __init__(self, change: dict[str, str] | None = None) -> None:
        self.modules: dict[str, Any] = {}
        for name in MODULES:
            source = (SOURCES / f"{name}.py").read_text()
            if change is not None and change["module"] == name:
                assert source.count(change["find"]) == 1, f"{change['find']!r} has to be once in {name}.py"
                source = source.replace(change["find"], change["replace"])
            for other in MODULES:
                source = source.replace(f"from assistant_gateway.wire.{other} import", f"from replayed_{other} import")
            module = types.ModuleType(f"replayed_{name}")
            sys.modules[module.__name__] = module
            exec(compiled(source, name), module.__dict__)
            self.modules[name] = module

    def entry(self, name: str, body: bytes) -> dict[str, Any]:
        """Return what is charged for a call with this answer."""
        usage, completion_text, sse = (self.modules[module] for module in MODULES[2:])
        if name.endswith(".sse"):
            relay = sse.EventRelay(keep_usage=False, secret=None, limit=2**20)
            relay.feed(body)
            relay.finish()
            reported, text = relay.usage, relay.completion_text.size
        else:
            chunk = usage.chunk_of(body)
            written = completion_text.CompletionText()
            written.add_answer(body)
            reported, text = chunk.reported(), written.size
        held = usage.Usage(input=5000, output=2000)
        charged = usage.charged(reported, completion_text.estimate(40, text), held, trusted=True)
        return {name: _plain(value) for name, value in msgspec.structs.asdict(charged).items()}


def _plain(value: object) -> object:
    return str(value) if isinstance(value, str) else value


@pytest.fixture
def clean_modules() -> Iterator[None]:
    """Take the changed modules away again."""
    yield
    for name in MODULES:
        sys.modules.pop(f"replayed_{name}", None)


def recorded(name: str) -> bytes:
    """Return a case's answer, as far as it was received."""
    return (WIRE / name).read_bytes()[: CASES[name].get("cut")]


@pytest.mark.parametrize("name", CASES)
def test_each_recorded_answer_gives_its_entry(name: str, clean_modules: None) -> None:
    """What providers say in their many ways is charged as the case says."""
    assert Code().entry(name, recorded(name)) == {**UNSAID, **CASES[name]["entry"]}


@pytest.mark.parametrize("name", CASES)
def test_each_case_fails_without_its_handling(name: str, clean_modules: None) -> None:
    """Taking out what handles a case changes its entry, or breaks it."""
    try:
        entry = Code(CASES[name]["without"]).entry(name, recorded(name))
    except (AttributeError, IndexError, TypeError):
        return
    assert entry != {**UNSAID, **CASES[name]["entry"]}


def test_every_recorded_answer_is_a_case() -> None:
    """No file lies in the folder unused, and none is missing."""
    files = {path.name for path in WIRE.iterdir()} - {"cases.yaml"}
    assert files == set(CASES)


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith(".sse")])
def test_streams_may_arrive_in_any_pieces(name: str, clean_modules: None) -> None:
    """Byte by byte or at once: the same statement and the same text."""
    code = Code()
    sse, body = code.modules["sse"], recorded(name)
    whole = sse.EventRelay(keep_usage=True, secret=None, limit=2**20)
    passed = whole.feed(body) + whole.finish()
    pieces = sse.EventRelay(keep_usage=True, secret=None, limit=2**20)
    also = b"".join(pieces.feed(body[at : at + 1]) for at in range(len(body))) + pieces.finish()
    assert (pieces.usage, pieces.completion_text.size, also) == (whole.usage, whole.completion_text.size, passed)


def test_a_client_may_hang_up_at_any_byte(clean_modules: None) -> None:
    """Until usage has come, the text that came is charged, and never less than before; then what was reported."""
    code, body = Code(), (WIRE / "cancelled.sse").read_bytes()
    usage_from = body.index(b'"usage":{')
    before = 0
    for cut in range(len(body) + 1):
        entry = code.entry("cancelled.sse", body[:cut])
        if entry["source"] == "reported":
            assert cut > usage_from
            assert (entry["input"], entry["output"]) == (19, 4)
        else:
            assert entry["input"] == 40
            assert before <= entry["output"] <= len("Hello there friend")
            before = entry["output"]
    assert before == len("Hello there friend")
    assert entry["source"] == "reported"
