"""What the vendors' decoders share: event streams, faults and their classification, tool calls."""
