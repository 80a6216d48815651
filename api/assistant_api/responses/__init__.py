"""OpenAI's Responses API on top of chat completions, with responses that are stored and continued."""
