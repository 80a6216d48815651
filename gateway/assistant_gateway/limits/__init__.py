"""Limits on what tenants may ask of models; the Redis script, its client, and what holds while Redis is away."""
