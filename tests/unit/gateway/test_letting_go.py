"""What failed requests leave in memory: nothing, without the help of the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from assistant_gateway import errors
from assistant_gateway.errors import GatewayError


class Body:
    """Stands for ten megabytes."""


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Have the garbage collector look at nothing."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def refused() -> tuple[GatewayError, weakref.ref[Body]]:
    """Return an error from deep inside of a request, with one before it, and what the request held."""

    def look(body: Body) -> None:
        try:
            raise ValueError(body.__class__.__name__)
        except ValueError as before:
            raise GatewayError(413, "x", "x") from before

    body = Body()
    try:
        look(body)
    except GatewayError as error:
        kept = error  # as whoever tries another destination keeps it
    errors.let_go(kept)
    return kept, weakref.ref(body)


def test_an_error_that_is_kept_holds_no_request(uncollected: None) -> None:
    """Frames of the error, and of those before it, are gone at once."""
    error, body = refused()
    assert error.code == "x"
    assert body() is None
