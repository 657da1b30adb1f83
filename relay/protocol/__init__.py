"""`relay.v1`: its frames, the rules of one connection, and its documents for machines."""
