"""The statements by which tenants' databases are looked at and closed to everyone else.

Names of roles and databases are ours (`t_` and hexadecimal digits), never a user's: they are safe to quote as they
are where Postgres takes no parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_PRIVILEGES = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"

# What sessions of a tenant begin with. A session may set another value for itself, except of `temp_file_limit`; what
# holds however they are set is the connection limit, the operator's own time-outs, and `END_OLD`.
LOGIN_SETTINGS = {
    "idle_in_transaction_session_timeout": "60s",
    "idle_session_timeout": "5min",
    "lock_timeout": "30s",
    "statement_timeout": "60s",
}
# Only superusers and those whom they let may set this one: the embedded Postgres lets the operator.
RESTRICTED_SETTINGS = {"temp_file_limit": "64MB"}
MAY_RESTRICT = "SELECT has_parameter_privilege('temp_file_limit', 'SET')"

# `settled`: the role's settings are $2 and there are none for single databases. Compared here, not read: a role may
# give itself settings of any length.
ROLES = """
SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolconnlimit,
       pg_has_role(current_user, r.oid, 'USAGE') AS member,
       NOT EXISTS (SELECT FROM pg_db_role_setting d WHERE d.setrole = r.oid AND d.setdatabase <> 0)
       AND $2::text[] = ARRAY(SELECT s FROM pg_db_role_setting d, unnest(d.setconfig) AS s
                              WHERE d.setrole = r.oid AND d.setdatabase = 0 ORDER BY s COLLATE "C") AS settled
FROM pg_roles r WHERE rolname = ANY($1::text[])
"""
# Since Postgres 16 there may be connections that only such roles get; who may give them to others gives them to $1.
LACKS_RESERVED = """
SELECT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
               WHERE r.rolname = 'pg_use_reserved_connections' AND u.rolname = current_user AND m.admin_option)
AND NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
                WHERE r.rolname = 'pg_use_reserved_connections' AND u.rolname = $1)
"""
ROLE_NAMES = "SELECT rolname FROM pg_roles WHERE rolname = ANY($1::text[])"
FOREIGN_SETTINGS = """
SELECT d.datname FROM pg_db_role_setting s
JOIN pg_roles r ON r.oid = s.setrole JOIN pg_database d ON d.oid = s.setdatabase
WHERE r.rolname = $1 LIMIT 100
"""
DATABASE_EXISTS = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
TEMPLATE_IS_UNICODE = "SELECT pg_encoding_to_char(encoding) = 'UTF8' FROM pg_database WHERE datname = 'template1'"
LEFTOVERS = """
SELECT datname FROM pg_database WHERE datname = ANY($1::text[])
UNION SELECT rolname FROM pg_roles WHERE rolname = ANY($1::text[])
"""
HAS_VERSION = "SELECT to_regclass('public.alembic_version') IS NOT NULL"
VERSION = "SELECT left(version_num, 64) FROM public.alembic_version LIMIT 1"
HAS_COUNTS = "SELECT to_regclass('public.knowledge_base_counts') IS NOT NULL"
ACTIVITY = """
SELECT datname, tup_inserted + tup_updated + tup_deleted FROM pg_stat_database WHERE datname IS NOT NULL
"""
HAS_DOCUMENTS = "SELECT to_regclass('public.documents') IS NOT NULL"
# A tenant may write any row into its tables: only what is asked for by name comes back, a row for each name at most.
COUNTS = """
SELECT knowledge_base, c.documents, c.pending, c.failed, c.chunks, coalesce(o.outdated, 0) AS outdated
FROM public.knowledge_base_counts c
LEFT JOIN (SELECT knowledge_base, count(*) AS outdated FROM public.documents
           WHERE knowledge_base = ANY($1::text[]) AND status = 'ready' AND index_version < $2
           GROUP BY knowledge_base) o USING (knowledge_base)
WHERE knowledge_base = ANY($1::text[])
"""
REINDEX = "SELECT public.reindex_knowledge_base($1, $2)"
# In portions: what is done stays done when the time is over.
FORGET = """
WITH found AS (SELECT id FROM public.documents WHERE knowledge_base = $1 LIMIT $2),
     removed AS (DELETE FROM public.documents d USING found WHERE d.id = found.id RETURNING 1)
SELECT count(*) FROM removed
"""
# Transactions of tenants that last hold locks, old rows and the notifications of all databases. Only roles that the
# operator is a member of: a tenant may have taken that back, which must not make this fail.
END_OLD = """
SELECT count(CASE WHEN pg_has_role(usesysid, 'USAGE') THEN pg_terminate_backend(pid) END) FROM pg_stat_activity
WHERE usename ~ '^t_[0-9a-f]{10}_app$'
AND xact_start < clock_timestamp()
                 - make_interval(secs => least($1::float8, CASE WHEN pg_notification_queue_usage() > 0.01 THEN 5 END))
