"""Conversations that are kept: the caller's own, as trees of messages with one active path."""
