"""An unknown cost is null, and what has no price is said; also the tier that answered, and counts of other units.

Rows from before this migration have a cost of 0 where the price was unknown: those become null.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNT = """
CREATE OR REPLACE FUNCTION count_ledger_entries() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
BEGIN
    INSERT INTO ledger_totals AS t (tenant_key, scope, entries, tokens, cost)
    SELECT tenant_key, scope, count(*), sum(input + output), coalesce(sum(cost), 0)
    FROM added GROUP BY tenant_key, scope ORDER BY tenant_key, scope
    ON CONFLICT (tenant_key, scope) DO UPDATE SET
        entries = t.entries + excluded.entries, tokens = t.tokens + excluded.tokens, cost = t.cost + excluded.cost;
    RETURN NULL;
END
$$
"""
UNPRICED = """
UPDATE ledger_entries SET cost = NULL, unpriced = 'no price is known'
WHERE price_source = '' AND cost = 0 AND (input > 0 OR output > 0)
"""


def upgrade() -> None:
    for name in ("unpriced", "tier", "details"):  # details: JSON of counts, see `usage.Usage`
        op.add_column("ledger_entries", sa.Column(name, sa.Text))
    op.alter_column("ledger_entries", "cost", existing_type=sa.BigInteger, nullable=True)
    op.execute(COUNT)
    op.execute(UNPRICED)


def downgrade() -> None:
    op.execute("UPDATE ledger_entries SET cost = 0 WHERE cost IS NULL")
    op.alter_column("ledger_entries", "cost", existing_type=sa.BigInteger, nullable=False)
    for name in ("unpriced", "tier", "details"):
        op.drop_column("ledger_entries", name)
