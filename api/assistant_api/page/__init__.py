"""The web page of a tenant: its built files, and the sentences that it shows."""
