"""A WebSocket-first real-time relay between chat clients and language models."""

__version__ = "0.1.0"
