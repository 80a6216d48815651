"""Who calls, what its tenant may do there, and whether its models can be reached."""
