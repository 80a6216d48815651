"""One call of a model from the request to the settled answer."""
