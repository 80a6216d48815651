"""What the tenant used and what it cost, as the gateway's ledger has it."""
