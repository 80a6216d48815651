"""The tenant API: an OpenAI-compatible endpoint, knowledge bases and health of one tenant."""
