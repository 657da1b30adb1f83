"""`GET /ws` on real sockets: greeting, streams, sessions, tokens, lies and losses."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import suppress
from typing import Any

import pytest

from lab.waiting import until
from relay.core.errors import Code, RelayError
from relay.core.events import Text
from relay.core.provider import Call, Take
from relay.edges.relay_v1.service import SocketLimits
from relay.stores.memory import MemoryLimits
from tests.by_default import by_default
from tests.wire.socket_relay import (
    END,
    Client,
    Held,
    RawSocket,
    SocketRelay,
    by_token,
    masked,
    says,
    serving,
    words,
)

# Greeting and a whole answer


async def test_chat_as_the_first_frame_is_answered_behind_ready() -> None:
    async with serving(says("Hel", "lo")) as relay:
        client = await relay.connect()
        await client.chat()
        done = await client.until("done")
        types = [frame["type"] for frame in client.frames]
        assert types[:2] == ["ready", "start"]
        assert set(types[2:-1]) == {"token"}
        assert client.texts == {"a": "Hello"}
        assert (done["model"], done["finish_reason"]) == ("m-0613", "stop")
        assert done["usage"] == {"input_tokens": 3, "output_tokens": 5, "estimated": False}


async def test_the_server_says_nothing_before_the_first_frame() -> None:
    async with serving(says("x"), limits=by_default(SocketLimits, heartbeat=0.05)) as relay:
        client = await relay.connect()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.ws.recv()


async def test_ready_tells_what_a_client_has_to_know() -> None:
    limits = by_default(
        SocketLimits, max_frame_bytes=1_000, max_streams_per_session=3, resume_window=60
    )
    async with serving(says("x"), limits=limits) as relay:
        client = await relay.connect()
        await client.send("hello")
        ready = await client.frame()
        assert len(ready.pop("session")) == 32
        assert ready == {
            "type": "ready",
            "protocol": "relay.v1",
            "resumed": False,
            "providers": [{"name": "gpt", "model": "m", "status": "unknown"}],
            "features": [],
            "limits": {
                "max_frame_bytes": 1_000,
                "max_streams_per_session": 3,
                "resume_window": 60,
            },
            "heartbeat": 20,
        }


async def test_a_chat_without_an_id_gets_one() -> None:
    async with serving(says("x")) as relay:
        client = await relay.connect()
        await client.send("chat", messages="hi")
        start = await client.until("start")
        assert (await client.until("done"))["id"] == start["id"]


async def test_many_streams_share_a_socket_each_gapless() -> None:
    async with serving(says(*words(50))) as relay:
        client = await relay.connect()
        for n in range(10):
            await client.chat(f"s{n}")
        while sum(frame["type"] == "done" for frame in client.frames) < 10:
            await client.frame()
        assert set(client.texts.values()) == {"".join(words(50))}


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(None, None), (["relay.v1"], "relay.v1"), (["x", "relay.v1"], "relay.v1")],
)
async def test_the_subprotocol_is_taken_or_left_out(
    offered: list[str] | None, chosen: str | None
) -> None:
    async with serving(says("x")) as relay:
        client = await relay.connect(subprotocols=offered)
        assert client.ws.subprotocol == chosen
        await client.chat()
        await client.until("done")


async def test_a_client_that_offers_only_other_subprotocols_is_closed_with_4406() -> None:
    async with serving(says("x")) as relay:
        client = await relay.connect(subprotocols=["graphql-ws"])
        assert await client.closed() == 4406


# Sessions


async def cut_after(relay: SocketRelay, frames: int) -> Client:
    """A client that vanished after so many frames of an answer."""
    client = await relay.connect()
    await client.send("hello")
    await client.frame()
    await client.chat()
    for _ in range(frames):
        await client.frame()
    client.drop()
    return client


async def come_back(relay: SocketRelay, gone: Client) -> Client:
    """The same client on another connection."""
    client = await relay.connect()
    client.session, client.last, client.texts = gone.session, gone.last, gone.texts
    await client.send("hello", session=gone.session, resume=gone.last)
    return client


@pytest.mark.parametrize("cut", [*range(12), *range(12, 202, 10), 201])
async def test_an_answer_cut_at_any_frame_is_whole_after_a_resume(cut: int) -> None:
    pieces = words(200)
    async with serving(says(*pieces)) as relay:
        client = await come_back(relay, await cut_after(relay, min(cut, 3)))
        if "a" not in client.last:
            await client.chat()
        while len(client.frames) < cut and "a" in client.last and not ended(client):
            await client.frame()
        if not ended(client):
            client.drop()
            client = await come_back(relay, client)
            if "a" not in client.last:
                await client.chat()
            await client.until("done")
        assert client.texts == {"a": "".join(pieces)}
        assert len(relay.provider.calls) == 1


def ended(client: Client) -> bool:
    return any(frame["type"] == "done" for frame in client.frames)


async def test_a_paced_answer_cut_after_every_frame_is_whole() -> None:
    held, pieces = Held(), words(200)
    async with serving(held) as relay:
        client = await relay.connect()
        await client.chat()
        await client.until("start")
        for piece in pieces:
            await held.say(piece)
            await client.until("token")
            client.drop()
            client = await come_back(relay, client)
            ready = await client.frame()
            assert ready["resumed"]
            assert [stream["id"] for stream in ready["streams"]] == ["a"]
        held.end()
        await client.until("done")
        assert client.texts == {"a": "".join(pieces)}
        assert len(relay.provider.calls) == 1


async def test_what_was_missed_comes_in_one_merged_frame() -> None:
    held = Held()
    async with serving(held) as relay:
        client = await relay.connect()
        await client.chat()
        await held.say("0")
        await client.until("token")
        client.drop()
        for n in range(1, 500):
            await held.say(f" {n}")
        client = await come_back(relay, client)
        frame = await client.until("token")
        assert (frame["first"], frame["seq"]) == (2, 500)
        assert client.texts["a"] == " ".join(str(n) for n in range(500))


async def test_a_finished_answer_is_replayed_from_the_seq_that_the_client_has() -> None:
    async with serving(says("a", "b", "c")) as relay:
        client = await relay.connect()
        await client.chat()
        await client.until("done")
        client.drop()
        other = await relay.connect()
        await other.send("hello", session=client.session)
        assert (await other.frame())["streams"][0]["status"] == "done"
        await other.send("resume", id="a", after=-1)
        await other.until("done")
        assert other.texts == client.texts


async def test_a_session_may_be_named_by_the_client_before_the_server_saw_it() -> None:
    name = "n" * 22
    async with serving(says("x")) as relay:
        first = await relay.connect()
        await first.send("hello", session=name)
        await first.chat()
        await first.until("start")
        first.drop()
        again = await relay.connect()
        await again.send("hello", session=name)
        await again.chat()
        await again.until("done")
        assert again.texts == {"a": "x"}
        assert len(relay.provider.calls) == 1


async def test_two_tabs_of_one_session_each_get_the_whole_answer() -> None:
    held = Held()
    async with serving(held) as relay:
        one = await relay.connect()
        await one.chat()
        await held.say("first ")
        await one.until("token")
        two = await relay.connect()
        await two.send("hello", session=one.session)
        await two.send("resume", id="a", after=-1)
        await two.until("token")
        await held.say("second")
        held.end()
        await one.until("done")
        await two.until("done")
        assert one.texts == two.texts == {"a": "first second"}
        assert len(relay.provider.calls) == 1


async def test_another_session_reads_and_cancels_by_the_streams_name() -> None:
    held = Held()
    async with serving(held) as relay:
        one = await relay.connect()
        await one.chat()
        stream = (await one.until("start"))["stream"]
        await held.say("x")
        two = await relay.connect()
        await two.send("resume", stream=stream, id="mine", after=-1)
        await two.until("token", "mine")
        await two.send("cancel", id="mine")
        assert (await one.until("done", "a"))["finish_reason"] == "cancelled"
        assert (await two.until("done", "mine"))["finish_reason"] == "cancelled"
        assert held.cancelled.is_set()


async def test_a_stream_of_another_session_is_called_by_its_own_name_where_none_is_given() -> None:
    async with serving(says("x")) as relay:
        one = await relay.connect()
        await one.chat()
        stream = (await one.until("start"))["stream"]
        two = await relay.connect()
        await two.send("resume", stream=stream)
        assert (await two.until("done"))["id"] == stream


async def test_the_newest_stream_of_a_conversation_is_found() -> None:
    async with serving(says("x"), authenticate=by_token) as relay:
        one = await relay.connect()
        await one.send("hello", token="token-a")
        await one.chat("old", conversation="talk")
        await one.chat("new", "again", conversation="talk")
        await one.until("done", "old")
        two = await relay.connect()
        await two.send("hello", token="token-a")
        await two.send("resume", conversation="talk", id="r")
        await two.until("done", "r")
        newest = next(f["stream"] for f in one.frames + two.frames if f.get("id") == "r")
        assert newest == (await stream_named(relay, one, "new"))


async def stream_named(relay: SocketRelay, client: Client, id: str) -> str:
    return await relay.log.find(client.session, id)


async def test_the_same_chat_again_on_its_connection_changes_nothing() -> None:
    held = Held()
    async with serving(held) as relay:
        client = await relay.connect()
        await client.chat()
        await held.say("x")
        await client.until("token")
        await client.chat()
        await client.send("ping", t=1)
        assert (await client.frame()) == {"type": "pong", "t": 1}
        await client.chat("a", "something else")
        assert (await client.frame())["code"] == "bad_request"
        held.end()
        await client.until("done")
        assert len(relay.provider.calls) == 1


async def test_a_resume_on_its_connection_moves_the_reader() -> None:
    held = Held()
    async with serving(held) as relay:
        client = await relay.connect()
        await client.chat()
        await held.say("x")
        await client.until("token")
        client.last, client.texts = {}, {}
        await client.send("resume", id="a", after=-1)
        assert (await client.frame())["type"] == "start"
        assert (await client.frame())["text"] == "x"
        held.end()
        await client.until("done")


async def test_what_is_gone_or_never_was_is_expired() -> None:
    async with serving(says("x"), log_limits=by_default(MemoryLimits, resume_window=0)) as relay:
        client = await relay.connect()
        await client.chat()
        await client.until("done")
        relay.log.sweep()
        for frame in [
            {"type": "resume", "id": "a", "after": 1},
            {"type": "cancel", "id": "a"},
            {"type": "cancel", "id": "never"},
            {"type": "resume", "id": "never"},
            {"type": "resume", "stream": "never"},
            {"type": "resume", "conversation": "never"},
            {"type": "chat", "id": "a", "messages": "hi"},
        ]:
            await client.send(**frame)
            told = await client.frame()
            assert (told["type"], told["code"]) == ("error", "stream_expired"), frame
            assert "seq" not in told


async def test_cancel_closes_the_upstream_and_a_late_one_is_a_race() -> None:
    held = Held()
    async with serving(held) as relay:
        client = await relay.connect()
        await client.chat()
        await held.say("x")
        await client.send("cancel", id="a")
        assert (await client.until("done"))["finish_reason"] == "cancelled"
        assert held.cancelled.is_set()
        await client.send("cancel", id="a")
        await client.send("ping")
        assert (await client.frame())["type"] == "pong"


async def test_a_seq_that_was_never_reached_is_refused() -> None:
    async with serving(says("x")) as relay:
        client = await relay.connect()
        await client.chat()
        await client.until("done")
        await client.send("resume", id="a", after=99)
        assert (await client.frame())["code"] == "bad_request"


async def test_a_session_runs_so_many_streams_and_no_more() -> None:
    async with serving(
        Held(), log_limits=by_default(MemoryLimits, max_streams_per_session=1)
    ) as relay:
        client = await relay.connect()
        await client.chat("a")
        await client.until("start")
        await client.chat("b")
        told = await client.until("error")
        assert (told["code"], told["id"]) == ("too_many_streams", "b")
        await client.send("cancel", id="a")
        await client.until("done", "a")
        await client.chat("b")
        await client.until("start", "b")


async def test_an_unknown_provider_is_told_with_what_there_is() -> None:
    async with serving(says("x")) as relay:
        client = await relay.connect()
        await client.chat(provider="nope")
        told = await client.until("error")
        assert (told["code"], told["id"]) == ("unknown_provider", "a")
        await client.chat(provider="gpt")
        await client.until("done")


# Tokens


async def test_a_token_in_hello_lets_in() -> None:
    async with serving(says("x"), authenticate=by_token) as relay:
        client = await relay.connect()
        await client.send("hello", token="token-a")
        await client.until("ready")
        await client.chat()
        await client.until("done")
        assert relay.told.greetings == [("alice", False)]


async def test_a_token_of_the_upgrade_request_lets_in() -> None:
    headers = {"Authorization": "Bearer token-b"}
    async with serving(says("x"), authenticate=by_token) as relay:
        client = await relay.connect(additional_headers=headers)
        await client.chat()
        await client.until("done")
        assert relay.told.greetings == [("bob", False)]


@pytest.mark.parametrize(
    "first",
    [
        {"type": "chat", "messages": "hi"},
        {"type": "hello"},
        {"type": "hello", "token": "token-x"},
        {"type": "ping"},
    ],
)
async def test_without_a_good_token_nobody_gets_in(first: dict[str, Any]) -> None:
    async with serving(says("x"), authenticate=by_token) as relay:
        client = await relay.connect()
        await client.send(**first)
        assert (await client.frame())["code"] == "unauthorized"
        assert await client.closed() == 4401
        assert relay.provider.calls == []


async def test_a_hello_that_does_not_come_closes_with_4408() -> None:
    limits = by_default(SocketLimits, hello_timeout=0.05)
    async with serving(says("x"), authenticate=by_token, limits=limits) as relay:
        client = await relay.connect()
        assert await client.closed() == 4408
        assert client.frames[0]["code"] == "unauthorized"


async def test_another_subject_gets_neither_session_nor_stream() -> None:
    async with serving(Held(), authenticate=by_token) as relay:
        alice = await relay.connect()
        await alice.send("hello", token="token-a")
        await alice.chat()
        stream = (await alice.until("start"))["stream"]
        bob = await relay.connect()
        await bob.send("hello", token="token-b")
        await bob.until("ready")
        await bob.send("resume", stream=stream)
        assert (await bob.frame())["code"] == "stream_expired"
        thief = await relay.connect()
        await thief.send("hello", token="token-b", session=alice.session)
        assert (await thief.frame())["code"] == "forbidden"
        assert await thief.closed() == 4403


async def test_a_token_is_renewed_by_its_owner_only() -> None:
    async with serving(says("x"), authenticate=by_token) as relay:
        client = await relay.connect()
        await client.send("hello", token="token-a")
        session = (await client.until("ready"))["session"]
        await client.send("hello", token="token-a")
        assert (await client.frame())["session"] == session
        await client.send("hello", token="token-b")
        assert (await client.frame())["code"] == "forbidden"
        assert await client.closed() == 4403


async def test_two_tokens_of_different_people_let_nobody_in() -> None:
    headers = {"Authorization": "Bearer token-b"}
    async with serving(says("x"), authenticate=by_token) as relay:
        client = await relay.connect(additional_headers=headers)
        await client.send("hello", token="token-a")
        assert (await client.frame())["code"] == "forbidden"
        assert await client.closed() == 4403


# Lies


@pytest.mark.parametrize(
    "lie",
    [
        '{"type":"nope"}',
        '{"type":"chat","messages":[]}',
        '{"type":"chat","messages":[{"role":"user","content":5}]}',
        '{"type":"chat","messages":"hi","zz":1}',
        '{"type":"hello","session":"short"}',
        '{"type":"done","id":"a","seq":3}',
        "not json",
        "[" * 100_000,
        '{"type":"ping","t":' + "[" * 5_000 + "]" * 5_000 + "}",
        "",
    ],
    ids=lambda lie: lie[:24],
)
async def test_a_frame_that_lies_is_refused_and_disturbs_nobody(lie: str) -> None:
    held = Held()
    async with serving(held) as relay:
        client = await relay.connect()
        await client.chat()
        await held.say("x")
        await client.until("token")
        await client.ws.send(lie)
        told = await client.frame()
        assert told["code"] in ("bad_frame", "bad_request")
        assert "seq" not in told
        held.end()
        await client.until("done")
        assert client.texts == {"a": "x"}


async def test_what_is_no_frame_three_times_over_closes_with_4400() -> None:
    async with serving(says("x")) as relay:
        client = await relay.connect()
        for noise in ["x", b"\x00\x01", "[]"]:
            await client.ws.send(noise)
        assert await client.closed() == 4400
        assert [frame["code"] for frame in client.frames] == ["bad_frame"] * 3


async def test_text_that_is_not_utf8_closes_with_1007() -> None:
    async with serving(says("x")) as relay:
        client = await relay.connect()
        await client.ws.send(b"\xff\xfe", text=True)
        assert await client.closed() == 1007


async def test_a_frame_may_be_as_large_as_the_limit_and_no_larger() -> None:
    def sized(size: int) -> str:
        frame = json.dumps({"type": "chat", "messages": ""})
        return frame.replace('""', '"' + "x" * (size - len(frame)) + '"')

    async with serving(
        says("x"), limits=by_default(SocketLimits, max_frame_bytes=100_000)
    ) as relay:
        client = await relay.connect()
        await client.ws.send(sized(100_000))
        await client.until("done")
        await client.ws.send(sized(100_001))
        assert await client.closed() == 1009


async def test_a_frame_far_too_large_is_closed_with_1009_before_it_is_read() -> None:
    async with serving(says("x"), limits=by_default(SocketLimits, max_frame_bytes=1_000)) as relay:
        raw = await RawSocket.connect(relay)
        await raw.send(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + bytes(4) + b"x" * 10)
        head = (await raw.rest())[:4]
        assert (head[0], int.from_bytes(head[2:])) == (0x88, 1009)
        raw.close()


# Losses


async def test_half_a_frame_and_then_nothing_leaves_no_trace() -> None:
    async with serving(says("x")) as relay:
        for cut in (1, 2, 5, 9):
            raw = await RawSocket.connect(relay)
            await raw.send(masked(0x81, b'{"type":"chat","messages":"hi"}')[:cut])
            raw.close()
        await until(lambda: relay.edge.connections == 0)
        assert relay.provider.calls == []


async def test_an_answer_goes_on_without_its_reader_also_where_handlers_are_cancelled() -> None:
    held = Held()
    async with serving(held, handler_cancellation=True) as relay:
        client = await relay.connect()
        await client.chat()
        await held.say("one ")
        await client.until("token")
        client.drop()
        await until(lambda: relay.edge.connections == 0)
        await held.say("two")
        held.end()
        client = await come_back(relay, client)
        await client.until("done")
        assert client.texts == {"a": "one two"}
        assert not held.cancelled.is_set()


async def test_a_peer_that_answers_no_ping_is_found_dead() -> None:
    async with serving(says("x"), limits=by_default(SocketLimits, heartbeat=0.1)) as relay:
        raw = await RawSocket.connect(relay)
        await until(lambda: relay.edge.connections == 1)
        await raw.rest()
        await until(lambda: relay.edge.connections == 0)
        raw.close()


async def test_a_browser_sees_a_ping_each_interval() -> None:
    async with serving(says("x"), limits=by_default(SocketLimits, heartbeat=0.05)) as relay:
        client = await relay.connect()
        await client.send("hello")
        await client.until("ready")
        for _ in range(3):
            assert await client.frame() == {"type": "ping"}


async def test_a_client_that_closes_is_closed_in_turn() -> None:
    async with serving(Held()) as relay:
        client = await relay.connect()
        await client.chat()
        await client.until("start")
        await client.ws.close()
        assert client.ws.close_code == 1000
        await until(lambda: relay.edge.connections == 0)


async def test_a_session_is_left_when_its_last_connection_ends() -> None:
    async with serving(says("x"), log_limits=by_default(MemoryLimits, resume_window=0)) as relay:
        client = await relay.connect()
        await client.send("hello")
        session = (await client.frame())["session"]
        relay.log.sweep()
        client.drop()
        await until(lambda: relay.edge.connections == 0)
        relay.log.sweep()
        again = await relay.connect()
        await again.send("hello", session=session)
        assert (await again.frame())["resumed"] is False


async def test_a_defect_in_one_action_is_told_and_disturbs_no_other_stream() -> None:
    held = Held()
    async with serving(held) as relay:
        client = await relay.connect()
        await client.chat("a")
        await held.say("x")
        await client.until("token")
        start, relay.dispatcher.start = relay.dispatcher.start, None  # type: ignore[method-assign]
        await client.chat("b")
        told = await client.until("error")
        assert (told["code"], told["id"]) == ("internal", "b")
        assert isinstance(relay.told.defects.pop(), TypeError)
        relay.dispatcher.start = start  # type: ignore[method-assign]
        held.end()
        await client.until("done", "a")


async def test_a_store_that_fails_while_greeting_closes_for_a_later_try() -> None:
    async with serving(says("x")) as relay:
        client = await relay.connect()
        await client.send("hello")
        session = (await client.frame())["session"]

        async def fail(session: str) -> None:
            raise RelayError(Code.INTERNAL, "the store is away", retryable=True)

        relay.log.session_streams = fail  # type: ignore[method-assign, assignment]
        again = await relay.connect()
        await again.send("hello", session=session, resume={"a": 0})
        assert (await again.frame())["code"] == "internal"
        assert await again.closed() == 4500
        assert [frame["code"] for frame in again.frames] == ["internal"]


async def test_what_an_answer_does_carries_the_names_of_connection_and_session() -> None:
    seen: list[tuple[str, str]] = []

    async def run(call: Call, take: Take) -> None:
        seen.append(relay.told.named.get())
        take([Text("x"), *END])

    async with serving(run) as relay:
        client = await relay.connect()
        await client.chat()
        await client.until("done")
        ((connection, session),) = seen
        assert len(connection) == 8
        assert session == client.session


async def test_how_a_connection_ended_is_told() -> None:
    async with serving(says("x")) as relay:
        polite = await relay.connect()
        await polite.send("ping")
        await polite.frame()
        await polite.ws.close(1001)
        await until(lambda: relay.told.closed == [1001])
        rude = await relay.connect()
        rude.drop()
        await until(lambda: relay.told.closed == [1001, None])
        noisy = await relay.connect()
        await noisy.ws.send(b"\xff", text=True)
        await until(lambda: relay.told.closed == [1001, None, 1007])
        last = await relay.connect()
        await last.send("ping")
        await last.frame()
        await relay.edge.close_all(1012)
        await until(lambda: relay.told.closed == [1001, None, 1007, 1012])


async def test_a_client_that_is_gone_before_its_pings_are_answered_is_no_defect() -> None:
    async with serving(says("x")) as relay:
        raw = await RawSocket.connect(relay, receive_buffer=4096)
        flood = masked(0x89, b"x" * 125) * 1_000
        async with asyncio.timeout(30):
            with suppress(TimeoutError):
                while True:  # until the relay, which nobody reads, reads no more either
                    await asyncio.wait_for(raw.send(flood), 1)
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        await until(lambda: relay.told.closed == [None])
        assert relay.told.defects == []


# Drain


async def test_drain_tells_greeted_clients_and_those_who_come_later_and_close_ends_all() -> None:
    held = Held()
    async with serving(held) as relay:
        client = await relay.connect()
        await client.chat()
        await client.until("start")
        relay.edge.drain(within=2.0)
        assert 0 <= (await client.until("drain"))["reconnect_after"] <= 2_000
        late = await relay.connect()
        await late.send("hello")
        assert [(await late.frame())["type"] for _ in range(2)] == ["ready", "drain"]
        await held.say("still here")
        await client.until("token")
        await relay.edge.close_all(1012)
        assert await client.closed() == await late.closed() == 1012
        await until(lambda: relay.edge.connections == 0)


async def test_a_request_that_is_no_upgrade_is_a_400_that_says_what_is_due() -> None:
    async with serving(says("x")) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        assert b" 400 " in answer.splitlines()[0]
        assert b"WebSockets only" in answer.splitlines()[-1]
        writer.close()
