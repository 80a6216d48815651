"""Embeddings in OpenAI's wire format, by the embedding models of the tenant's knowledge bases."""
