"""The Lua scripts that change streams and sessions in Redis.

The order of each script's arguments and the form of its answer are defined only here and in
`lua/`. The function named after a script makes the command that runs it; `verdict` and the named
tuples decode the answers. Times are in milliseconds.
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
"""Ids that one session remembers, also of streams that were dropped. The oldest are forgotten
first, and may then name a new chat."""

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
"""The message on a stream's channel when its owner gave the stream up. Every other message there is
the seq after the last record."""


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
    """The result of a script."""

    OK = b"ok"
    DUPLICATE = b"duplicate"
    """The same batch was appended before."""
    FENCED = b"fenced"
    """Another node owns the stream."""
    GAP = b"gap"
    """Redis lost acknowledged records."""
    MISSING = b"missing"
    """Redis lost the stream, or records of it."""
    TAKEN = b"taken"
    """Another node already took the new stream over."""
    HELD = b"held"
    """The id already names a stream."""
    FOREIGN = b"foreign"
    """The session belongs to another subject."""
    FULL = b"full"
    """The session already runs the most streams that it may."""
    NEW = b"new"
    KNOWN = b"known"


verdict = {each.value: each for each in ScriptVerdict}.__getitem__
"""Decodes an answer that is only a verdict. Raises `KeyError` for anything else."""


class ClaimAnswer(NamedTuple):
    """Whether an id could be claimed. `detail` is the existing claim if `HELD`, the number of
    running streams if `FULL`."""

    verdict: ScriptVerdict
    detail: bytes = b""

    @classmethod
    def decode(cls, answer: Sequence[bytes]) -> ClaimAnswer:
        """Decode the answer of `claim.lua`."""
        return cls(verdict(answer[0]), answer[1])


class Renewal(NamedTuple):
    """The answer to an owner that renews its lease. `elsewhere` is the number of other nodes with
    readers."""

    verdict: ScriptVerdict
    cancelled: bool
    erased: bool
    elsewhere: int

    @classmethod
    def decode(cls, answer: tuple[bytes, int, int, int]) -> Renewal:
        """Decode the answer of `renew.lua`."""
        said, cancelled, erased, elsewhere = answer
        return cls(verdict(said), bool(cancelled), bool(erased), elsewhere)


class Look(NamedTuple):
    """The state of a stream. `status` is empty if it is gone; `lease_ms` is the rest of its owner's
    lease, 0 for none."""

    status: str
    next_seq: int
    lease_ms: int

    @property
    def running(self) -> bool:
        """Whether it has no terminal record."""
        return self.status == "running"

    @property
    def orphaned(self) -> bool:
        """Whether it runs and no node owns it."""
        return self.running and not self.lease_ms

    @classmethod
    def decode(cls, answer: tuple[bytes, int, int]) -> Look:
        """Decode the answer of `watch.lua`."""
        return cls(answer[0].decode(), answer[1], answer[2])


class TakenOver(NamedTuple):
    """A stream's new epoch, 0 if it could not be taken over; the ms since its former owner last
    renewed, and since its chat was accepted."""

    epoch: int
    alone_ms: int
    age_ms: int


class EndWanted(NamedTuple):
    """The status of a stream that a client cancelled, empty if it is gone, and the node that owns
    it, empty for none."""

    status: str
    owner: str

    @classmethod
    def decode(cls, answer: tuple[bytes, bytes]) -> EndWanted:
        """Decode the answer of `want_end.lua`."""
        return cls(answer[0].decode(), answer[1].decode())


class LuaScript(Enum):
    """A script of `lua/`, by the name of its file. It is run by the digest of its text, so Redis
    must have loaded it."""

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
    """Create a stream with its owner's lease. Answers a verdict: `OK` or `TAKEN`."""
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
    """Claim an id of a session for a stream, which counts as running there for `counts` (0: not at
    all). Answers a `ClaimAnswer`: `OK`, `HELD`, `FOREIGN` or `FULL`."""
    claim = keys.claim(stream, fingerprint)
    return LuaScript.CLAIM.command(
        (*_session_keys(session), keys.running(session)),
        *(id, claim, owner, max_running, keep, stream, counts, MAX_IDS),
    )


def open_session(session: str, owner: str, *, keep: int) -> Command:
    """Open a session, or renew its expiry. Answers a verdict: `NEW`, `KNOWN` or `FOREIGN`."""
    return LuaScript.OPEN_SESSION.command(_session_keys(session), owner, keep)


def leave_session(session: str, *, keep: int) -> Command:
    """Let a session expire after `keep`, unless one of its streams is running."""
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
    """Append an entry of `count` records (0: only store the fields `noted`). Answers a verdict:
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
    """Restore a stream that Redis lost. An entry is the seq after it and its payload; `age` is how
    long ago the chat was accepted. Answers a verdict: `OK` or `FENCED`."""
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
    """Renew the owner's lease. `acknowledged` is the seq after the last record that Redis
    acknowledged. Answers a `Renewal`: `OK`, `FENCED` or `MISSING`."""
    return LuaScript.RENEW.command(
        (keys.stream(stream), keys.log(stream), keys.lease(stream), keys.readers(stream)),
        *(epoch, node, lease, keep, linger, acknowledged, *_flat(noted)),
    )


def count(session: str, stream: str, *, counts: int, anew: bool) -> Command:
    """Let a stream count as running in its session for another `counts`. One that no longer counts
    does so again only if `anew`."""
    return LuaScript.COUNT.command((keys.running(session),), stream, counts, int(anew))


def watch(stream: str, node: str, *, holds: int) -> Command:
    """Get the state of a stream, and report for `holds` that the node reads it (0: it does not).
    Answers a `Look`."""
    names = (keys.stream(stream), keys.lease(stream), keys.readers(stream))
    return LuaScript.WATCH.command(names, node, holds)


def take_over(stream: str, node: str, *, lease: int) -> Command:
    """Take over a running stream that no node owns. Answers a `TakenOver`."""
    return LuaScript.TAKE_OVER.command((keys.stream(stream), keys.lease(stream)), node, lease)


def give_up(stream: str, epoch: int) -> Command:
    """Drop a stream that lost records, unless another node took it over."""
    names = (keys.stream(stream), keys.log(stream), keys.lease(stream))
    return LuaScript.GIVE_UP.command(names, epoch)


def release(stream: str, epoch: int, node: str) -> Command:
    """Give a stream up, so that another node can take it over at once."""
    return LuaScript.RELEASE.command((keys.stream(stream), keys.lease(stream)), epoch, node)


def want_end(stream: str, *, erase: bool, linger: int) -> Command:
    """Cancel a stream, and with `erase` drop it after its end. Answers an `EndWanted`."""
    names = (keys.stream(stream), keys.log(stream), keys.lease(stream), keys.readers(stream))
    return LuaScript.WANT_END.command(names, int(erase), linger)


def mark(node: str, *, lasts: int) -> Command:
    """Renew a node's mark. Answers 1 if the last one was still there, else 0."""
    return LuaScript.MARK.command((keys.marker(node),), lasts)


def _session_keys(session: str) -> tuple[str, str, str]:
    return keys.session(session), keys.ids(session), keys.order(session)


def _flat(fields: Fields) -> list[str | bytes]:
    return [part for field in fields.items() for part in field]
