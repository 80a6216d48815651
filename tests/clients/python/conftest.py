"""What every client is given: an address, a key, and what is to be found there. They are the environment's words.

These tests run in an environment of the clients' own (`tests/clients/environment.py`), against a platform that
`tests/integration/clients` starts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_AGENTS_DISABLE_TRACING": "1"}


@dataclass(frozen=True)
class Endpoint:
    """Where the assistants are: `support` cites, `plain` does not, `limited` takes one request a minute."""

    url: str  # with /v1
    key: str
    question: str
    words: str  # which the cited answer has
    title: str  # of the document that it cites


@pytest.fixture(scope="session")
def endpoint() -> Endpoint:
    """The tenant's endpoint."""
    names = ("url", "key", "question", "words", "title")
    return Endpoint(**{name: os.environ[f"CLIENTS_{name.upper()}"] for name in names})
