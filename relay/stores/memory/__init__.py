"""The stream log in this process's memory: the default, which needs no installation."""

from relay.stores.memory.log import MemoryLimits, MemoryLog

__all__ = ["MemoryLimits", "MemoryLog"]
