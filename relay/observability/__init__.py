"""What people and machines are told of the relay: logs, metrics, health."""
