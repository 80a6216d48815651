#!/bin/sh
# Starts the embedded Redis with one ACL user per caller. The platform's own users are written again on every start from
# their secrets; tenants' users, which the operator adds and saves (ACL SAVE), are kept from the file on the data volume.
# One script for Debian's package and the official image, for pods and for integration tests.
#
# Settings (environment): DATA_DIR, REDIS_PORT, SECRETS_DIR, and one of REDIS_MAXMEMORY and REDIS_MEMORY_LIMIT, the
# container's limit in bytes. What Redis needs beside its data (its log's buffers, pages copied while it rewrites the
# log, clients' buffers) has the other 40 %: full, it refuses to admit calls, and is not killed.
# Secrets (files in SECRETS_DIR): operator-password, gateway-password.
# Arguments go to the server.
set -eu
umask 077

fail() {
    echo "redis-start: $*" >&2
    exit 1
}

DATA_DIR=${DATA_DIR:-/data}
SECRETS_DIR=${SECRETS_DIR:-/etc/assistant/secrets}
acl="$DATA_DIR/users.acl"
command -v redis-server >/dev/null || fail "no redis-server in PATH: this image holds no Redis"
for name in operator gateway; do
    [ -s "$SECRETS_DIR/$name-password" ] || fail "$SECRETS_DIR/$name-password is missing or empty"
done

# A password as the ACL file stores it: its SHA-256.
digest() {
    tr -d '\r\n' <"$1" | sha256sum | cut -d ' ' -f 1
}

# Every command by name: categories let FLUSHALL, KEYS and CONFIG through. What a script calls is checked as well.
connection="+ping +hello +auth +client|setname +client|id"
# Makes tenants' users, and removes what a tenant leaves behind. It cannot read a value, only how many entries of the
# ledger are not in Postgres yet.
operator="$connection +info +acl|setuser +acl|deluser +acl|getuser +acl|list +acl|users +acl|save +acl|whoami \
+scan +exists +type +del +unlink +xlen"
# Counts, and moves the ledger's stream to Postgres. Not the tenants' keys, not their users.
gateway="$connection +time +get +mget +set +del +exists +expire +pexpire +ttl +pttl +incrby \
+hget +hmget +hexists +hgetall +hkeys +hset +hdel +zadd +zrem +zrangebyscore +zrevrange +zscore \
+xadd +xread +xrange +xrevrange +xlen +xdel +xtrim \
+eval +evalsha +script|load"

# The user `default` cannot log in. But Redis replays its log as that user, and drops every script and transaction with a
# command it may not run (7.0.15: "ACLs rules changed"): the data would be gone. So it may run what the gateway writes.
replay="+del +expire +hdel +hset +incrby +pexpire +set +xadd +xdel +xtrim +zadd +zrem"

{
    echo "user default off resetpass resetkeys ~quota:* resetchannels -@all $replay"
    echo "user operator on resetpass #$(digest "$SECRETS_DIR/operator-password") resetkeys ~* resetchannels -@all $operator"
    echo "user gateway on resetpass #$(digest "$SECRETS_DIR/gateway-password") resetkeys ~quota:* resetchannels -@all $gateway"
    if [ -e "$acl" ]; then grep -v -E '^[[:space:]]*($|user (default|operator|gateway) )' "$acl" || true; fi
} >"$acl.new"
mv "$acl.new" "$acl"

if [ -z "${REDIS_MAXMEMORY:-}" ] && [ -n "${REDIS_MEMORY_LIMIT:-}" ]; then
    REDIS_MAXMEMORY=$((REDIS_MEMORY_LIMIT / 100 * 60))
fi

# Clients are bounded as well: a tenant's user may send and ask for nothing large, but could do so without end.
cd "$DATA_DIR"
exec redis-server --port "${REDIS_PORT:-6379}" --bind '*' '-::*' --protected-mode no --dir "$DATA_DIR" \
    --aclfile "$acl" --appendonly yes --appendfsync everysec --save '' \
    --maxmemory "${REDIS_MAXMEMORY:-0}" --maxmemory-policy noeviction --maxmemory-clients 15% \
    --proto-max-bulk-len 4mb --client-query-buffer-limit 8mb --client-output-buffer-limit normal 64mb 16mb 30 "$@"
