"""Builds the parts of a relay and serves them, in one process or several."""
