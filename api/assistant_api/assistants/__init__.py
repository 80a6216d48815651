"""The tenant's assistants, as models of the OpenAI wire format."""
