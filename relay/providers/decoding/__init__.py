"""What every vendor's decoder is built of: event streams, faults and what they mean, tool calls."""
