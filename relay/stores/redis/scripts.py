"""The Lua scripts that change what Redis keeps of streams and sessions.

The order of each script's arguments and what it answers are written here and in `lua/`, and
nowhere else. A function that is named after a script makes the command that runs it;
`verdict` and the named tuples decode the answers. Times are in milliseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib.resources import files
from typing import NamedTuple

from relay.stores.redis import keys

Command = tuple[str | int | bytes, ...]
"""A Redis command: its name and its arguments."""

Fields = Mapping[str, str | bytes]
"""Fields of a stream's hash."""

SCRIPTS = files("relay.stores.redis").joinpath("lua")

UNLIMITED = 1_000_000_000

MAX_IDS = 2_000
"""Ids that one session remembers, those of gone streams included; the oldest are
forgotten first, and may then name a new chat."""

COUNTS_LEASES = 6
"""Leases for which a stream without renewal counts as running in its session."""

ORPHAN_LEASES = 3
"""Leases for which a running stream is kept after its owner's last renewal, in addition to its
grace and the window. The first of these leases must run out before another node may take the
stream over."""

SESSION_REFRESH = 300.0
"""Seconds after which the expiry of a used session is renewed; a quarter of the session's lifetime
if that is less."""

ORPHANED = b"orphan"
"""Published on a stream's channel when its owner gave it up; everything else that is
published there is the seq after the last record."""


class RedisTerms(NamedTuple):
    """How long things are kept, in ms, the largest request that is kept, in bytes, and the
    number of streams that a session may run."""

    keep: int
    lease: int
    linger: int
    max_running: int
    max_request: int

    @property
    def counts(self) -> int:
        """How long a stream without renewal counts as running, in ms."""
        return COUNTS_LEASES * self.lease

    @property
    def refresh(self) -> float:
        """Seconds after which the expiry of a used session is renewed."""
        return min(SESSION_REFRESH, self.keep / 4000)

    def running(self, grace: float) -> int:
        """How long a running stream is kept after its owner's last renewal, in ms. An orphan waits
        for a reader for `grace` seconds, as with a living owner."""
        return self.keep + int(grace * 1000) + ORPHAN_LEASES * self.lease

    def session(self, grace: float = 0.0) -> int:
        """How long a session is kept after its last renewal, in ms, while it is used or one of its
        streams, of that grace, is running."""
        return self.running(grace) + int(self.refresh * 1000)


class ScriptVerdict(Enum):
    """How a script judged what it was asked."""

    OK = b"ok"
    DUPLICATE = b"duplicate"
    """The same batch was appended before."""
    FENCED = b"fenced"
    """Another node owns the stream."""
    GAP = b"gap"
    """Redis lost records that it had acknowledged."""
    MISSING = b"missing"
    """Redis lost the stream, or records of it."""
    TAKEN = b"taken"
    """Another node took the new stream over already."""
    HELD = b"held"
    """The id names a stream already."""
    FOREIGN = b"foreign"
    """The session belongs to another subject."""
    FULL = b"full"
    """The session runs as many streams as it may."""
    NEW = b"new"
    KNOWN = b"known"


verdict = {each.value: each for each in ScriptVerdict}.__getitem__
"""Decodes an answer that is a verdict alone. Raises `KeyError` for anything else."""


class ClaimAnswer(NamedTuple):
    """Whether an id names a stream. `detail` is the claim that is `HELD`, or the number of
    streams that run where the session is `FULL`."""

    verdict: ScriptVerdict
    detail: bytes = b""

    @classmethod
    def decode(cls, answer: Sequence[bytes]) -> ClaimAnswer:
        """From what `claim.lua` answers."""
        return cls(verdict(answer[0]), answer[1])


