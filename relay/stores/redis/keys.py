"""Names of keys and channels in Redis, and the text form of owners and claims.

Nodes of different versions share one Redis, so none of these may change its meaning. The braces
keep the keys of one script in one cluster slot. A stream's channel has the name of its key, so that
a sharded publish stays in the slot. A session's name is a secret and a conversation's is chosen by
the client: only digests of both are stored, so that nobody who reads Redis can resume a session.
"""

from __future__ import annotations

import hashlib

PREFIX = "relay"


def _tagged(tag: str, part: str = "") -> str:
    """A name whose hash tag, and so whose cluster slot, is that of all other names with `tag`."""
    return f"{PREFIX}:{{{tag}}}:{part}" if part else f"{PREFIX}:{{{tag}}}"


def stream(name: str) -> str:
    """Hash: the fields of a stream. Also the channel of its followers."""
    return _tagged(name)


def stream_of(channel: str) -> str:
    """The stream whose channel this is."""
    return channel.partition("{")[2].rstrip("}")


def log(name: str) -> str:
    """Stream: an entry for each batch of records; its id is the seq after the batch."""
    return _tagged(name, "log")


def lease(name: str) -> str:
    """String: the owning node. Expires unless the owner renews it."""
    return _tagged(name, "lease")


def readers(name: str) -> str:
    """Sorted set: the nodes with readers, by the time at which their entry expires (ms)."""
    return _tagged(name, "readers")


def session(digest: str) -> str:
    """Hash: the subject that a session belongs to."""
    return _tagged(digest)


def ids(digest: str) -> str:
    """Hash: a session's ids, each with its claim."""
    return _tagged(digest, "ids")


def order(digest: str) -> str:
    """List: a session's ids, oldest first."""
    return _tagged(digest, "order")


def running(digest: str) -> str:
    """Sorted set: a session's running streams, by the time (ms) at which they no longer count
    unless their owner renews them."""
    return _tagged(digest, "running")


def newest(digest: str) -> str:
    """String: the newest stream of a conversation."""
    return _tagged(digest, "newest")


def node(name: str) -> str:
    """Channel: names of the node's streams that a client cancelled."""
    return _tagged(name, "node")


def marker(name: str) -> str:
    """String: the node's mark, which is missing if Redis lost its data."""
    return _tagged(name, "marker")


def digest(secret: str) -> str:
    """The digest that is stored in place of a name that Redis must not know."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def conversation(subject: str | None, session_digest: str, name: str) -> str:
    """The digest of a conversation: within its subject, or without one within the session."""
    scope = f"session:{session_digest}" if subject is None else f"subject:{subject}"
    return digest(f"{scope}:{name}")


def owner(subject: str | None) -> str:
    """A subject as a field holds it; no subject differs from an empty name."""
    return "" if subject is None else f"={subject}"


def subject(owner: str) -> str | None:
    """The subject that `owner` encoded."""
    return owner[1:] if owner else None


def claim(stream: str, fingerprint: str) -> str:
    """The claim of a session's id: the stream that it names and the fingerprint of its chat."""
    return f"{stream} {fingerprint}"


def claimed(claim: bytes) -> tuple[str, str]:
    """The stream and the fingerprint that `claim` encoded."""
    stream, _, fingerprint = claim.decode().partition(" ")
    return stream, fingerprint
