"""The error envelope."""

from __future__ import annotations

import json

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
