"""What the operator sets, and which providers and routes that comes to."""
