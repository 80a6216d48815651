"""Conversations, their messages as a tree, and what people think of answers. Only adds; older releases know nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "conversations",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("assistant", sa.Text, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("archived", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("leaf_id", sa.Uuid),
        sa.Column("messages", sa.Integer, nullable=False, server_default="0"),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now()),
        sa.Column("active_at", moment, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
        sa.CheckConstraint("char_length(title) BETWEEN 1 AND 200", name="ck_conversations_title"),
    )
    op.create_index("ix_conversations_list", "conversations", ["owner", "archived", "pinned", "active_at", "id"])
    op.create_table(
        "messages",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("conversation_id", sa.Uuid, nullable=False),
        sa.Column("parent_id", sa.Uuid),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False, server_default=""),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("annotations", sa.Text),
        sa.Column("input_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("omitted_turns", sa.Integer, nullable=False, server_default="0"),
        sa.Column("request_key", sa.Text),
        sa.Column("fingerprint", sa.Text),
        sa.Column("lease", sa.Uuid),
        sa.Column("leased_until", moment),
        sa.Column("stopping", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now()),
        sa.Column("finished_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name="fk_messages_conversation_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["parent_id"], ["messages.id"], name="fk_messages_parent_id"),
        sa.CheckConstraint("role IN ('user', 'assistant')", name="ck_messages_role"),
        sa.CheckConstraint(
            "status IN ('complete', 'running', 'stopped', 'incomplete', 'failed')", name="ck_messages_status"
        ),
        sa.CheckConstraint("(lease IS NULL) = (leased_until IS NULL)", name="ck_messages_lease"),
    )
    op.create_index(
        "ix_messages_running",
        "messages",
        ["conversation_id"],
        unique=True,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "ix_messages_request_key",
        "messages",
        ["conversation_id", "request_key"],
        unique=True,
        postgresql_where=sa.text("request_key IS NOT NULL"),
    )
    op.create_index("ix_messages_conversation_id_sequence", "messages", ["conversation_id", "sequence"], unique=True)
    op.create_index("ix_messages_parent_id", "messages", ["parent_id"])
    op.create_table(
        "message_feedback",
        sa.Column("message_id", sa.Uuid, nullable=False),
        sa.Column("rating", sa.Text, nullable=False),
        sa.Column("comment", sa.Text),
        sa.Column("updated_at", moment, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("message_id", name="pk_message_feedback"),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name="fk_message_feedback_message_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("rating IN ('up', 'down')", name="ck_message_feedback_rating"),
        sa.CheckConstraint("char_length(comment) BETWEEN 1 AND 2000", name="ck_message_feedback_comment"),
    )


def downgrade() -> None:
    op.drop_table("message_feedback")
    op.drop_table("messages")
    op.drop_table("conversations")
