"""A document out of a multipart body."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from assistant_api.disconnect import ClientDisconnectedError
from assistant_api.errors import ApiError
from assistant_api.knowledge import upload
from assistant_api.knowledge.repository import MAX_PART_BYTES

BOUNDARY = "b"


def form(*fields: tuple[str, str | None, bytes]) -> bytes:
    """Return a form of (field, file name, content)."""
    parts = []
    for name, filename, content in fields:
        file = "" if filename is None else f'; filename="{filename}"'
        parts.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
        )
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def stream(body: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def receive(body: bytes, size: int = 7) -> tuple[str, int, str, list[bytes], bytes]:
    with upload.empty_upload() as received:
        await upload.receive(received, BOUNDARY, stream(body, size))
        return received.name, received.size, received.sha256, list(received.parts()), received.head


async def refusal(body: bytes, size: int = 7) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await receive(body, size)
    return caught.value


async def test_the_file_of_a_form_is_taken() -> None:
    """Name, size, digest and content come from the field `file`; other fields do not matter."""
    content = b"Some text.\r\n--x"
    name, size, digest, parts, head = await receive(form(("note", None, b"x"), ("file", "a.txt", content)))
    assert (name, size, digest) == ("a.txt", len(content), hashlib.sha256(content).hexdigest())
    assert (parts, head) == ([content], content)


async def test_a_large_file_comes_back_in_parts() -> None:
    """The content is handed on in the pieces in which it is stored, and never held as a whole."""
    content = bytes(range(256)) * (MAX_PART_BYTES // 100)
    _, size, _, parts, _ = await receive(form(("file", "a.txt", content)), size=65_536)
    assert size == len(content)
    assert [len(part) for part in parts] == [MAX_PART_BYTES, MAX_PART_BYTES, size - 2 * MAX_PART_BYTES]
    assert b"".join(parts) == content


async def test_what_httpx_sends_is_understood() -> None:
    """The commonest Python client's forms, with a name outside ASCII, arrive as they were."""
    request = httpx.Request("POST", "http://x", files={"file": ("Grüße.md", b"# Hallo")})
    boundary = upload.boundary_of(request.headers["content-type"])
    with upload.empty_upload() as received:
        await upload.receive(received, boundary, stream(request.read()))
        assert received.name == "Grüße.md"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "multipart"),
        (b"no form at all", "multipart"),
        (form(("file", "a.txt", b"x"))[:-6], "multipart"),
        (form(("other", "a.txt", b"x")), "missing"),
        (form(("file", "a.txt", b"")), "empty"),
        (form(("file", None, b"x")), "filename"),
        (form(("file", " \u200b", b"x")), "filename"),
        (form(("file", "a" * 256, b"x")), "filename_length"),
        (form(("file", "a.txt", b"x"), ("file", "b.txt", b"y")), "single"),
        (form(*((f"f{number}", None, b"x") for number in range(20))), "multipart"),
    ],
)
async def test_a_form_that_is_not_one_file_is_refused(body: bytes, reason: str) -> None:
    """The error is a 400 that names the field and what is wrong with it."""
    error = await refusal(body)
    assert (error.kind.status, error.field, error.values["reason"].name) == (400, "file", reason)  # type: ignore[attr-defined]


async def test_a_file_that_is_too_large_is_refused_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing beyond the limit is read or kept."""
    monkeypatch.setattr(upload, "MAX_DOCUMENT_BYTES", 100)
    read = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal read
        async for chunk in stream(form(("file", "a.txt", b"x" * 10_000)), 50):
            read += len(chunk)
            yield chunk

    with upload.empty_upload() as received, pytest.raises(ApiError) as caught:
        await upload.receive(received, BOUNDARY, counted())
    assert caught.value.kind.code == "document_too_large"
    assert read < 400


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=b"])
def test_other_bodies_are_415(content_type: str) -> None:
    """A body that is no form is refused by its content type."""
    with pytest.raises(ApiError) as caught:
        upload.boundary_of(content_type)
    assert caught.value.kind.status == 415


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "a.txt"),
        ("C:\\Users\\me\\a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("a\nb\x00\u202ec.txt", "abc.txt"),
        ("u\u0308.txt", "ü.txt"),
        ("  a b.txt ", "a b.txt"),
    ],
)
def test_names_are_plain_file_names(name: str, expected: str) -> None:
    """No folders, no invisible characters, one form of each letter: a name is shown, logged and compared."""
    assert upload.clean_name(name) == expected


def messages(*messages: dict[str, Any]) -> Any:
    waiting = list(messages)

    async def receive_message() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    return receive_message


async def test_a_body_ends_with_its_last_message() -> None:
    """ASGI messages become a stream of bytes."""
    source = messages(
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "body": b"b"},
    )
    assert [chunk async for chunk in upload.body_of(source)] == [b"a", b"b"]


async def test_a_caller_who_hangs_up_during_the_upload_is_gone() -> None:
    """Half a document is nobody's document."""
    source = messages({"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"})
    with pytest.raises(ClientDisconnectedError):
        [chunk async for chunk in upload.body_of(source)]


async def test_a_body_that_stops_coming_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that sends nothing for too long gets 408 and frees its place."""
    monkeypatch.setattr(upload, "IDLE_TIMEOUT_SECONDS", 0.05)
    with pytest.raises(ApiError) as caught:
        [chunk async for chunk in upload.body_of(messages({"type": "http.request", "body": b"a", "more_body": True}))]
    assert caught.value.kind.status == 408


async def test_a_body_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form around the document is bounded too."""
    monkeypatch.setattr(upload, "MAX_BODY_BYTES", 10)
    source = messages(*({"type": "http.request", "body": b"12345", "more_body": True} for _ in range(5)))
    with pytest.raises(ApiError) as caught:
        [chunk async for chunk in upload.body_of(source)]
    assert caught.value.kind.code == "document_too_large"


@pytest.mark.parametrize(
    ("disposition", "expected"),
    [
        ("filename=\"R.md\"; filename*=UTF-8''R%C3%BCckgabe.md", "Rückgabe.md"),
        ("filename*=utf-8'de'R%C3%BCckgabe.md", "Rückgabe.md"),
        ("filename*=iso-8859-1''R%FCckgabe.md", "Rückgabe.md"),
        ("filename=\"R.md\"; filename*=UTF-8''R%FCckgabe.md", "R.md"),
        ("filename=\"R.md\"; filename*=UTF-8''..%2F..%2FS.md", "S.md"),
    ],
)
async def test_a_name_outside_ascii_is_taken_from_its_extended_form(disposition: str, expected: str) -> None:
    """Clients that write `filename*` mean that name; one that cannot be read gives way to the plain one."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; {disposition}\r\n\r\n'
    name, *_ = await receive(f"{head}text\r\n--{BOUNDARY}--\r\n".encode())
    assert name == expected
