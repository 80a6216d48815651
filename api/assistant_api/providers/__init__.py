"""Providers and models that the tenant may use."""
