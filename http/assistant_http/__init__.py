"""HTTP between the parts and to model providers."""
