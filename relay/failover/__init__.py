"""The failover policy: which target is tried when, and which part of its answer is shown. Pure."""
