"""Chart values of the end-to-end tests, on top of the demo's."""

RESYNC_SECONDS = 20
# A short resync, so that a test can wait for two of them, and the stand-in as a server that tenants may name as theirs.
VALUES = {
    "operator": {"resyncSeconds": RESYNC_SECONDS, "observeSeconds": 5},
    "tenantEndpoints": {"allowHosts": ["*.assistant-demo-model.svc"]},
}
