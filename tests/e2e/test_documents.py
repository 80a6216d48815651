"""Bad documents harm nobody: they fail with a reason, and the worker goes on."""

from __future__ import annotations

import io
import os

import pytest
from e2e_platform import NewTenant, Tenant
from fpdf import FPDF

from assistant_crds import naming


@pytest.fixture(scope="module")
def library(shared_tenant: NewTenant) -> Tenant:
    """A tenant with a knowledge base of small limits."""
    tenant = shared_tenant("docs")
    tenant.knowledge_base(limits={"documents": 20, "bytes": "40Mi"})
    tenant.assistant("reader", knowledgeBases=[{"name": "handbook"}])
    tenant.wait_ready()
    return tenant


def pdf(text: str = "", *, password: str = "") -> bytes:
    """Return a PDF of one page."""
    document = FPDF()
    document.add_page()
    document.set_font("helvetica", size=12)
    if text:
        document.multi_cell(0, 8, text)
    if password:
        document.set_encryption(owner_password="owner", user_password=password)
    return bytes(document.output())


BAD = {
    "broken.pdf": pdf("A page that is cut off.")[:400],
    "garbage.pdf": b"%PDF-1.7\n" + os.urandom(200_000),
    "locked.pdf": pdf("A secret page.", password="sesame"),
    "scanned.pdf": pdf(),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_document_fails_with_a_reason_and_the_worker_lives(library: Tenant, name: str) -> None:
    """The document's state is `failed` with a code and a sentence; the next document is read as if nothing was."""
    restarts = _restarts(library)
    document = library.wait_document(library.upload(name, BAD[name])["id"], "failed")
    assert document["error"]["code"]
    assert len(document["error"]["message"]) > 10
    print(f"\n{name}: {document['error']}")
    good = library.upload(f"after-{name}.md", f"# After {name}\n\nThe gate opens at seven.\n".encode())
    assert library.wait_document(good["id"], "ready")["chunks"] >= 1
    assert _restarts(library) == restarts


def _restarts(tenant: Tenant) -> list[tuple[str, int]]:
    return [
        (status["containerID"], status["restartCount"])
        for pod in tenant.pods(naming.WORKER)
        for status in pod["status"]["containerStatuses"]
    ]


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("photo.png", b"\x89PNG\r\n\x1a\n" + os.urandom(5000), 415),
        ("empty.md", b"", 400),
        ("huge.txt", b"word " * (33 * 1024 * 1024 // 5), 413),
    ],
)
def test_what_cannot_be_read_at_all_is_refused_at_the_door(
    library: Tenant, name: str, content: bytes, status: int
) -> None:
    """A wrong kind, an empty file and a huge one are 4xx problems with a code; nothing is kept of them."""
    with library.http() as client:
        answer = client.post(
            "/api/v1/knowledge-bases/handbook/documents", files={"file": (name, io.BytesIO(content))}, timeout=60
        )
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["code"]
        names = [item["name"] for item in client.get("/api/v1/knowledge-bases/handbook/documents").json()["data"]]
    assert name not in names


def test_a_large_document_is_read_completely(library: Tenant) -> None:
    """A PDF of 400 pages becomes searchable, its last page too."""
    document = FPDF()
    document.set_font("helvetica", size=11)
    for number in range(1, 401):
        document.add_page()
        document.multi_cell(0, 6, f"Page {number}. The locker number {number * 7} belongs to room {number}. " * 10)
    uploaded = library.upload("lockers.pdf", bytes(document.output()))
    ready = library.wait_document(uploaded["id"], "ready", seconds=180)
    assert ready["pages"] == 400
    with library.http() as client:
        body = {"query": "Which room has the locker number 2800?", "limit": 3}
        found = client.post("/api/v1/knowledge-bases/handbook/search", json=body)
    assert found.is_success, found.text
    assert "2800" in found.text


def test_the_same_document_again_is_the_same_and_a_deleted_one_is_gone(library: Tenant) -> None:
    """Uploading the same bytes under the same name makes no second document; deletion removes it from answers."""
    content = b"# Parrot\n\nThe office parrot is called Wilhelmina.\n"
    first = library.upload("parrot.md", content)
    assert library.upload("parrot.md", content)["id"] == first["id"]
    library.wait_document(first["id"], "ready")
    messages = [{"role": "user", "content": "How is the office parrot called?"}]
    with library.openai() as client:
        answer = client.chat.completions.create(model="reader", messages=messages)
        assert "Wilhelmina" in (answer.choices[0].message.content or "")
        with library.http() as rest:
            gone = rest.delete(f"/api/v1/knowledge-bases/handbook/documents/{first['id']}")
            assert gone.status_code in {202, 204}
        answer = client.chat.completions.create(model="reader", messages=messages)
        assert "Wilhelmina" not in (answer.choices[0].message.content or "")
