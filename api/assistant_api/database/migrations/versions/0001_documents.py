"""Documents with their jobs, their contents, and the two things the operator asks of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# What the operator reports of a knowledge base. `chunks` includes documents that are being removed, so that
# vectors above it are vectors no document accounts for.
COUNTS = """
CREATE VIEW knowledge_base_counts AS
SELECT
    knowledge_base,
    count(*) FILTER (WHERE status <> 'deleting') AS documents,
    count(*) FILTER (WHERE status IN ('pending', 'processing')) AS pending,
    count(*) FILTER (WHERE status = 'failed') AS failed,
    coalesce(sum(chunks), 0)::bigint AS chunks
FROM documents
GROUP BY knowledge_base
"""

# What the operator calls when a knowledge base is deleted; its vectors it removes itself.
FORGET = """
CREATE FUNCTION forget_knowledge_base(key text) RETURNS bigint
LANGUAGE sql SECURITY INVOKER SET search_path = public, pg_temp
AS $$
    WITH removed AS (DELETE FROM documents WHERE knowledge_base = key RETURNING 1)
    SELECT count(*) FROM removed
$$
"""


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "documents",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("knowledge_base", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default="pending"),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("pages", sa.Integer),
        sa.Column("chunks", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("retries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("run_after", moment, nullable=False, server_default=sa.func.now()),
        sa.Column("lease", sa.Uuid),
        sa.Column("leased_until", moment),
        sa.Column("traceparent", sa.Text),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", moment, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_documents"),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'ready', 'failed', 'deleting')", name="ck_documents_status"
        ),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 255", name="ck_documents_name"),
        sa.CheckConstraint("bytes >= 0 AND chunks >= 0", name="ck_documents_sizes"),
        sa.CheckConstraint("(lease IS NULL) = (leased_until IS NULL)", name="ck_documents_lease"),
    )
    op.create_index("ix_documents_knowledge_base_sequence", "documents", ["knowledge_base", "sequence"], unique=True)
    op.create_index("ix_documents_knowledge_base_name", "documents", ["knowledge_base", "name"])
    op.create_index(
        "ix_documents_jobs",
        "documents",
        ["sequence"],
        postgresql_where=sa.text("status IN ('pending', 'processing', 'deleting')"),
    )
    op.create_table(
        "document_contents",
        sa.Column("document_id", sa.Uuid, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("document_id", "part", name="pk_document_contents"),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name="fk_document_contents_document_id", ondelete="CASCADE"
        ),
    )
    # PDFs are compressed already; trying again costs more time than it saves room.
    op.execute("ALTER TABLE document_contents ALTER COLUMN content SET STORAGE EXTERNAL")
    op.execute(COUNTS)
    op.execute(FORGET)


def downgrade() -> None:
    op.execute("DROP FUNCTION forget_knowledge_base(text)")
    op.execute("DROP VIEW knowledge_base_counts")
    op.drop_table("document_contents")
    op.drop_table("documents")
