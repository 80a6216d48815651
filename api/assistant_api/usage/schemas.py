"""What usage looks like on the wire: the gateway's report, and its description in OpenAPI."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Parameter, Schema

from assistant_crds.gateway_api import USAGE_GROUPS

SUMS = (
    *("requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost", "currency"),
    *("estimated_requests", "estimated_cost", "unpriced_requests"),
)
MAX_ROWS = 1000
MAX_PERIOD_DAYS = 400  # of one report


class Total(msgspec.Struct, frozen=True):
    """As much of the sums as is needed here."""

    requests: int


class Pending(msgspec.Struct, frozen=True):
    """Calls that the ledger does not hold yet."""

    totals: list[Total]
    complete: bool


class UsageReport(msgspec.Struct, frozen=True):
    """The gateway's report as far as a table needs it; as JSON it is passed on byte by byte."""

    group_by: list[str]
    as_of: str
    data: list[dict[str, str | int | None]]
    pending: Pending | None = None
    next_cursor: str | None = None


def _query(name: str, description: str, schema: Schema) -> Parameter:
    return Parameter(name=name, param_in="query", description=description, schema=schema, required=False)


_TEXT = Schema(type=OpenAPIType.STRING)
_TIME = Schema(type=OpenAPIType.STRING, pattern=r"^\d{4}-\d\d-\d\d([Tt ].+)?$")
_GROUPS = Schema(type=OpenAPIType.STRING, pattern=rf"^({'|'.join(USAGE_GROUPS)})(,({'|'.join(USAGE_GROUPS)}))*$")
_MOMENT = "A day of the tenant's time zone (2026-01-31), or an RFC 3339 time."
_PARAMETERS = [
    _query("from", f"From here on; default: the beginning of the present month. {_MOMENT}", _TIME),
    _query("to", f"Until here: a day is included, a time is not; default: the end of the month. {_MOMENT}", _TIME),
    _query("group_by", f"Any of {', '.join(USAGE_GROUPS)}, with commas between them; default: day.", _GROUPS),
    _query("assistant", "Calls to this assistant only.", _TEXT),
    _query("user", "Calls for this user only.", _TEXT),
    _query("limit", "Rows of one page.", Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=MAX_ROWS, default=100)),
    _query("cursor", "The `next_cursor` of the page before.", _TEXT),
    _query("format", "Instead of the header `Accept`.", Schema(type=OpenAPIType.STRING, enum=["json", "csv"])),
]
_NUMBER = Schema(type=OpenAPIType.INTEGER)
_MONEY = Schema(type=OpenAPIType.STRING, description="A decimal number, such as 0.001234.")
_COST = Schema(
    type=[OpenAPIType.STRING, OpenAPIType.NULL],
    description="A decimal number; null where the price of none of the requests is known.",
)
_UNPRICED = Schema(
    type=OpenAPIType.INTEGER,
    description="Requests of which all or a part has no known price; `cost` is without it.",
)
_KINDS = {"cost": _COST, "estimated_cost": _MONEY, "currency": _TEXT, "unpriced_requests": _UNPRICED}
_SUMMED = Schema(type=OpenAPIType.OBJECT, properties={name: _KINDS.get(name, _NUMBER) for name in SUMS})
_NULLABLE = Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL])
_ROW = Schema(
    type=OpenAPIType.OBJECT, properties={**dict.fromkeys(USAGE_GROUPS, _NULLABLE), **(_SUMMED.properties or {})}
)
_TOTALS = Schema(type=OpenAPIType.ARRAY, items=_SUMMED, description="One for each currency.")
_PENDING = Schema(
    type=[OpenAPIType.OBJECT, OpenAPIType.NULL],
    description="Calls of the last moments, not part of the other figures; null: unknown.",
    properties={"totals": _TOTALS, "complete": Schema(type=OpenAPIType.BOOLEAN)},
)
_REPORT = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "object": Schema(const="usage"),
        **dict.fromkeys(("from", "to", "time_zone", "as_of"), _TEXT),
        "group_by": Schema(type=OpenAPIType.ARRAY, items=_TEXT),
        "data": Schema(type=OpenAPIType.ARRAY, items=_ROW),
        "totals": _TOTALS,
        "pending": _PENDING,
        "next_cursor": _NULLABLE,
    },
)
_ANSWER = OpenAPIResponse(
    description="What was used, a page of groups and the totals of all of them.",
    content={
        "application/json": OpenAPIMediaType(schema=_REPORT),
        "text/csv": OpenAPIMediaType(schema=_TEXT),
    },
)


@dataclass
class UsageOperation(Operation):
    """The operation with its parameters, which are the gateway's to check, and its two kinds of answers."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or []), *_PARAMETERS]
        self.responses = {**(self.responses or {}), "200": _ANSWER}
