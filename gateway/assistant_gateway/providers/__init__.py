"""How the gateway speaks with model providers, one module per wire format."""
