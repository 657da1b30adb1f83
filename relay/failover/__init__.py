"""The failover policy: which target is tried when, and what of its answer is shown. Pure."""
