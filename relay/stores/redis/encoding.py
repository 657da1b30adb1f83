"""The form of a stream in Redis: the entries of its log, the constant fields of its hash, and
those that the owner updates.

During an upgrade, nodes of different versions read each other's data, so this format is stable:
kinds have the numbers of `NUMBER_OF`, independent of the order in which they are declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec import structs

from relay.core.account import Account
from relay.core.events import TERMINAL, TEXTUAL, EndedAttempt, Kind
from relay.core.records import decode
from relay.core.request import ChatRequest
from relay.core.streamlog import Spec, StreamStatus
from relay.stores.redis import keys

MAX_BATCH = 64 * 1024
"""Bytes of records after which a batch is full; only a single record may be longer."""

NUMBER_OF = {
    Kind.START: 0,
    Kind.TOKEN: 1,
    Kind.REASONING: 2,
    Kind.TOOL_CALL: 3,
    Kind.FALLBACK: 4,
    Kind.DONE: 5,
    Kind.ERROR: 6,
}
"""A kind's number in Redis. It never changes: a new kind gets the next number, and the number of a
removed kind is not used again."""

_KIND_OF = {number: kind for kind, number in NUMBER_OF.items()}

Packed = list[tuple[Kind, bytes]]
"""Records in the form that `records.encode` returns."""

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[int, bytes]]).decode
_unpack_request = msgspec.msgpack.Decoder(ChatRequest).decode
_to_json = msgspec.json.Encoder().encode
_attempts = msgspec.json.Decoder(tuple[EndedAttempt, ...]).decode
_account = msgspec.json.Decoder(Account).decode


class UnreadableEntry(Exception):
    """An entry that this version of the relay can't read; a later version may have written it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records `first .. first + count - 1` that are being sent. It stays unchanged until Redis has
    answered, so that Redis can recognise a repeated call as a duplicate."""

    first: int
    count: int
    payload: bytes
    status: StreamStatus

    @property
    def next(self) -> int:
        """The seq of the record after the batch."""
        return self.first + self.count


def pack(packed: Packed) -> bytes:
    """Records in the form of a log entry: MessagePack, an array of (number, body)."""
    return _pack([(NUMBER_OF[kind], body) for kind, body in packed])


def unpack(payload: bytes) -> Packed:
    """The records that were given to `pack`. Raises `UnreadableEntry`."""
    try:
        return [(_KIND_OF[number], body) for number, body in _unpack(payload)]
    except (KeyError, msgspec.MsgspecError) as error:
        raise UnreadableEntry from error


def read(payload: bytes) -> Packed:
    """The records of an entry that another node wrote, maybe of a later version. Raises
    `UnreadableEntry` for an unknown kind, or a record of a known kind with an unknown value."""
    packed = unpack(payload)
    try:
        for kind, body in packed:
            if kind not in TEXTUAL:
                decode(kind, body)
    except msgspec.MsgspecError as error:
        raise UnreadableEntry from error
    return packed


def batch_of(first: int, waiting: Packed) -> Batch:
    """Take as many records off the front of `waiting` as fit in a batch."""
    packed = _cut(waiting)
    kind = packed[-1][0]
    status: StreamStatus = (
        "running" if kind not in TERMINAL else "done" if kind is Kind.DONE else "error"
    )
    return Batch(first, len(packed), pack(packed), status)


def nothing_after(next_seq: int) -> Batch:
    """A batch without records, used to save only the account."""
    return Batch(next_seq, 0, b"", "running")


def _cut(waiting: Packed) -> Packed:
    size = count = 0
    while count < len(waiting) and (not count or size + len(waiting[count][1]) <= MAX_BATCH):
        size += len(waiting[count][1])
        count += 1
    front = waiting[:count]
    del waiting[:count]
    return front


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """The fields of a stream in Redis that never change after its creation.

    `owner` is the subject as `keys.owner` writes it. `session` is a digest; `newest` is the digest
    of the stream's conversation, empty for none. `request` is the encoded chat, None if it was too
    large to keep: such an answer can't be taken over.
    """

    owner: str
    session: str
    id: str
    grace: float
    fingerprint: str
    newest: str
    request: bytes | None

    @classmethod
    def of(cls, spec: Spec, max_request: int) -> StreamFacts:
        """The facts of a new stream. `max_request` in bytes."""
        session, conversation = keys.digest(spec.session), spec.request.conversation
        request = _pack(spec.request)
        return cls(
            owner=keys.owner(spec.subject),
            session=session,
            id=spec.id,
            grace=spec.grace,
            fingerprint=spec.request.fingerprint(),
            newest=keys.conversation(spec.subject, session, conversation) if conversation else "",
            request=request if len(request) <= max_request else None,
        )

    @classmethod
    def read(cls, held: Mapping[bytes, bytes]) -> StreamFacts:
        """The facts in a stream's hash. Raises `KeyError` or `ValueError` if this version of the
        relay can't read them."""
        return cls(
            owner=held[b"subject"].decode(),
            session=held[b"session"].decode(),
            id=held[b"id"].decode(),
            grace=float(held[b"grace"]),
            fingerprint=held[b"fingerprint"].decode(),
            newest=held[b"newest"].decode(),
            request=held.get(b"request"),
        )

    def fields(self) -> dict[str, str | bytes]:
        """The facts as fields of a stream's hash."""
        fields: dict[str, str | bytes] = {
            "subject": self.owner,
            "session": self.session,
            "id": self.id,
            "grace": str(self.grace),
            "fingerprint": self.fingerprint,
            "newest": self.newest,
        }
        if self.request is not None:
            fields["request"] = self.request
        return fields

    def spec(self, stream: str) -> Spec | None:
        """What the stream was created with, as another node reads it; None if the request was not
        kept. Its session is the digest, since the name itself is not kept. Raises
        `msgspec.MsgspecError` for a request that this version can't read."""
        if self.request is None:
            return None
        request = _unpack_request(self.request)
        return Spec(stream, self.session, self.id, keys.subject(self.owner), request, self.grace)


def account_fields(account: Account, epoch: int) -> dict[str, str | bytes]:
    """The fields in which the owner of that epoch keeps its account. `attempts` is a field of its
    own because earlier versions of the relay read only that."""
    rest = structs.replace(account, attempts=(), epoch=epoch)
    return {"attempts": _to_json(account.attempts), "account": _to_json(rest)}


def read_account(held: Mapping[bytes, bytes], written_by: int) -> Account:
    """The account in a stream's hash; the last records are of epoch `written_by`. An account of an
    earlier owner is ignored, since its calls are not those of this owner. There can be one if a
    node of an earlier version, which keeps attempts only, owned the stream in between. Raises
    `msgspec.MsgspecError` for an account that this version can't read."""
    account = _account(held.get(b"account", b"{}"))
    calls = account.calls if account.epoch >= written_by else None
    attempts = _attempts(held.get(b"attempts", b"[]"))
    return structs.replace(account, attempts=attempts, calls=calls)
