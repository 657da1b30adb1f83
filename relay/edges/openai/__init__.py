"""OpenAI's chat completions: requests read, answers written, and the schema of both."""
