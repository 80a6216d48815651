"""Calls to a tenant's API: what is tried again, and what is not."""

import httpx
import pytest

from assistant_demo.errors import DemoError
from assistant_demo.tenant_api import TRIES, TenantApi

DOCUMENT = {"id": "1", "status": "pending"}


def api(*statuses: int) -> tuple[TenantApi, list[httpx.Request]]:
    """Return an API that answers with these statuses in turn, the last one for ever, and the requests it gets."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        status = statuses[min(len(requests), len(statuses)) - 1]
        return httpx.Response(status, json=DOCUMENT if status < 400 else {"code": "storage_unavailable"})

    return TenantApi("http://tenant", "ak_x", transport=httpx.MockTransport(answer), pause=0), requests


def test_an_upload_is_sent_whole_again_while_a_store_does_not_answer(tmp_path):
    """The same bytes are the same document, so a second request does no harm."""
    path = tmp_path / "notes.txt"
    path.write_text("The bell rings at noon.")
    calls, requests = api(503, 503, 202)
    assert calls.upload("handbook", path) == DOCUMENT
    assert len(requests) == 3
    assert all(b"The bell rings at noon." in request.content for request in requests)


def test_what_stays_unavailable_ends_with_the_answer():
    """The error shows what the API said last."""
    calls, requests = api(503)
    with pytest.raises(DemoError, match=r"503.*storage_unavailable"):
        calls.document("handbook", "1")
    assert len(requests) == TRIES


def test_a_refusal_is_not_tried_again():
    """A wrong key stays wrong."""
    calls, requests = api(401, 200)
    with pytest.raises(DemoError, match="401"):
        calls.document("handbook", "1")
    assert len(requests) == 1
