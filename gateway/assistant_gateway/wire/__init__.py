"""What goes over the wire in the forms of providers and of OpenAI: events, usage, text. It imports nothing above it."""
