"""Every name that is derived rather than chosen: objects, labels, databases, Redis keys, vector tenants.

Names in the stores come from UIDs, not from names: a namespace or knowledge base that is deleted and made
again under its old name inherits nothing.
"""

from __future__ import annotations

import hashlib

GROUP = "assistantplatform.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

FIELD_MANAGER = "assistant-operator"
FINALIZER = f"{GROUP}/cleanup"

# Labels and annotations of the objects that the operator makes.
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_TENANT = f"{GROUP}/tenant"
PART_OF = "assistant-platform"
MANAGED_BY = "assistant-operator"
ANNOTATION_APPLIED = f"{GROUP}/applied"  # digest of what the operator last applied
ANNOTATION_REINDEX = f"{GROUP}/reindex"  # on a KnowledgeBase, by its users: another value has documents read again
ANNOTATION_CONFIG = f"{GROUP}/config-generation"  # on pods: makes the kubelet refresh the mounted ConfigMap at once
ANNOTATION_NUDGED = f"{GROUP}/nudged"  # on a Deployment whose pods were refused: has the cluster try again

# Objects in a tenant's namespace.
API = "assistant-api"  # Deployment, Service, ServiceAccount, NetworkPolicy, PodDisruptionBudget
WORKER = "assistant-worker"  # Deployment, NetworkPolicy
CONFIG_MAP = "assistant-config"  # key CONFIG_KEY: TenantConfig as JSON
CONFIG_KEY = "tenant.json"
STORES_SECRET = "assistant-stores"  # keys are the settings' names of assistant_api.config
API_KEY_SECRET = "assistant-api-key"  # key API_KEY_KEY: the first API key, in clear
API_KEY_KEY = "api-key"
ADMIN_SECRET = "assistant-admin"  # keys ADMIN_EMAIL and ADMIN_PASSWORD: how the tenant's first owner signs in
ADMIN_EMAIL, ADMIN_PASSWORD = "email", "password"
# Keys of STORES_SECRET that no store knows, and that only the API needs.
SIGNING_KEY = "signing_key"  # seed of the Ed25519 key that signs access tokens, base64url
AUDIT_KEY = "audit_key"  # of the HMACs that chain the audit log, base64url

# Token that a tenant's pods present to the gateway.
GATEWAY_AUDIENCE = "assistant-gateway"

# Objects in the routes namespace (<platform namespace>-routes), read by the gateway only.
POLICY_KEY = "policy.json"  # TenantPolicy as JSON
OPERATOR_SECRET = "operator-identity"
OPERATOR_KEY = "identity.json"

# Stores.
VECTOR_COLLECTION = "AssistantChunk"
VECTOR_SPELLINGS = "spellings"  # its property with other spellings of the text's words
POSTGRES_OPERATOR_ROLE = "assistant_operator"
LEDGER = "assistant_ledger"  # the platform's own database; its roles are named like a tenant's, from this


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def tenant_key(namespace_uid: str) -> str:
    """Return the tenant's name in every store: `t_` and ten hexadecimal digits of the namespace UID's SHA-256."""
    return f"t_{_digest(namespace_uid, 10)}"


def database(tenant: str) -> str:
    """Return the Postgres database of the tenant key `tenant`."""
    return tenant


def owner_role(tenant: str) -> str:
    """Return the NOLOGIN role that owns the tenant's database and tables."""
    return f"{tenant}_owner"


def login_role(tenant: str) -> str:
    """Return the role the tenant's pods log in as: DML only."""
    return f"{tenant}_app"


def redis_user(tenant: str) -> str:
    """Return the tenant's Redis ACL user."""
    return tenant


def redis_prefix(tenant: str) -> str:
    """Return the prefix of every Redis key and channel the tenant may touch; a hash tag keeps them in one slot."""
    return f"{{{tenant}}}:"


def quota_prefix(tenant: str) -> str:
    """Return the prefix of the gateway's counters for a tenant; the tenant's own user cannot reach them."""
    return f"quota:{{{tenant}}}:"


def ledger_stream(tenant: str) -> str:
    """Return the Redis stream of a tenant's calls that are not in Postgres yet."""
    return f"{quota_prefix(tenant)}ledger"


def knowledge_base_key(tenant: str, knowledge_base_uid: str) -> str:
    """Return the vector tenant, and the database key, of one knowledge base (22 characters)."""
    return f"{tenant}_{_digest(knowledge_base_uid, 9)}"


def vector_user(tenant: str) -> str:
    """Return the tenant's Weaviate user; its role has the same name."""
    return tenant


def policy_secret(tenant: str) -> str:
    """Return the Secret in the routes namespace that carries the tenant's policy to the gateway."""
    return f"policy-{tenant.replace('_', '-')}"
