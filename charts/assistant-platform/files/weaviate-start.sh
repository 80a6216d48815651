#!/bin/sh
# Starts the embedded Weaviate. Its settings are environment variables of its own; this script adds the operator's API
# key from its secret, and finds the program, which the official image and the self-made one name differently.
#
# Secrets (files in SECRETS_DIR): api-key.
set -eu
secret="${SECRETS_DIR:-/etc/assistant/secrets}/api-key"
[ -s "$secret" ] || { echo "weaviate-start: $secret is missing or empty" >&2; exit 1; }
AUTHENTICATION_APIKEY_ALLOWED_KEYS="$(tr -d '\r\n' <"$secret")"
export AUTHENTICATION_APIKEY_ALLOWED_KEYS
# The interface for other nodes answers on every address; there are none, so its password is random and not stored.
CLUSTER_BASIC_AUTH_USERNAME=cluster
CLUSTER_BASIC_AUTH_PASSWORD="$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
export CLUSTER_BASIC_AUTH_USERNAME CLUSTER_BASIC_AUTH_PASSWORD
program="$(command -v weaviate-server || command -v weaviate || echo /bin/weaviate)"
exec "$program" --scheme http --host 0.0.0.0 --port "${WEAVIATE_PORT:-8080}" "$@"
