"""The tenant's own database: the tables and how they change."""
