"""A call has an operation and a purpose, and was streamed or not: `road` said all three in one word.

Nothing is rewritten, so that a ledger of any size is migrated at once. Rows of the release before keep `road`, which
reports read (`usage_report`); its gateways write such rows until they are replaced, and again after a rollback.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FILL = """
UPDATE ledger_entries SET road = CASE
    WHEN operation = 'chat' AND streamed THEN 'stream' WHEN operation = 'chat' THEN 'chat'
    WHEN purpose IN ('ingest', 'search') THEN purpose ELSE 'embedding' END
WHERE road IS NULL
"""


def upgrade() -> None:
    for name, kind in (("operation", sa.Text), ("purpose", sa.Text), ("streamed", sa.Boolean)):
        op.add_column("ledger_entries", sa.Column(name, kind))
    op.alter_column("ledger_entries", "road", existing_type=sa.Text, nullable=True)


def downgrade() -> None:
    op.execute(FILL)
    op.alter_column("ledger_entries", "road", existing_type=sa.Text, nullable=False)
    for name in ("operation", "purpose", "streamed"):
        op.drop_column("ledger_entries", name)
