"""What rests in Redis is read by nodes of other versions: it stays as it is."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.account import Account
from relay.core.events import Done, EndedAttempt, FinishReason, Kind, Start, Text, Timing, Usage
from relay.core.records import encode
from relay.core.request import ChatRequest, Turn
from relay.core.streamlog import Spec
from relay.stores.redis import keys
from relay.stores.redis.encoding import (
    MAX_BATCH,
    NUMBER_OF,
    Packed,
    StreamFacts,
    UnreadableEntry,
    account_fields,
    batch_of,
    pack,
    read,
    read_account,
    unpack,
)

DONE = Done("gpt", "m", FinishReason.STOP, Usage(1, 2, estimated=False), [], Timing(1, 2))
PACKED = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=MAX_BATCH // 4)), min_size=1)


def test_each_kind_keeps_its_number_whatever_kinds_there_are_beside_it() -> None:
    assert {kind.value: number for kind, number in NUMBER_OF.items()} == {
        "start": 0,
        "token": 1,
        "reasoning": 2,
        "tool_call": 3,
        "fallback": 4,
        "done": 5,
        "error": 6,
    }


def test_every_kind_has_a_number_of_its_own() -> None:
    assert set(NUMBER_OF) == set(Kind)
    assert len(set(NUMBER_OF.values())) == len(Kind)


def test_an_entry_keeps_its_bytes() -> None:
    packed = [encode(Start("st1", "gpt", "m")), encode(Text('a"b'))]
    start = b'{"stream":"st1","provider":"gpt","model":"m"}'
    assert pack(packed) == b"\x92" + b"\x92\x00\xc4\x2d" + start + b'\x92\x01\xc4\x04a\\"b'


@given(PACKED)
def test_batches_hold_what_waited_in_order_and_no_more_than_fits(packed: Packed) -> None:
    waiting, held = list(packed), []
    while waiting:
        batch = batch_of(len(held), waiting)
        records = unpack(batch.payload)
        assert (batch.first, batch.count) == (len(held), len(records))
        assert len(records) == 1 or sum(len(body) for _, body in records) <= MAX_BATCH
        held += records
    assert held == packed


@pytest.mark.parametrize(
    ("record", "status"), [(Text("x"), "running"), (DONE, "done")], ids=["text", "done"]
)
def test_a_batch_tells_the_status_that_its_last_record_leaves(record: Text, status: str) -> None:
    assert batch_of(0, [encode(Text("x")), encode(record)]).status == status


@pytest.mark.parametrize(
    "payload",
    [
        msgspec.msgpack.encode([(1, b"x"), (7, b"{}")]),
        msgspec.msgpack.encode([(-1, b"x")]),
        msgspec.msgpack.encode([("token", b"x")]),
        msgspec.msgpack.encode({"records": []}),
        b"\xc1",
        b"",
    ],
)
def test_what_a_later_version_may_write_is_told_not_misread(payload: bytes) -> None:
    with pytest.raises(UnreadableEntry):
        unpack(payload)


def test_a_known_kind_with_an_unknown_value_is_told() -> None:
    kind, body = encode(DONE)
    later = body.replace(b'"stop"', b'"paused"')
    with pytest.raises(UnreadableEntry):
        read(pack([(kind, later)]))


def test_a_field_that_a_later_version_added_is_passed_over() -> None:
    kind, body = encode(DONE)
    later = [(kind, body[:-1] + b',"mood":"fine"}')]
    assert read(pack(later)) == later


def spec(conversation: str | None = "a talk", subject: str | None = "ann") -> Spec:
    request = ChatRequest("gpt", (Turn("user", "hi"),), conversation=conversation)
    return Spec("st1", "a-secret", "a", subject, request, 300.0)


def held(fields: dict[str, str | bytes]) -> dict[bytes, bytes]:
    """The fields as Redis gives them back."""
    return {
        name.encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in fields.items()
    }


def test_what_redis_keeps_of_a_stream_stays_as_other_versions_read_it() -> None:
    fields = StreamFacts.of(spec(), max_request=1_000).fields()
    assert fields.pop("request") == msgspec.msgpack.encode(spec().request)
    assert fields == {
        "subject": "=ann",
        "session": keys.digest("a-secret"),
        "id": "a",
        "grace": "300.0",
        "fingerprint": spec().request.fingerprint(),
        "newest": keys.digest("subject:ann:a talk"),
    }


@pytest.mark.parametrize("conversation", [None, "a talk"])
@pytest.mark.parametrize("subject", [None, "ann"])
def test_another_node_reads_what_a_stream_was_created_with(
    conversation: str | None, subject: str | None
) -> None:
    asked = spec(conversation, subject)
    facts = StreamFacts.of(asked, max_request=1_000)
    read_back = StreamFacts.read(held(facts.fields()))
    assert read_back == facts
    known = msgspec.structs.replace(asked, session=keys.digest(asked.session))
    assert read_back.spec("st1") == known


def test_of_a_request_that_is_too_large_nothing_is_kept_and_nothing_made_up() -> None:
    facts = StreamFacts.of(spec(), max_request=3)
    assert "request" not in facts.fields()
    assert StreamFacts.read(held(facts.fields())).spec("st1") is None


@pytest.mark.parametrize(("written_by", "calls"), [(2, ()), (3, None)])
def test_an_account_tells_of_calls_only_where_its_owner_wrote_last(
    written_by: int, calls: tuple[()] | None
) -> None:
    account = Account((EndedAttempt("gpt", "m", "provider_error", 5),), calls=(), first_text_ms=9)
    read_back = read_account(held(account_fields(account, 2)), written_by)
    assert read_back == msgspec.structs.replace(account, calls=calls, epoch=2)
