"""The parser's process, apart from being one."""

from __future__ import annotations

import io

import msgspec
import pytest

from assistant_api.knowledge import media, parser
from assistant_api.knowledge.parser import LENGTH, Parsed, ParseFailed, ParseRequest


def request(content: bytes, media_type: str = media.TEXT) -> ParseRequest:
    return ParseRequest(media_type, len(content), 60, 0)


def test_any_failure_inside_the_parser_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours in one document does not end the process."""

    def explode(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(parser, "parse", explode)
    assert parser.answer(request(b"x"), b"x") == parser.FAILED

    def exhaust(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(parser, "parse", exhaust)
    assert parser.answer(request(b"x"), b"x") == parser.OUT_OF_MEMORY


def test_requests_follow_each_other_on_one_pipe() -> None:
    """The protocol: length, message, content; answer by answer, until the pipe ends."""
    source = io.BytesIO()
    for content in (b"one", b"two"):
        header = msgspec.msgpack.encode(request(content))
        source.write(LENGTH.pack(len(header)) + header + content)
    source.seek(0)
    sink = io.BytesIO()
    parser.serve(source, sink)
    sink.seek(0)
    answers = []
    while size := sink.read(LENGTH.size):
        answers.append(msgspec.msgpack.decode(sink.read(LENGTH.unpack(size)[0]), type=Parsed | ParseFailed))
    assert [answer.chunks[0].text for answer in answers if isinstance(answer, Parsed)] == ["one", "two"]
