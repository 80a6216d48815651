"""The error envelope."""

from __future__ import annotations

import json

from assistant_crds.contracts import NOT_STARTED_HEADER
from assistant_gateway import errors


def test_envelope_has_openais_fields() -> None:
    """Clients find message, type, param and code where they look for them, as an answer and as an event."""
    error = errors.invalid_request("'model' is required.", "model", code="missing_field")
    expected = {
        "error": {
            "message": "'model' is required.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "missing_field",
        }
    }
    assert json.loads(error.body()) == expected
    event = error.event()
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert json.loads(event[6:]) == expected


def test_message_with_line_breaks_stays_one_event() -> None:
    """Whatever a message holds, the event that carries it is one line."""
    event = errors.provider_error("p", "said:\n\ndata: [DONE]\n\n").event()
    assert event.count(b"\n") == 2


def test_what_was_not_begun_says_so_and_what_was_does_not() -> None:
    """The tenant API asks such a call again; one that a provider may bill is never marked."""
    assert NOT_STARTED_HEADER in errors.not_started(errors.shutting_down()).headers
    assert NOT_STARTED_HEADER not in errors.shutting_down().headers
