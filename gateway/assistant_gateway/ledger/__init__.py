"""The ledger: what every call used, on its way from Redis to Postgres, added up, and compared with the counters."""