class Renewal(NamedTuple):
    """What the owner of a stream learns when it renews its lease. `elsewhere` counts the
    other nodes with readers."""

    verdict: ScriptVerdict
    cancelled: bool
    erased: bool
    elsewhere: int

    @classmethod
    def decode(cls, answer: tuple[bytes, int, int, int]) -> Renewal:
        """From what `renew.lua` answers."""
        said, cancelled, erased, elsewhere = answer
        return cls(verdict(said), bool(cancelled), bool(erased), elsewhere)


class Look(NamedTuple):
    """How a stream is doing. `status` is empty where it is gone; `lease_ms` is what is left
    of its owner's lease, 0 for none."""

    status: str
    next_seq: int
    lease_ms: int

    @property
    def running(self) -> bool:
        """Whether it has no terminal record."""
        return self.status == "running"

    @property
    def orphaned(self) -> bool:
        """Whether it runs and nobody owns it."""
        return self.running and not self.lease_ms

    @classmethod
    def decode(cls, answer: tuple[bytes, int, int]) -> Look:
        """From what `watch.lua` answers."""
        return cls(answer[0].decode(), answer[1], answer[2])


class TakenOver(NamedTuple):
    """A stream's new epoch, 0 where it could not be taken over; the ms since its former
    owner renewed, and since its chat was accepted."""

    epoch: int
    alone_ms: int
    age_ms: int


class EndWanted(NamedTuple):
    """What a client wanted to end: its status, empty where it is gone, and the node that
    owns it, empty for none."""

    status: str
    owner: str

    @classmethod
    def decode(cls, answer: tuple[bytes, bytes]) -> EndWanted:
        """From what `want_end.lua` answers."""
        return cls(answer[0].decode(), answer[1].decode())


class LuaScript(Enum):
    """A script of `lua/`, by the name of its file. Redis must have loaded it; it knows it by
    the digest of its text."""

    CREATE = "create"
    CLAIM = "claim"
    OPEN_SESSION = "open_session"
    LEAVE_SESSION = "leave_session"
    APPEND = "append"
    REWRITE = "rewrite"
    RENEW = "renew"
    COUNT = "count"
    WATCH = "watch"
    TAKE_OVER = "take_over"
    GIVE_UP = "give_up"
    RELEASE = "release"
    WANT_END = "want_end"
    MARK = "mark"

    def __init__(self, file: str) -> None:
        self.text = SCRIPTS.joinpath(f"{file}.lua").read_text(encoding="utf-8")
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, names: Sequence[str], *args: str | int | bytes) -> Command:
        """The command that runs it."""
        return ("EVALSHA", self.digest, len(names), *names, *args)


def create(stream: str, node: str, facts: Fields, *, lease: int, keep: int) -> Command:
    """Make a stream with its owner's lease. Answers a verdict: `OK` or `TAKEN`."""
    names = (keys.stream(stream), keys.lease(stream))
    return LuaScript.CREATE.command(names, node, lease, keep, *_flat(facts))


def claim(
    session: str,
    id: str,
    stream: str,
    fingerprint: str,
    owner: str,
    *,
    max_running: int = UNLIMITED,
    keep: int,
    counts: int,
) -> Command:
    """Let an id of a session name a stream, which counts as running there for `counts` (0: not
    at all). Answers a `ClaimAnswer`: `OK`, `HELD`, `FOREIGN` or `FULL`."""
    claim = keys.claim(stream, fingerprint)
    return LuaScript.CLAIM.command(
        (*_session_keys(session), keys.running(session)),
        *(id, claim, owner, max_running, keep, stream, counts, MAX_IDS),
    )


def open_session(session: str, owner: str, *, keep: int) -> Command:
    """Take part in a session, or keep it. Answers a verdict: `NEW`, `KNOWN` or `FOREIGN`."""
    return LuaScript.OPEN_SESSION.command(_session_keys(session), owner, keep)


def leave_session(session: str, *, keep: int) -> Command:
    """Keep a session no longer than `keep`, unless a stream of it runs."""
    names = (*_session_keys(session), keys.running(session))
    return LuaScript.LEAVE_SESSION.command(names, keep)


