"""Model providers: where they are, what they cost, how each is called, and when it is not."""
