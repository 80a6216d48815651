"""Ask the gateway for usage, say in our words what it refuses, and make a table of it that spreadsheets may open."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import msgspec

from assistant_api import errors
from assistant_api.decoding import MALFORMED
from assistant_api.errors import ApiError, Reason, from_gateway
from assistant_api.gateway import Gateway, GatewayError, GatewayUnreachableError
from assistant_api.usage.schemas import MAX_PERIOD_DAYS, MAX_ROWS, SUMS, UsageReport
from assistant_crds.gateway_api import USAGE_GROUPS
from assistant_observability import logs

RETRY_AFTER_SECONDS = 5.0
# What the gateway says of a parameter -> our sentence; everything else "has a value that is not allowed".
REASONS = {
    "unknown_parameter": Reason("unknown", {}),
    "repeated_parameter": Reason("repeated", {}),
    "invalid_date": Reason("moment", {}),
    "invalid_period": Reason("period", {}),
    "period_too_long": Reason("days", {"days": str(MAX_PERIOD_DAYS)}),
    "invalid_group_by": Reason("choices", {"choices": ", ".join(USAGE_GROUPS)}),
    "invalid_limit": Reason("range", {"low": "1", "high": str(MAX_ROWS)}),
}
# A cell that begins like this is a formula to Excel, LibreOffice or Google Sheets; the last four are full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001
_decode = msgspec.json.Decoder(UsageReport).decode

_log = logs.logger(__name__)


async def ask(gateway: Gateway, parameters: Sequence[tuple[str, str]]) -> bytes:
    """Return the gateway's report as it is; ApiError names the parameter that is wrong."""
    try:
        return await gateway.usage(parameters)
    except GatewayUnreachableError as error:
        _log.warning("gateway unreachable", reason=str(error))
        raise from_gateway(error) from error
    except GatewayError as error:
        raise _refused(error) from error


def _refused(error: GatewayError) -> ApiError:
    if error.status == 400 and error.param is not None:  # a name may be empty
        return ApiError(errors.INVALID_FIELD, field=error.param, reason=REASONS.get(error.code, Reason("value", {})))
    if error.status == 404:  # the policy has not arrived
        return ApiError(errors.NOT_READY, retry_after=1)
    if error.status in {401, 403}:
        return from_gateway(error)
    _log.warning("usage not available", status=error.status, code=error.code)
    return ApiError(errors.USAGE_UNAVAILABLE, retry_after=error.retry_after or RETRY_AFTER_SECONDS)


def read(content: bytes) -> UsageReport:
    """Return the report; ApiError when it is none."""
    try:
        return _decode(content)
    except MALFORMED as error:
        _log.warning("not a report of usage", reason=str(error))
        raise ApiError(errors.USAGE_UNAVAILABLE, retry_after=RETRY_AFTER_SECONDS) from error


def table(report: UsageReport) -> str:
    """Return the rows as CSV (RFC 4180) with a head; no cell can act as a formula."""
    columns = [*report.group_by, *SUMS]
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_MINIMAL)
    writer.writerow(columns)
    writer.writerows([[_cell(row.get(name)) for name in columns] for row in report.data])
    return out.getvalue()


def _cell(value: str | int | None) -> str | int:
    if not isinstance(value, str):
        return "" if value is None else value
    # Spaces before it are skipped by some programs. An apostrophe makes it text, and is not shown.
    return f"'{value}" if value.lstrip(" ").startswith(_FORMULA) else value


def pending(report: UsageReport) -> str:
    """Return how many calls the table does not have yet, `+` for more; `unknown` when nobody knows."""
    if report.pending is None:
        return "unknown"
    requests = sum(total.requests for total in report.pending.totals)
    return f"{requests}" if report.pending.complete else f"{requests}+"


def prefers_csv(accept: str | None) -> bool:
    """Whether an `Accept` header (RFC 9110) names `text/csv`, and ranks it above JSON."""
    weights: dict[str, float] = {}
    for part in (accept or "").lower().split(",")[:20]:
        kind, *parameters = [piece.strip() for piece in part.split(";")]
        weights[kind] = next((_weight(piece[2:]) for piece in parameters if piece.startswith("q=")), 1.0)
    json = next((weights[kind] for kind in ("application/json", "application/*", "*/*") if kind in weights), 0.0)
    return weights.get("text/csv", 0.0) > json


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
