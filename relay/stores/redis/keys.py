"""Names of keys and channels in Redis, and the short texts that stand for an owner and a claim.

Nodes of different versions share one Redis, so all of these keep their meaning. The braces
keep what one script touches in one cluster slot; a stream's channel is its key, so that a
sharded publish stays in the slot. A session's name is a secret and a conversation's is the
client's: of both only a digest is kept, so that nobody who reads Redis can take a session up.
"""

from __future__ import annotations

import hashlib

PREFIX = "relay"


def stream(name: str) -> str:
    """Hash: what is known of a stream. Also the channel of its followers."""
    return f"{PREFIX}:{{{name}}}"


def stream_of(channel: str) -> str:
    """The stream whose channel this is."""
    return channel.partition("{")[2].rstrip("}")


def log(name: str) -> str:
    """Stream: one entry a batch of records, its id the seq after the batch."""
    return f"{PREFIX}:{{{name}}}:log"


def lease(name: str) -> str:
    """String: the owning node, for as long as it renews."""
    return f"{PREFIX}:{{{name}}}:lease"


def readers(name: str) -> str:
    """Sorted set: nodes with readers, by when their entry expires (ms)."""
    return f"{PREFIX}:{{{name}}}:readers"


def session(digest: str) -> str:
    """Hash: whose a session is."""
    return f"{PREFIX}:{{{digest}}}"


def ids(digest: str) -> str:
    """Hash: a session's ids, each with the stream and the fingerprint it names."""
    return f"{PREFIX}:{{{digest}}}:ids"


def order(digest: str) -> str:
    """List: a session's ids, oldest first."""
    return f"{PREFIX}:{{{digest}}}:order"


def running(digest: str) -> str:
    """Sorted set: a session's streams that have not ended, by when they cease to count
    (ms) unless their owner renews them."""
    return f"{PREFIX}:{{{digest}}}:running"


def newest(digest: str) -> str:
    """String: the newest stream of a conversation."""
    return f"{PREFIX}:{{{digest}}}:newest"


def node(name: str) -> str:
    """Channel: names of the node's streams that a client wants to end."""
    return f"{PREFIX}:{{{name}}}:node"


def marker(name: str) -> str:
    """String: exists as long as Redis keeps what this node gives it."""
    return f"{PREFIX}:{{{name}}}:marker"


def digest(secret: str) -> str:
    """What stands for a name that Redis must not know."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def conversation(subject: str | None, session_digest: str, name: str) -> str:
    """The digest of a conversation: within its subject, or only within the session."""
    scope = f"session:{session_digest}" if subject is None else f"subject:{subject}"
    return digest(f"{scope}:{name}")


def owner(subject: str | None) -> str:
    """A subject as a field holds it: nobody and the empty name are told apart."""
    return "" if subject is None else f"={subject}"


def subject(owner: str) -> str | None:
    """The subject that `owner` was given."""
    return owner[1:] if owner else None


def claim(stream: str, fingerprint: str) -> str:
    """What an id of a session names: a stream, and the fingerprint of its chat."""
    return f"{stream} {fingerprint}"


def claimed(claim: bytes) -> tuple[str, str]:
    """The stream and the fingerprint that `claim` was given."""
    stream, _, fingerprint = claim.decode().partition(" ")
    return stream, fingerprint