def append(
    stream: str,
    epoch: int,
    first: int,
    count: int,
    payload: bytes,
    status: str,
    noted: Fields,
    *,
    keep: int,
    linger: int,
) -> Command:
    """Append an entry of `count` records (0: keep only the fields `noted`). Answers a verdict:
    `OK`, `DUPLICATE`, `FENCED`, `GAP` or `MISSING`."""
    return LuaScript.APPEND.command(
        (keys.stream(stream), keys.log(stream), keys.lease(stream)),
        *(epoch, first, count, payload, keep, status, linger, *_flat(noted)),
    )


def rewrite(
    stream: str,
    epoch: int,
    node: str,
    status: str,
    entries: Sequence[tuple[int, bytes]],
    fields: Fields,
    *,
    lease: int,
    keep: int,
    age: int,
) -> Command:
    """Write a stream anew that Redis lost; an entry is the seq after it and its payload.
    `age` is how long ago the chat was accepted. Answers a verdict: `OK` or `FENCED`."""
    flat = [part for entry in entries for part in entry]
    return LuaScript.REWRITE.command(
        (keys.stream(stream), keys.log(stream), keys.lease(stream)),
        *(epoch, node, lease, keep, status, age, len(entries), *flat, *_flat(fields)),
    )


def renew(
    stream: str,
    epoch: int,
    node: str,
    acknowledged: int,
    noted: Fields,
    *,
    lease: int,
    keep: int,
    linger: int,
) -> Command:
    """Renew the owner's lease; `acknowledged` is the seq after the last record that Redis
    acknowledged. Answers a `Renewal`: `OK`, `FENCED` or `MISSING`."""
    return LuaScript.RENEW.command(
        (keys.stream(stream), keys.log(stream), keys.lease(stream), keys.readers(stream)),
        *(epoch, node, lease, keep, linger, acknowledged, *_flat(noted)),
    )


def count(session: str, stream: str, *, counts: int, anew: bool) -> Command:
    """Let a stream go on counting as running in its session for `counts`; one that ceased to
    only where `anew`."""
    return LuaScript.COUNT.command((keys.running(session),), stream, counts, int(anew))


def watch(stream: str, node: str, *, holds: int) -> Command:
    """Say for `holds` that the node reads a stream (0: it does not). Answers a `Look`."""
    names = (keys.stream(stream), keys.lease(stream), keys.readers(stream))
    return LuaScript.WATCH.command(names, node, holds)


def take_over(stream: str, node: str, *, lease: int) -> Command:
    """Take a running stream that nobody owns. Answers a `TakenOver`."""
    return LuaScript.TAKE_OVER.command((keys.stream(stream), keys.lease(stream)), node, lease)


def give_up(stream: str, epoch: int) -> Command:
    """Let go of a stream that lost records, unless another node took it."""
    names = (keys.stream(stream), keys.log(stream), keys.lease(stream))
    return LuaScript.GIVE_UP.command(names, epoch)


def release(stream: str, epoch: int, node: str) -> Command:
    """Give a stream up, so that another node takes it at once."""
    return LuaScript.RELEASE.command((keys.stream(stream), keys.lease(stream)), epoch, node)


def want_end(stream: str, *, erase: bool, linger: int) -> Command:
    """Want a stream to end, and to be gone after that where `erase`. Answers an `EndWanted`."""
    names = (keys.stream(stream), keys.log(stream), keys.lease(stream), keys.readers(stream))
    return LuaScript.WANT_END.command(names, int(erase), linger)


def mark(node: str, *, lasts: int) -> Command:
    """Leave a node's mark. Answers 1 where the last one was still there, else 0."""
    return LuaScript.MARK.command((keys.marker(node),), lasts)


def _session_keys(session: str) -> tuple[str, str, str]:
    return keys.session(session), keys.ids(session), keys.order(session)


def _flat(fields: Fields) -> list[str | bytes]:
    return [part for field in fields.items() for part in field]
