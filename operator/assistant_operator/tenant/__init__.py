"""Facts about one tenant: what it asks for, what was found, and what follows from both. Pure: no I/O and no clock."""
