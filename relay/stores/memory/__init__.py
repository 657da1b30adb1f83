"""The stream log in this process's memory: the default, with nothing to install."""

from relay.stores.memory.log import MemoryLimits, MemoryLog

__all__ = ["MemoryLimits", "MemoryLog"]
