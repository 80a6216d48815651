"""A small client of the tenant API: what the demo uploads, waits for and asks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from assistant_demo.errors import DemoError

Document = dict[str, Any]
REQUEST_SECONDS = 30.0
ANSWER_SECONDS = 120.0
# What the API answers in the first moments after a change, or while a busy machine keeps a store from answering it.
RETRIED = frozenset({429, 502, 503, 504})
TRIES, PAUSE_SECONDS = 6, 2.0


@dataclass(frozen=True)
class Source:
    """A passage that the answer cites."""

    index: int
    filename: str
    page: int | None
    quote: str

    @classmethod
    def of(cls, annotation: dict[str, Any]) -> Source:
        """Return the source of an annotation; `file_citation` is what the API adds to OpenAI's `url_citation`."""
        cited = annotation["file_citation"]
        return cls(cited["index"], cited["filename"], cited.get("page"), cited.get("quote", ""))


class TenantApi:
    """Calls a tenant's API with its key."""

    def __init__(
        self, url: str, key: str, *, transport: httpx.BaseTransport | None = None, pause: float = PAUSE_SECONDS
    ) -> None:
        self.url = url
        self._pause = pause  # seconds between two tries
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=REQUEST_SECONDS,
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def answers(self) -> str | None:
        """Return None if the API serves requests with this key, else why not."""
        try:
            answer = self._client.get("/v1/models", timeout=5)
        except httpx.TransportError as error:
            return f"{self.url} does not answer yet ({type(error).__name__})."
        return None if answer.is_success else f"{self.url} answers {answer.status_code}."

    def upload(self, knowledge_base: str, path: Path) -> Document:
        """Upload a document; the same bytes under the same name again are the same document."""
        files = {"file": (path.name, path.read_bytes())}
        return self._json(self._request("POST", f"/api/v1/knowledge-bases/{knowledge_base}/documents", files=files))

    def document(self, knowledge_base: str, identifier: str) -> Document:
        """Return a document's state."""
        return self._json(self._request("GET", f"/api/v1/knowledge-bases/{knowledge_base}/documents/{identifier}"))

    def ask(self, assistant: str, question: str) -> Iterator[str | Source]:
        """Ask with streaming; yields pieces of the answer, and the sources when they are known."""
        body = {"model": assistant, "stream": True, "messages": [{"role": "user", "content": question}]}
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body, timeout=ANSWER_SECONDS) as answer:
                if not answer.is_success:
                    answer.read()
                    raise DemoError(self._refusal(answer))
                for line in answer.iter_lines():
                    yield from _pieces(line)
        except httpx.TransportError as error:
            raise DemoError(f"The answer was cut off: {error}. Ask again, or see kubectl logs.") from error

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request that may be sent twice, again while the API cannot serve it."""
        for left in reversed(range(TRIES)):
            try:
                answer = self._client.request(method, path, **options)
            except httpx.TransportError as error:
                hint = "Is the pod assistant-api running?"
                raise DemoError(f"{method} {self.url}{path} failed: {error}. {hint}") from error
            if answer.status_code not in RETRIED or not left:
                break
            time.sleep(self._pause)
        return answer

    def _json(self, answer: httpx.Response) -> Document:
        if not answer.is_success:
            raise DemoError(self._refusal(answer))
        document: Document = answer.json()
        return document

    @staticmethod
    def _refusal(answer: httpx.Response) -> str:
        return (
            f"{answer.request.method} {answer.request.url} was answered with {answer.status_code}: {answer.text[:500]}"
        )


def _pieces(line: str) -> Iterator[str | Source]:
    """The text and the sources in one line of a server-sent event stream."""
    if not line.startswith("data: ") or line == "data: [DONE]":
        return
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        raise DemoError(f"The answer broke off: {chunk['error'].get('message')}")
    for choice in chunk.get("choices", []):
        delta = choice.get("delta", {})
        if delta.get("content"):
            yield delta["content"]
        for annotation in delta.get("annotations") or []:
            yield Source.of(annotation)
