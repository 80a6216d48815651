"""Which version of parser and index a document was read by, and how documents are read again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A row with `first_id` reads a document again. Until it is ready it is no document of its own: it is counted as
# pending, and its vectors are accounted for.
COUNTS = """
CREATE OR REPLACE VIEW knowledge_base_counts AS
SELECT
    knowledge_base,
    count(*) FILTER (WHERE status <> 'deleting' AND (first_id IS NULL OR status = 'ready')) AS documents,
    count(*) FILTER (WHERE status IN ('pending', 'processing')) AS pending,
    count(*) FILTER (WHERE status = 'failed' AND first_id IS NULL) AS failed,
    coalesce(sum(chunks), 0)::bigint AS chunks
FROM documents
GROUP BY knowledge_base
"""
FORMER_COUNTS = """
CREATE OR REPLACE VIEW knowledge_base_counts AS
SELECT
    knowledge_base,
    count(*) FILTER (WHERE status <> 'deleting') AS documents,
    count(*) FILTER (WHERE status IN ('pending', 'processing')) AS pending,
    count(*) FILTER (WHERE status = 'failed') AS failed,
    coalesce(sum(chunks), 0)::bigint AS chunks
FROM documents
GROUP BY knowledge_base
"""

# What the API and the operator call to have documents read again; returns how many were queued by this call. First it
# waits for uploads into the same knowledge base, as they wait for each other (`repository.lock`). Documents with a
# newer version in any state are left out: the last upload wins.
REINDEX = """
CREATE FUNCTION reindex_knowledge_base(key text, version integer) RETURNS bigint
LANGUAGE sql SECURITY INVOKER SET search_path = public, pg_temp
AS $$
    INSERT INTO documents (id, sequence, knowledge_base, name, media_type, bytes, sha256, status)
    OVERRIDING SYSTEM VALUE VALUES (gen_random_uuid(), -1, key, 'reindex', '', 0, '', 'deleting');
    DELETE FROM documents WHERE knowledge_base = key AND sequence = -1;
    SELECT pg_notify('documents', '');
    WITH again AS (
        UPDATE documents SET status = 'pending', error_code = NULL, error_message = NULL, attempts = 0, retries = 0,
                             run_after = now(), updated_at = now()
        WHERE knowledge_base = key AND first_id IS NOT NULL AND status = 'failed'
        RETURNING 1
    ), queued AS (
        INSERT INTO documents (id, knowledge_base, name, media_type, bytes, sha256, first_id)
        SELECT gen_random_uuid(), key, d.name, d.media_type, d.bytes, d.sha256, coalesce(d.first_id, d.id)
        FROM documents d
        WHERE d.knowledge_base = key AND d.status = 'ready' AND d.index_version < version
        AND NOT EXISTS (SELECT FROM documents n WHERE n.knowledge_base = key AND n.name = d.name
                        AND n.sequence > d.sequence AND n.status <> 'deleting')
        ORDER BY d.sequence
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM again) + (SELECT count(*) FROM queued)
$$
"""


def upgrade() -> None:
    op.add_column("documents", sa.Column("index_version", sa.Integer, nullable=False, server_default="0"))
    op.add_column("documents", sa.Column("first_id", sa.Uuid))
    op.create_index(
        "ix_documents_first_id", "documents", ["first_id"], postgresql_where=sa.text("first_id IS NOT NULL")
    )
    op.execute(COUNTS)
    op.execute(REINDEX)


def downgrade() -> None:
    op.execute("DROP FUNCTION reindex_knowledge_base(text, integer)")
    op.execute(FORMER_COUNTS)
    op.drop_index("ix_documents_first_id", "documents")
    op.drop_column("documents", "first_id")
    op.drop_column("documents", "index_version")
