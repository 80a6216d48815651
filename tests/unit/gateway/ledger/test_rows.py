"""An entry of the stream becomes a row of the ledger's table, or is set aside whole."""

from __future__ import annotations

import base64
import importlib.util
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from ledger_tenant import entry

from assistant_crds.gateway_api import Operation, Purpose
from assistant_gateway import ledger
from assistant_gateway.ledger import rows
from assistant_gateway.ledger.entry import LedgerEntry, encode_entry, former_name
from assistant_gateway.ledger.rows import Reject, Row

MIGRATIONS = Path(ledger.__file__).parent / "migrations" / "versions"
AT = 1_790_000_000_123_456


def fields(said: LedgerEntry, at: int = AT) -> dict[bytes, bytes]:
    return {b"at": str(at).encode(), b"entry": encode_entry(said)}


def test_a_row_has_every_column_of_the_table() -> None:
    """What the migration makes and what is written have the same columns in the same order."""
    text = (MIGRATIONS / "0001_ledger.py").read_text()
    table = text[text.index('"ledger_entries",') : text.index("sa.PrimaryKeyConstraint")]
    added = re.search(r"for name in \(([^)]*)\)", (MIGRATIONS / "0002_unpriced.py").read_text())
    assert added is not None
    later = re.findall(r'"(\w+)"', added[1])
    later += re.findall(r'\("(\w+)", sa\.\w+\)', (MIGRATIONS / "0004_operation.py").read_text())
    first = [name for name in re.findall(r'sa\.Column\("(\w+)"', table) if name != "road"]
    assert first + later == list(rows.COLUMNS)
    row = rows.read("t_a", "5-0", fields(entry("c")))
    assert isinstance(row, Row)
    assert len(row.values) == len(rows.COLUMNS)


def test_every_field_of_an_entry_has_a_place() -> None:
    """A field that is added to entries and forgotten here would never be billed."""
    renamed = {"user": "user_id", "duration": "duration_us", "first_byte": "first_byte_us"}
    said = {renamed.get(name, name) for name in LedgerEntry.__struct_fields__}
    assert said - {"road"} == set(rows.COLUMNS) - {"at", "tenant_key", "stream_id"}


@pytest.mark.parametrize(
    ("former", "operation", "purpose", "streamed"),
    [
        ("chat", "chat", "chat", False),
        ("stream", "chat", "chat", True),
        ("ingest", "embeddings", "ingest", False),
        ("search", "embeddings", "search", False),
        ("embedding", "embeddings", "other", False),
    ],
)
def test_entries_of_the_release_before_keep_their_meaning(
    former: str, operation: Operation, purpose: Purpose, *, streamed: bool
) -> None:
    """During an upgrade two releases read one another's entries: the old one needs its word, the new one reads it."""
    document = msgspec.json.decode(encode_entry(entry("c")))
    del document["operation"], document["purpose"]
    old = {b"at": str(AT).encode(), b"entry": msgspec.json.encode({**document, "road": former})}
    row = rows.read("t_a", "5-0", old)
    assert isinstance(row, Row)
    found = dict(zip(rows.COLUMNS, row.values, strict=True))
    assert [found[name] for name in ("operation", "purpose", "streamed")] == [operation, purpose, streamed]
    assert former_name(operation, purpose, streamed=streamed) == former


def test_an_entry_without_operation_is_set_aside() -> None:
    """What neither release writes is no entry."""
    for said in (entry("c", operation=""), entry("c", purpose="", road="elsewhere")):
        found = rows.read("t_a", "5-0", fields(said))
        assert isinstance(found, Reject)
        assert "`operation`" in found.reason


def test_an_unknown_cost_is_null_and_never_zero() -> None:
    """A call that cost nothing and one whose price nobody knows are not the same on a bill."""
    unknown = entry("c", cost=0, price_source="", unpriced="no price is known")
    in_part = entry("c", cost=5, price_source="litellm 1", unpriced="searches", details={"searches": 2})
    free = entry("c", cost=0, price_source="own endpoint")
    found = [rows.read("t_a", "5-0", fields(each)) for each in (unknown, in_part, free)]
    names = list(rows.COLUMNS)
    costs = [row.values[names.index("cost")] for row in found if isinstance(row, Row)]
    assert costs == [None, 5, 0]
    told = [row.values[names.index("unpriced")] for row in found if isinstance(row, Row)]
    assert told == ["no price is known", "searches", None]
    assert isinstance(found[1], Row)
    assert found[1].values[names.index("details")] == '{"searches":2}'


def test_times_keep_their_microseconds() -> None:
    """Floating point would round them."""
    row = rows.read("t_a", "5-0", fields(entry("c")))
    assert isinstance(row, Row)
    assert row.at == datetime(2026, 9, 21, 14, 13, 20, 123456, UTC)
    assert (row.call, row.scope, row.tokens, row.cost, row.stream_id) == ("c", "support", 12, 3, "5-0")


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
@pytest.mark.parametrize("name", ["user", "request", "model", "answered"])
def test_a_text_that_postgres_has_no_place_for_is_set_aside(name: str, value: str) -> None:
    """A NUL character and half a surrogate pair are valid in JSON only."""
    document = msgspec.json.decode(encode_entry(entry("c")))
    text = msgspec.json.encode({**document, name: "?"}).replace(
        b'"?"', b'"' + (b"a\\u0000b", b"\\ud800")[value == "\ud800"] + b'"'
    )
    found = rows.read("t_a", "5-0", {b"at": b"1", b"entry": text})
    assert isinstance(found, Reject)
    assert found.stream_id == "5-0"


@pytest.mark.parametrize("number", [-1, 2**63])
def test_a_number_that_postgres_has_no_place_for_is_set_aside(number: int) -> None:
    """Neither negative nor larger than a column."""
    document = {**msgspec.json.decode(encode_entry(entry("c"))), "cost": number}
    found = rows.read("t_a", "5-0", {b"at": b"1", b"entry": msgspec.json.encode(document)})
    assert isinstance(found, Reject)


def test_what_is_set_aside_is_kept_whole() -> None:
    """Bytes that are no text are there all the same."""
    found = rows.read("t_a", "5-0", {b"at": b"1", b"entry": b"\xff\x00", b"more": b"x"})
    assert isinstance(found, Reject)
    kept = msgspec.json.decode(found.fields)
    assert kept == {"at": "1", "entry": "base64:" + base64.b64encode(b"\xff\x00").decode(), "more": "x"}
    assert found.reason


def test_an_entry_of_a_newer_gateway_is_read() -> None:
    """During an upgrade an older drain meets fields that it does not know."""
    document = {**msgspec.json.decode(encode_entry(entry("c"))), "new": 1}
    assert isinstance(rows.read("t_a", "5-0", {b"at": b"1", b"entry": msgspec.json.encode(document)}), Row)


def test_the_migrations_need_nothing_of_the_package() -> None:
    """The operator carries them as data: whatever they import has to be in its image."""
    for path in [*MIGRATIONS.glob("*.py"), MIGRATIONS.parent / "env.py"]:
        assert "assistant_gateway." not in re.sub(r"`[^`]*`", "", path.read_text())
        assert importlib.util.spec_from_file_location(path.stem, path) is not None
