"""The embedded model: its file, the child process that runs it, and the turns that fit into it."""
