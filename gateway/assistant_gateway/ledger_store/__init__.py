"""The ledger in Postgres: how entries get there, what they add up to, and whether that is what was counted."""
