"""The people of a tenant."""
