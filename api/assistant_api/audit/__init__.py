"""Who did what, from where, when, and whether it was allowed."""
