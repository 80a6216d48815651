"""What a call may use at most and what it did use: bounded, held, charged, settled."""
