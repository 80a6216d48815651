"""Is this process alive, ready, and are the things it needs there."""
