"""Calls of several tenants at once, good and bad, so that every dashboard has something to show."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

ANSWER_SECONDS = 60.0
QUESTIONS = (
    "What does error E23 mean?",
    "Wie hoch ist das Tagegeld?",
    "To which torque are the rear axle nuts of the Larkspur L4 tightened?",
    "When is the workshop open?",
)


@dataclass
class Client:
    """One tenant's client, and what became of its calls: how many by HTTP status, or by the name of an error."""

    tenant: str
    url: str
    key: str
    assistant: str
    pause: float  # seconds between two calls
    results: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"{self.tenant}: {', '.join(f'{number} x {what}' for what, number in sorted(self.results.items()))}"


def run(clients: list[Client], seconds: float, show: Callable[[str], None]) -> None:
    """Have all clients call until the time is over; shows how it goes."""
    over = threading.Event()
    threads = [threading.Thread(target=_call, args=(client, over), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            show(f"{left / 60:.0f} min left" if left > 90 else f"{left:.0f} s left")
            time.sleep(min(15.0, left))
    finally:
        over.set()
    for thread in threads:
        thread.join(ANSWER_SECONDS)


def _call(client: Client, over: threading.Event) -> None:
    number = 0
    with httpx.Client(
        base_url=client.url,
        headers={"Authorization": f"Bearer {client.key}"},
        timeout=ANSWER_SECONDS,
        trust_env=False,
    ) as http:
        while not over.wait(client.pause):
            question = QUESTIONS[number % len(QUESTIONS)]
            body = {
                "model": client.assistant,
                "stream": number % 2 == 0,
                "messages": [{"role": "user", "content": question}],
            }
            try:
                with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                    answer.read()
                    client.results[str(answer.status_code)] += 1
            except httpx.HTTPError as error:
                client.results[type(error).__name__] += 1
            number += 1
