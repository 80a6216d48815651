#!/bin/sh
# Ready once Redis answers the operator's PING: not before its data are loaded, which its open port alone does not tell.
# Settings (environment) as in redis-start.sh: SECRETS_DIR, REDIS_PORT.
password="$(cat "${SECRETS_DIR:-/etc/assistant/secrets}/operator-password")"
answer="$(REDISCLI_AUTH="$password" redis-cli -h 127.0.0.1 -p "${REDIS_PORT:-6379}" --no-auth-warning --user operator ping 2>&1)"
[ "$answer" = PONG ] || { echo "redis: $answer"; exit 1; }
