"""The embedded model: where its file lies, the child process that runs it, what fits into it."""
