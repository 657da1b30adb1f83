"""OpenAI's chat completions: reading requests, writing answers, and the schema of both."""
