"""Callers of a running API's conversations."""

from __future__ import annotations

import httpx
from api_process import ApiProcess


def caller(api: ApiProcess, key: str) -> httpx.AsyncClient:
    """Return a client with an API key."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=f"{api.url}/api/v1/conversations", headers=headers, timeout=30)
