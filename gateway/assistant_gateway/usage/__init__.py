"""What a tenant used, asked for over HTTP and answered from the ledger."""
