"""An answer of the gateway's becomes text, citations and counts."""

from __future__ import annotations

import msgspec
import pytest
from api_world import FakeAnswer, FakeGateway, FakeRetrieval, chunk, document, json_answer, passage, stream_answer

from assistant_api.clients import Clients
from assistant_api.conversations import answering
from assistant_api.conversations.answering import Question, Result, answer
from assistant_api.conversations.schemas import decode_annotations
from assistant_api.gateway import GatewayUnreachableError
from assistant_api.tenant_config import ActiveConfig

DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
FAILED = b'data: {"error":{"message":"no","code":"stream_interrupted"}}\n\n'


async def asked(found: FakeAnswer | Exception, assistant: str = "plain", passages: int = 0) -> tuple[str, Result]:
    """The text that was said, and what else is known."""
    gateway = FakeGateway(found)
    retrieval = FakeRetrieval([passage(number) for number in range(1, passages + 1)])
    clients = Clients(gateway, None, None, None)  # type: ignore[arg-type]
    messages = [{"role": "user", "content": "Why?"}]
    said: list[str] = []
    result = Result()
    question = Question(assistant, messages, ActiveConfig.of(document()), clients, retrieval, "id")
    await answer(question, said.append, result)
    return "".join(said), result


async def test_an_answer_is_read_with_its_model_and_its_tokens() -> None:
    """However it is cut into pieces."""
    stream = b"".join([chunk("One "), chunk("two."), chunk(finish="stop"), USAGE, DONE])
    for size in (1, 7, 1000):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        said, result = await asked(stream_answer(*pieces, x_assistant_model="demo/m"))
        assert (said, result.model, result.tokens, result.error) == ("One two.", "demo/m", (7, 2), None)


async def test_citations_are_kept_without_an_origin() -> None:
    """The name under which this API is reached may change."""
    _, result = await asked(stream_answer(chunk("So [1"), chunk("]."), DONE), "support", passages=1)
    (found,) = decode_annotations(result.annotations or "")
    assert (found.url_citation.start_index, found.url_citation.end_index) == (3, 6)
    assert found.url_citation.url.startswith("/api/v1/knowledge-bases/handbook/documents/")


@pytest.mark.parametrize(
    ("found", "said", "code"),
    [
        (GatewayUnreachableError("down"), "", "gateway_unreachable"),
        (json_answer({"error": {"message": "no", "code": "budget_exhausted"}}, 429), "", "budget_exhausted"),
        (json_answer(b"<html>", 502), "", "provider_unreachable"),
        (json_answer({"choices": []}), "", "provider_unreachable"),
        (stream_answer(chunk("Half"), GatewayUnreachableError("cut")), "Half", "stream_interrupted"),
        (stream_answer(chunk("Half") + FAILED), "Half", "stream_interrupted"),
        (stream_answer(chunk("Half"), RuntimeError("bug")), "Half", "internal_error"),
    ],
)
async def test_whatever_goes_wrong_is_an_error_with_a_code(found: FakeAnswer | Exception, said: str, code: str) -> None:
    """What was said before it stays."""
    words, result = await asked(found)
    assert result.error is not None
    assert (words, result.error.kind.code) == (said, code)


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a size that can be kept, and it says so."""
    monkeypatch.setattr(answering, "MAX_ANSWER_CHARACTERS", 10)
    said, result = await asked(stream_answer(*[chunk("word ")] * 5))
    assert said == "word word "
    assert result.error is not None


async def test_what_the_database_cannot_keep_is_left_out() -> None:
    """Everything else stays; other choices are none of this answer."""
    null = msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": "a\0b"}}]})
    said, result = await asked(stream_answer(b"data: " + null + b"\n\n", chunk("c", index=1), b"data: {\n\n", DONE))
    assert (said, result.error) == ("ab", None)