"""
# A member of a role may end its sessions.
END_SESSIONS = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1"
STRANGERS = """
SELECT DISTINCT knowledge_base FROM public.documents
WHERE knowledge_base <> ALL($1::text[]) AND length(knowledge_base) < 40 AND knowledge_base ~ $2 LIMIT 50
"""

# Tables and views on which the login role has other rights than it should: it reads and writes tables, but not the
# one with the schema's version (whoever may write a table may lock it, and so hold up migrations), and no view (views
# are what the operator looks at). Of the audit log it adds entries; it changes and removes none.
_OTHER_RIGHTS = """
SELECT c.relname, w.wanted
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace,
     LATERAL (SELECT CASE WHEN c.relkind NOT IN ('r', 'p') OR c.relname = 'alembic_version' THEN ''
                     WHEN c.relname = 'audit_entries' THEN 'INSERT,SELECT'
                     WHEN c.relname = 'audit_head' THEN 'SELECT,UPDATE'
                     ELSE 'DELETE,INSERT,SELECT,UPDATE' END AS wanted) w
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
AND w.wanted <> coalesce((SELECT string_agg(a.privilege_type, ',' ORDER BY a.privilege_type)
                          FROM aclexplode(c.relacl) a JOIN pg_roles g ON g.oid = a.grantee
                          WHERE g.rolname = $1), '')
"""


@dataclass(frozen=True)
class Right:
    """A question that should be answered with true, its parameters, and the statement that makes it so."""

    question: str
    parameters: tuple[str, ...]
    statement: str


def rights(database: str, owner: str, login: str) -> list[Right]:
    """Return the rights in a tenant's database; questions and statements run there.

    By default everyone may connect to a new database and call new functions: both are taken back. Questions look at
    what was granted by name, not at what holds: the login role also holds what everyone still has.
    """
    return [
        *closed(database, owner, login),
        # New tables are granted below, one by one: their version and their views are none of the tenant's.
        Right(
            """SELECT NOT EXISTS (SELECT FROM pg_default_acl d
                   JOIN pg_roles o ON o.oid = d.defaclrole, aclexplode(d.defaclacl) a
                   JOIN pg_roles g ON g.oid = a.grantee
               WHERE o.rolname = $1 AND d.defaclobjtype = 'r' AND g.rolname = $2)""",
            (owner, login),
            f'ALTER DEFAULT PRIVILEGES FOR ROLE "{owner}" REVOKE ALL ON TABLES FROM "{login}"',
        ),
        _default(owner, login, "S", "GRANT USAGE, SELECT ON SEQUENCES"),
        _default(owner, login, "f", "GRANT EXECUTE ON FUNCTIONS"),
        Right(
            f"SELECT NOT EXISTS ({_OTHER_RIGHTS})",
            (login,),
            f"""DO $do$ DECLARE found record; BEGIN
                FOR found IN {_OTHER_RIGHTS.replace("$1", f"'{login}'")} LOOP
                    EXECUTE format('REVOKE ALL ON public.%I FROM "{login}"', found.relname);
                    IF found.wanted <> '' THEN
                        EXECUTE format('GRANT %s ON public.%I TO "{login}"', found.wanted, found.relname);
                    END IF;
                END LOOP;
            END $do$""",
        ),
    ]


def closed(database: str, owner: str, login: str) -> list[Right]:
    """Return what keeps everyone but the login role out of a database; that one may connect, and no more."""
    return [
        Right(
            """SELECT NOT EXISTS (SELECT FROM pg_database d,
                   aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
               WHERE d.datname = $1 AND a.grantee = 0)""",
            (database,),
            f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC',
        ),
        Right(
            """SELECT EXISTS (SELECT FROM pg_database d, aclexplode(d.datacl) a JOIN pg_roles g ON g.oid = a.grantee
               WHERE d.datname = $1 AND g.rolname = $2 AND a.privilege_type = 'CONNECT')""",
            (database, login),
            f'GRANT CONNECT ON DATABASE "{database}" TO "{login}"',
        ),
        Right(
            """SELECT NOT EXISTS (SELECT FROM pg_namespace n, aclexplode(n.nspacl) a
               WHERE n.nspname = 'public' AND a.grantee = 0)""",
            (),
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        ),
        Right(
            """SELECT EXISTS (SELECT FROM pg_namespace n, aclexplode(n.nspacl) a JOIN pg_roles g ON g.oid = a.grantee
               WHERE n.nspname = 'public' AND g.rolname = $1 AND a.privilege_type = 'USAGE')""",
            (login,),
            f'GRANT USAGE ON SCHEMA public TO "{login}"',
        ),
        Right(
            """SELECT EXISTS (SELECT FROM pg_default_acl d JOIN pg_roles o ON o.oid = d.defaclrole
               WHERE o.rolname = $1 AND d.defaclobjtype = 'f' AND d.defaclnamespace = 0
               AND NOT EXISTS (SELECT FROM aclexplode(d.defaclacl) a WHERE a.grantee = 0))""",
            (owner,),
            f'ALTER DEFAULT PRIVILEGES FOR ROLE "{owner}" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC',
        ),
    ]


def _default(owner: str, login: str, kind: str, grant: str) -> Right:
    question = """SELECT EXISTS (SELECT FROM pg_default_acl d
            JOIN pg_roles o ON o.oid = d.defaclrole, aclexplode(d.defaclacl) a JOIN pg_roles g ON g.oid = a.grantee
        WHERE o.rolname = $1 AND d.defaclobjtype::text = $2 AND d.defaclnamespace = 0 AND g.rolname = $3)"""
    statement = f'ALTER DEFAULT PRIVILEGES FOR ROLE "{owner}" {grant} TO "{login}"'
    return Right(question, (owner, kind, login), statement)
