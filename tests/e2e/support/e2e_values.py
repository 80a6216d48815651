"""Chart values of the end-to-end tests, on top of the demo's."""

RESYNC_SECONDS = 20
# A short resync, so that a test can wait for two of them, a short lease, because the operator is killed six times, and
# the stand-in as a server that tenants may name as theirs.
# The stand-in has a price, so that budgets can hold: dear in answers, so that a hold is not much more than its charge.
VALUES = {
    "operator": {"resyncSeconds": RESYNC_SECONDS, "observeSeconds": 5, "leaseSeconds": 8},
    "tenantEndpoints": {"allowHosts": ["*.assistant-demo-model.svc"]},
    "providers": {"demo": {"models": {"stand-in": {"inputPerMillion": "0.1", "outputPerMillion": "100"}}}},
}
