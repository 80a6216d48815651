#!/usr/bin/env bash
# Package:  Debian's redis-tools=5:7.0.15-1~deb12u10 (its redis-check-rdb is the server, too); 8.2.3 does the same
# Expected: what a user was allowed to write, and was told to be written, is there after a restart. Sources: the pages
#           "Redis persistence" (the append-only log "logs every write operation received by the server", to be played
#           again at startup) and "ACL" (a user who is `off` is one that nobody can authenticate as).
# Seen:     the log is played as the user `default`. Where that one may not run a command, transactions and scripts
#           with more than one write are left out at the start, with one line in the server's log ("ACLs rules changed
#           between the moment the transaction was accumulated and the EXEC call"). Single commands are kept.
# Here:     charts/assistant-platform/files/redis-start.sh: `default` is off, and may run what the gateway writes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq -o APT::Sandbox::User=root download redis-tools=5:7.0.15-1~deb12u10 libjemalloc2 liblzf1 libatomic1
for package in *.deb; do dpkg -x "$package" .; done
LD_LIBRARY_PATH=$(dirname "$(find . -name 'libjemalloc.so.2')")
export LD_LIBRARY_PATH
ln -s redis-check-rdb usr/bin/redis-server
printf '%s\n' 'user default off resetpass resetkeys -@all' 'user writer on >secret ~* +@all' >users.acl

redis() {
    usr/bin/redis-cli -s "$folder/socket" --user writer --pass secret --no-auth-warning "$@"
}
start() {
    usr/bin/redis-server --port 0 --unixsocket "$folder/socket" --dir "$folder" --aclfile "$folder/users.acl" \
        --appendonly yes --save '' --logfile "$folder/log" --daemonize yes >/dev/null
    for _ in $(seq 100); do
        [ "$(redis ping 2>/dev/null)" = PONG ] && return
        sleep 0.1
    done
    echo "Redis did not start" >&2
    exit 1
}
keys() {
    redis keys '*' | sort | tr '\n' ' '
}

start
redis set single 1 >/dev/null
redis eval 'redis.call("set", "script-a", 1); redis.call("set", "script-b", 1)' 0 >/dev/null
printf '%s\n' multi 'set transaction-a 1' 'set transaction-b 1' exec | redis >/dev/null
before=$(keys)
redis shutdown
while [ -e socket ]; do sleep 0.1; done
start
after=$(keys)
redis shutdown
echo "expected after the restart: $before"
echo "seen after the restart:     $after"
grep -o "ACLs rules changed.* of the transaction\|ACLs rules changed.*EXEC call" log | sort -u
[ "$after" = "single " ] || { echo "changed: other keys than expected are left after a restart" >&2; exit 1; }
