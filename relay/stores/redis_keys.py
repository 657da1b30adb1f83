"""Names of keys and channels in Redis. The braces keep what one script touches in one
cluster slot; a stream's channel is its key, so that a sharded publish stays in the slot."""

from __future__ import annotations

import hashlib
from pathlib import Path

PREFIX = "relay"
SCRIPTS = Path(__file__).with_name("lua")


def stream(name: str) -> str:
    """Hash: what is known of a stream. Also the channel of its followers."""
    return f"{PREFIX}:{{{name}}}"


def log(name: str) -> str:
    """Stream: one entry a batch of records, its id the seq after the batch."""
    return f"{PREFIX}:{{{name}}}:log"


def lease(name: str) -> str:
    """String: the owning node, for as long as it renews."""
    return f"{PREFIX}:{{{name}}}:lease"


def readers(name: str) -> str:
    """Sorted set: nodes with readers, by when their word expires (ms)."""
    return f"{PREFIX}:{{{name}}}:readers"


def session(name: str) -> str:
    """Hash: whose a session is. The name is a secret, so only its digest is kept."""
    return f"{PREFIX}:{{{_digest(name)}}}"


def ids(name: str) -> str:
    """Hash: a session's ids, each with the stream and the fingerprint it names."""
    return f"{PREFIX}:{{{_digest(name)}}}:ids"


def running(name: str) -> str:
    """Set: a session's streams that have not ended."""
    return f"{PREFIX}:{{{_digest(name)}}}:running"


def conversation(subject: str | None, session_name: str, name: str) -> str:
    """String: the newest stream of a conversation."""
    scope = f"session:{session_name}" if subject is None else f"subject:{subject}"
    return f"{PREFIX}:{{{_digest(f'{scope}:{name}')}}}:newest"


def node(name: str) -> str:
    """Channel: what is said to one node."""
    return f"{PREFIX}:{{{name}}}:node"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def script(name: str) -> str:
    """The text of a Lua script."""
    return (SCRIPTS / f"{name}.lua").read_text(encoding="utf-8")
