"""Visits of the page in Chromium, in which nothing may go wrong unseen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from api_process import ApiProcess
from playwright.sync_api import Browser, Page, expect

SECONDS = 120.0  # for any one thing that the page should show; a machine that does much else takes long
Troubles = list[str]  # errors of scripts, refusals of the policy, requests to elsewhere


@contextmanager
def opened(chromium: Browser, api: ApiProcess, **options: Any) -> Iterator[tuple[Page, Troubles]]:
    """A page of a browser that has never been here; at its end nothing may have gone wrong in it."""
    context = chromium.new_context(**{"locale": "en-US", "viewport": {"width": 1200, "height": 800}, **options})
    context.set_default_timeout(SECONDS * 1000)
    expect.set_options(timeout=SECONDS * 1000)
    page = context.new_page()
    troubles: Troubles = []
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on(
        "console",
        lambda message: (
            troubles.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            else None
        ),
    )
    page.on("request", lambda request: None if _is_own(request.url, api) else troubles.append(f"left: {request.url}"))
    try:
        page.goto(api.url)
        yield page, troubles
    finally:
        context.close()


def _is_own(url: str, api: ApiProcess) -> bool:
    return url.startswith((f"{api.url}/", "data:", "blob:"))
