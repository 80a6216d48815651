"""Erase ids of end users from the ledger, for whoever looks after it; what was used, and what it cost, stays."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Entries that nobody could read hold ids as well, in a text of unknown form: those of the tenant, or of the time, lose
# their text. Only the owner may run it: the gateway may not change a bill.
ERASE = """
CREATE FUNCTION erase_ledger_users(tenant_name text, user_name text, before timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp
AS $$
DECLARE
    erased bigint;
BEGIN
    IF tenant_name IS NULL AND user_name IS NULL AND before IS NULL THEN
        RAISE EXCEPTION 'say whose ids: of a tenant, of one user, or of all calls before a time';
    END IF;
    UPDATE ledger_entries e SET user_id = NULL
    WHERE e.user_id IS NOT NULL AND (user_name IS NULL OR e.user_id = user_name)
        AND (tenant_name IS NULL OR e.tenant = tenant_name) AND (before IS NULL OR e.at < before);
    GET DIAGNOSTICS erased = ROW_COUNT;
    UPDATE ledger_rejects r SET fields = convert_to('{"erased": true}', 'UTF8')
    WHERE (user_name IS NULL OR position(convert_to(user_name, 'UTF8') IN r.fields) > 0)
        AND (tenant_name IS NULL OR position(convert_to(tenant_name, 'UTF8') IN r.fields) > 0)
        AND (before IS NULL OR r.rejected < before);
    RETURN erased;
END
$$
"""


def upgrade() -> None:
    op.execute(ERASE)
    op.execute("REVOKE ALL ON FUNCTION erase_ledger_users(text, text, timestamptz) FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP FUNCTION erase_ledger_users(text, text, timestamptz)")
