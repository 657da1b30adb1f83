"""Nodes of two versions on one Redis, as while an upgrade rolls over them: what an older node
can't read ends there with a word, and nowhere else."""

from __future__ import annotations

import msgspec
import pytest
import redis as sync_redis

from lab.waiting import until
from relay.core.errors import Code
from relay.core.events import Text
from relay.core.records import encode
from relay.core.streamlog import Orphan, Writer
from tests.wire.redis_nodes import (
    DONE,
    MakeNode,
    Reader,
    begun,
    settled,
)

UNKNOWN = 99
LATER = [
    pytest.param([(1, b"and "), (UNKNOWN, b'{"mood":"fine"}')], id="a kind"),
    pytest.param([(1, b"and "), (5, encode(DONE)[1].replace(b"stop", b"pause"))], id="a value"),
]


def append_as_a_later_version(
    store: sync_redis.Redis, writer: Writer, last: int, records: list[tuple[int, bytes]]
) -> None:
    name = f"relay:{{{writer.stream}}}"
    next_seq = last + 1 + len(records)
    entry = {"e": 1, "r": msgspec.msgpack.encode(records)}
    store.xadd(f"{name}:log", entry, id=f"{next_seq}-0")
    store.hset(name, "next", next_seq)
    store.execute_command("SPUBLISH", name, next_seq)


@pytest.mark.parametrize("records", LATER)
async def test_a_reader_is_told_and_other_streams_go_on(
    store: sync_redis.Redis, make_node: MakeNode, records: list[tuple[int, bytes]]
) -> None:
    a, b = await make_node(), await make_node()
    writer, sound = await begun(a), await begun(a, stream="st2", id="b")
    writer.append([Text("read ")])
    await settled(writer)
    reader, other = await Reader().attach(b), await Reader().attach(b, "st2")
    await until(lambda: reader.text)
    append_as_a_later_version(store, writer, reader.last, records)
    await until(lambda: reader.ended)
    assert reader.error is not None
    assert (reader.error.code, reader.error.retryable) == (Code.INTERNAL, True)
    assert "later version" in reader.error.message
    assert reader.text == "read "
    late = await Reader().attach(b)
    assert late.error is not None
    assert (late.text, late.error.message) == ("read ", reader.error.message)
    sound.append([Text("sound"), DONE])
    await until(lambda: other.ended)
    assert (other.text, other.error) == ("sound", None)
    assert b.healthy


@pytest.mark.parametrize("records", LATER)
async def test_an_older_node_takes_no_answer_over_that_it_cannot_read(
    store: sync_redis.Redis, make_node: MakeNode, records: list[tuple[int, bytes]]
) -> None:
    a, b = await make_node(), await make_node()
    taken: list[Orphan] = []
    b.on_orphan(taken.append)
    writer = await begun(a)
    append_as_a_later_version(store, writer, 0, records)
    await a.close()
    await until(lambda: b._health.may_take_over and not store.exists("relay:{st1}:lease"))
    reader = await Reader().attach(b)
    await until(lambda: reader.ended)
    await b.tick()
    assert taken == []
    assert store.hget("relay:{st1}", "status") == b"running"
    assert not store.exists("relay:{st1}:lease")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request", b"\x81\xa1x\x01"),
        ("attempts", b'[{"later": 1}]'),
        ("account", b'{"reason": "a_later_code"}'),
    ],
)
async def test_an_older_node_takes_no_answer_over_whose_chat_it_cannot_read(
    store: sync_redis.Redis, make_node: MakeNode, field: str, value: bytes
) -> None:
    a, b = await make_node(), await make_node()
    taken: list[Orphan] = []
    b.on_orphan(taken.append)
    await begun(a)
    sound = await begun(b, stream="st2", id="b")
    await a.close()
    store.hset("relay:{st1}", field, value)
    reader = await Reader().attach(b)
    await until(lambda: reader.ended)
    assert reader.error is not None
    assert "later version" in reader.error.message
    assert taken == []
    await until(lambda: not store.exists("relay:{st1}:lease"))
    store.delete("relay:{st2}:lease")
    await until(lambda: store.exists("relay:{st2}:lease"))  # its own are still kept
    sound.append([DONE])
    await settled(sound)
