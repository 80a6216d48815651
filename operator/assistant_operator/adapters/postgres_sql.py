"""The statements by which tenants' databases are looked at and closed to everyone else.

Names of roles and databases are ours (`t_` and hexadecimal digits), never a user's: they are safe to quote as they
are where Postgres takes no parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_PRIVILEGES = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"

ROLES = """
SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolconnlimit,
       pg_has_role(current_user, oid, 'USAGE') AS member
FROM pg_roles WHERE rolname = ANY($1::text[])
"""
DATABASE_EXISTS = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
TEMPLATE_IS_UNICODE = "SELECT pg_encoding_to_char(encoding) = 'UTF8' FROM pg_database WHERE datname = 'template1'"
LEFTOVERS = """
SELECT datname FROM pg_database WHERE datname = ANY($1::text[])
UNION SELECT rolname FROM pg_roles WHERE rolname = ANY($1::text[])
"""
HAS_VERSION = "SELECT to_regclass('public.alembic_version') IS NOT NULL"
VERSION = "SELECT version_num FROM alembic_version"
HAS_COUNTS = "SELECT to_regclass('public.knowledge_base_counts') IS NOT NULL"
HAS_FORGET = "SELECT to_regprocedure('public.forget_knowledge_base(text)') IS NOT NULL"
COUNTS = "SELECT knowledge_base, documents, pending, failed, chunks FROM knowledge_base_counts"

_TABLE_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


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
        _default(owner, login, "r", f"GRANT {_TABLE_RIGHTS} ON TABLES"),
        _default(owner, login, "S", "GRANT USAGE, SELECT ON SEQUENCES"),
        _default(owner, login, "f", "GRANT EXECUTE ON FUNCTIONS"),
        Right(
            """SELECT NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v')
               AND NOT has_table_privilege($1::name, c.oid, 'SELECT'))""",
            (login,),
            f'GRANT {_TABLE_RIGHTS} ON ALL TABLES IN SCHEMA public TO "{login}"',
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
