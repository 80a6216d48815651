"""The statements by which the ledger's database is kept append-only and divided into months.

All names are ours: they are safe to quote as they are where Postgres takes no parameter.
"""

from __future__ import annotations

from assistant_operator.adapters.postgres_sql import Right

# What the gateway may do with each table. Not the partitions: what is inserted into one of them is not counted.
TABLES = {
    "ledger_entries": ("INSERT", "SELECT"),
    "ledger_rejects": ("INSERT", "SELECT"),
    "ledger_epochs": ("INSERT", "SELECT"),
    "ledger_totals": ("SELECT",),
}
LOCK_SECONDS = 5
MONTH_SECONDS = 300  # of one month, with all the rows that move into it
MONTHS_AHEAD = 2

# The months from this one on, in UTC: name of the partition, its first moment, and the first one after it.
MISSING_MONTHS = """
SELECT name, first, first + interval '1 month'
FROM generate_series(date_trunc('month', now() AT TIME ZONE 'UTC'),
                     date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => $1),
                     interval '1 month') AS first,
     to_char(first, '"ledger_entries_"YYYY_MM') AS name
WHERE to_regclass('public.' || name) IS NULL
ORDER BY first
"""


def table_rights(login: str) -> list[Right]:
    """Return what the login role may do with the ledger's tables: exactly that, also if somebody granted more."""
    return [
        Right(
            """SELECT $3::text = coalesce((SELECT string_agg(a.privilege_type, ',' ORDER BY a.privilege_type)
                   FROM pg_class c, aclexplode(c.relacl) a JOIN pg_roles g ON g.oid = a.grantee
                   WHERE c.oid = to_regclass('public.' || $1) AND g.rolname = $2), '')""",
            (table, login, ",".join(wanted)),
            f'REVOKE ALL ON "{table}" FROM "{login}"; GRANT {", ".join(wanted)} ON "{table}" TO "{login}"',
        )
        for table, wanted in TABLES.items()
    ]


def make_month(name: str, first: str, after: str) -> list[str]:
    """Return how a month gets a partition of its own; what the default partition took of it moves there.

    The rows move beside the parent table, so that they are not counted twice. Whoever inserts waits until that is
    done: a row that came to the default partition meanwhile would make the last statement fail.
    """
    span = f"at >= '{first}+00' AND at < '{after}+00'"
    moved = f"DELETE FROM ledger_entries_default WHERE {span} RETURNING *"  # noqa: S608 - a date of ours
    return [
        f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
        "LOCK TABLE ONLY ledger_entries IN SHARE ROW EXCLUSIVE MODE",
        "LOCK TABLE ledger_entries_default IN ACCESS EXCLUSIVE MODE",
        f'CREATE TABLE "{name}" (LIKE ledger_entries INCLUDING ALL)',
        f'WITH moved AS ({moved}) INSERT INTO "{name}" SELECT * FROM moved',  # noqa: S608 - a name of ours
        f"ALTER TABLE ledger_entries ATTACH PARTITION \"{name}\" FOR VALUES FROM ('{first}+00') TO ('{after}+00')",
    ]
