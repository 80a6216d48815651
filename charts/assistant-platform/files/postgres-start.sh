#!/bin/sh
# Starts the embedded Postgres: makes the data directory on an empty volume, and on every start sets the roles and
# closes what Postgres leaves open to everybody. One script for Debian's packages and the official image, for pods and
# for integration tests, so that all of them meet the same server.
#
# Settings (environment): PGDATA, PGPORT, SECRETS_DIR, SOCKET_DIR, POSTGRES_INITDB_ARGS, POSTGRES_MAX_CONNECTIONS,
# POSTGRES_SESSION_MEMORY_MB (memory of its own that one session may take, beyond which its statement fails).
# Secrets (files in SECRETS_DIR): operator-password; superuser-password (without it the superuser cannot log in).
# Arguments go to the server. Any user id but root works; the root file system may be read-only.
set -eu
umask 077

fail() {
    echo "postgres-start: $*" >&2
    exit 1
}

PGDATA=${PGDATA:-/var/lib/postgresql/data/pgdata}
PGPORT=${PGPORT:-5432}
SECRETS_DIR=${SECRETS_DIR:-/etc/assistant/secrets}
SOCKET_DIR=${SOCKET_DIR:-/var/run/postgresql}
export PGDATA PGPORT

# Debian keeps the programs out of PATH, in a folder per major version.
for bin in /usr/lib/postgresql/*/bin; do
    if [ -d "$bin" ]; then PATH="$bin:$PATH"; fi
done
command -v initdb >/dev/null || fail "no initdb in PATH: this image holds no PostgreSQL server"
[ "$(id -u)" -ne 0 ] || fail "PostgreSQL refuses to run as root: set runAsUser"
[ -s "$SECRETS_DIR/operator-password" ] || fail "$SECRETS_DIR/operator-password is missing or empty"
mkdir -p "$SOCKET_DIR" "$(dirname "$PGDATA")"

# initdb and the single-user mode want a name for their user id. The official image brings a library that invents one.
if ! getent passwd "$(id -u)" >/dev/null; then
    wrapper=$(find /usr/lib -name libnss_wrapper.so 2>/dev/null | head -n 1)
    [ -n "$wrapper" ] || fail "user id $(id -u) has no name in this image, and libnss_wrapper.so is not there to lend one"
    NSS_WRAPPER_PASSWD=$(mktemp)
    NSS_WRAPPER_GROUP=/etc/group
    echo "postgres:x:$(id -u):$(id -g):PostgreSQL:$PGDATA:/bin/false" >"$NSS_WRAPPER_PASSWD"
    export NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP LD_PRELOAD="$wrapper"
fi

server_major=$(postgres --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
if [ -e "$PGDATA/PG_VERSION" ]; then
    data_major=$(cat "$PGDATA/PG_VERSION")
    [ "$data_major" = "$server_major" ] ||
        fail "the volume holds data of PostgreSQL $data_major, this image is $server_major: dump and restore, or go back"
else
    # Into a folder beside it, renamed when complete: a start that was killed half way is simply done again.
    rm -rf "$PGDATA.new"
    # shellcheck disable=SC2086 # the arguments are several words on purpose
    initdb --pgdata="$PGDATA.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 --data-checksums \
        --auth=reject ${POSTGRES_INITDB_ARGS:-} >/dev/null
    mv "$PGDATA.new" "$PGDATA"
fi

# No access without a password, and none at all for the superuser from outside the pod.
cat >"$PGDATA/pg_hba.conf" <<HBA
local all all                   scram-sha-256
host  all postgres 127.0.0.1/32 scram-sha-256
host  all postgres ::1/128      scram-sha-256
host  all postgres all          reject
host  all all      all          scram-sha-256
HBA

# The content of a secret file as an SQL string.
literal() {
    printf "'%s'" "$(tr -d '\r\n' <"$1" | sed "s/'/''/g")"
}

# Runs SQL from standard input before the server listens (statements end with a semicolon and an empty line).
# Nothing of it is logged, also not on an error: it holds passwords.
single() {
    postgres --single -j -D "$PGDATA" -c exit_on_error=on -c log_min_error_statement=panic \
        -c log_checkpoints=off -c password_encryption=scram-sha-256 "$1" >/dev/null ||
        fail "could not prepare database $1"
}

superuser_password=NULL
if [ -s "$SECRETS_DIR/superuser-password" ]; then superuser_password=$(literal "$SECRETS_DIR/superuser-password"); fi

single postgres <<SQL
ALTER ROLE postgres PASSWORD $superuser_password;

DO \$\$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'assistant_operator') THEN CREATE ROLE assistant_operator; END IF;
END \$\$;

ALTER ROLE assistant_operator LOGIN CREATEDB CREATEROLE NOSUPERUSER NOREPLICATION NOBYPASSRLS
    PASSWORD $(literal "$SECRETS_DIR/operator-password");

GRANT SET ON PARAMETER temp_file_limit TO assistant_operator;

$(if [ "$server_major" -ge 16 ]; then echo 'GRANT pg_use_reserved_connections TO assistant_operator WITH ADMIN OPTION;'; fi)

REVOKE ALL ON DATABASE postgres FROM PUBLIC;

REVOKE ALL ON DATABASE template1 FROM PUBLIC;

GRANT CONNECT ON DATABASE postgres TO assistant_operator;

SQL

# Tenants' databases are copies of template1: what is closed there is closed in them. Figures about other tenants'
# databases are readable by everybody otherwise, through the views and through the functions behind them.
single template1 <<SQL
REVOKE ALL ON pg_stat_database, pg_stat_database_conflicts FROM PUBLIC;

DO \$\$ DECLARE f regprocedure; BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname LIKE 'pg\\_stat\\_get\\_db\\_%'
    LOOP EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f); END LOOP;
END \$\$;

-- Large objects need no right to create anything, and advisory locks of one session can fill the table of locks that
-- all databases share. The platform uses neither.
DO \$\$ DECLARE f regprocedure; BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND (
        proname LIKE 'lo\\_%' OR proname IN ('loread', 'lowrite') OR proname LIKE '%\\_advisory\\_%')
    LOOP EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f); END LOOP;
END \$\$;

SQL
unset superuser_password LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP

# Connections that tenants cannot take from the operator and the ledger, and a bound of the notifications that one
# session which does not read them keeps for all databases: where the server knows of such.
set -- -c max_connections="${POSTGRES_MAX_CONNECTIONS:-300}" "$@"
if [ "$server_major" -ge 16 ]; then set -- -c reserved_connections=16 "$@"; fi
if [ "$server_major" -ge 17 ]; then set -- -c max_notify_queue_pages=16384 "$@"; fi

# A session may set `work_mem` for itself, and run parallel workers beside its connection limit: what bounds a session's
# memory is the kernel, and there are no workers.
ulimit -d $((${POSTGRES_SESSION_MEMORY_MB:-192} * 1024))

exec postgres -D "$PGDATA" \
    -c listen_addresses='*' -c port="$PGPORT" -c unix_socket_directories="$SOCKET_DIR" \
    -c password_encryption=scram-sha-256 -c temp_file_limit=1GB -c max_prepared_transactions=0 \
    -c max_worker_processes=0 -c max_logical_replication_workers=0 -c jit=off \
    -c log_checkpoints=off "$@"
