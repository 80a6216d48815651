"""Logs have one shape and hold no secrets."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

from assistant_observability import logs, traces


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Give the test runner its own handlers back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.usefixtures("restored_logging")
class TestJson:
    def test_our_lines_and_those_of_libraries_have_one_shape(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A line of ours and one of a library both carry time, level, logger, service and event."""
        logs.configure("gateway")
        logs.logger("ours").info("started", port=8081)
        logging.getLogger("theirs").warning("slow %s", "query")
        ours, theirs = lines(capsys)
        assert ours["event"] == "started"
        assert ours["port"] == 8081
        assert theirs["event"] == "slow query"
        assert theirs["level"] == "warning"
        for line in (ours, theirs):
            assert line["service"] == "gateway"
            assert {"timestamp", "logger", "level"} <= line.keys()

    def test_pythons_own_warnings_have_the_same_shape(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A library's deprecation is a line like any other, not loose text between JSON objects."""
        logs.configure("gateway")
        with warnings.catch_warnings():  # pytest's own recording is off in here
            logging.captureWarnings(capture=False)
            logging.captureWarnings(capture=True)
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
            logging.captureWarnings(capture=False)
        (line,) = lines(capsys)
        assert "DeprecationWarning: old" in str(line["event"])
        assert line["logger"] == "py.warnings"

    def test_levels_below_the_configured_one_are_dropped(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With level WARNING an info line is not written."""
        logs.configure("api", level="warning")
        logs.logger("x").info("quiet")
        assert lines(capsys) == []

    @pytest.mark.parametrize("field", ["password", "api_key", "postgres_dsn", "Authorization", "gateway_token"])
    def test_fields_that_name_a_secret_are_masked(self, field: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The value of a field named like a secret never reaches the line."""
        logs.configure("api")
        logs.logger("x").info("connect", **{field: "hunter2"})
        assert lines(capsys)[0][field] == logs.REDACTED

    def test_secrets_inside_exceptions_are_masked(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A password in a URL and a bearer token disappear from a logged traceback."""
        logs.configure("api")
        try:
            raise ConnectionError("postgresql://u:hunter2@db/x refused Bearer abc.def")
        except ConnectionError:
            logs.logger("x").exception("failed")
        written = json.dumps(lines(capsys))
        assert "ConnectionError" in written
        assert "hunter2" not in written
        assert "abc.def" not in written

    def test_a_line_inside_a_span_names_its_trace(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The trace id of the current span is on the line."""
        logs.configure("api")
        with TracerProvider().get_tracer("t").start_as_current_span("work") as span:
            logs.logger("x").info("inside")
        assert lines(capsys)[0]["trace_id"] == f"{span.get_span_context().trace_id:032x}"


def test_trace_context_survives_a_hop() -> None:
    """What is injected into headers on one side is the parent on the other."""
    headers: dict[str, str] = {}
    tracer = TracerProvider().get_tracer("t")
    with tracer.start_as_current_span("client") as client:
        traces.inject(headers)
    server = tracer.start_span("server", context=traces.extract(headers))
    assert server.get_span_context().trace_id == client.get_span_context().trace_id
