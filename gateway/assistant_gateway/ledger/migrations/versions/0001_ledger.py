"""The ledger: one row per call, by month; what they add up to; entries nobody could read; epochs of the counters.

Who may do what here is the operator's to grant (`assistant_operator/adapters/ledger_sql.py`): the gateway inserts and
reads, and changes nothing. Months are the operator's to make; a row without one goes to the default partition.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Totals of all time would be a scan of all months otherwise, and would shrink when old months are put away. Runs as
# the owner: who inserts entries may not write here. `scope` is empty for what counts on the tenant's limits alone, so
# a tenant's total is the sum over its scopes.
COUNT = """
CREATE FUNCTION count_ledger_entries() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
BEGIN
    INSERT INTO ledger_totals AS t (tenant_key, scope, entries, tokens, cost)
    SELECT tenant_key, scope, count(*), sum(input + output), sum(cost)
    FROM added GROUP BY tenant_key, scope ORDER BY tenant_key, scope
    ON CONFLICT (tenant_key, scope) DO UPDATE SET
        entries = t.entries + excluded.entries, tokens = t.tokens + excluded.tokens, cost = t.cost + excluded.cost;
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE TRIGGER count_ledger_entries AFTER INSERT ON ledger_entries
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_ledger_entries()
"""


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "ledger_entries",
        sa.Column("at", moment, nullable=False),  # settled, by Redis's clock
        sa.Column("call", sa.Text, nullable=False),  # the hold's id: unique; the writers see to it (see `record`)
        sa.Column("tenant_key", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),  # namespace: may have had other tenants before
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("road", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("answered", sa.Text),
        sa.Column("input", sa.BigInteger, nullable=False),
        sa.Column("cached", sa.BigInteger, nullable=False),
        sa.Column("cache_write", sa.BigInteger, nullable=False),
        sa.Column("output", sa.BigInteger, nullable=False),
        sa.Column("reasoning", sa.BigInteger, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("disputed", sa.Boolean, nullable=False),
        sa.Column("price_input", sa.BigInteger),  # micro-units per million tokens
        sa.Column("price_output", sa.BigInteger),
        sa.Column("price_source", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),  # micro-units
        sa.Column("held_tokens", sa.BigInteger, nullable=False),
        sa.Column("held_cost", sa.BigInteger, nullable=False),
        sa.Column("started", moment, nullable=False),
        sa.Column("duration_us", sa.BigInteger, nullable=False),
        sa.Column("first_byte_us", sa.BigInteger),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("stream_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("call", "at", name="pk_ledger_entries"),
        sa.CheckConstraint("input >= 0 AND output >= 0 AND cost >= 0", name="ck_ledger_entries_amounts"),
        postgresql_partition_by="RANGE (at)",
    )
    op.create_index("ix_ledger_entries_tenant_at", "ledger_entries", ["tenant", "at"])
    # What the day and the month add up to is read from the index alone.
    op.create_index(
        "ix_ledger_entries_tenant_key_at",
        "ledger_entries",
        ["tenant_key", "at"],
        postgresql_include=["scope", "input", "output", "cost"],
    )
    op.execute("CREATE TABLE ledger_entries_default PARTITION OF ledger_entries DEFAULT")
    op.create_table(
        "ledger_totals",
        sa.Column("tenant_key", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_key", "scope", name="pk_ledger_totals"),
    )
    op.create_table(
        "ledger_rejects",  # never dropped: whoever looks after the platform decides what they were
        sa.Column("tenant_key", sa.Text, nullable=False),
        sa.Column("stream_id", sa.Text, nullable=False),
        sa.Column("rejected", moment, nullable=False, server_default=sa.func.now()),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("fields", sa.LargeBinary, nullable=False),  # JSON; what is not text in it is base64
        sa.PrimaryKeyConstraint("tenant_key", "stream_id", name="pk_ledger_rejects"),
    )
    op.create_table(
        "ledger_epochs",  # each time that a tenant's counters were set from the ledger
        sa.Column("tenant_key", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("at", moment, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("tenant_key", "epoch", name="pk_ledger_epochs"),
    )
    op.execute(COUNT)
    op.execute(TRIGGER)


def downgrade() -> None:
    for table in ("ledger_epochs", "ledger_rejects", "ledger_entries", "ledger_totals"):
        op.drop_table(table)
    op.execute("DROP FUNCTION count_ledger_entries()")
