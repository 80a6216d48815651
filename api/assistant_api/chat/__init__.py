"""Chat completions: question in, knowledge found, answer with its sources out."""
