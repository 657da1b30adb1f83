"""`relay.v1` over HTTP, on real sockets."""

import asyncio
import gc
import json
import socket
import struct
from urllib.parse import quote

import pytest

from lab.waiting import until
from relay.core.errors import Code, RelayError
from relay.core.events import Failed, Text, ToolCall
from relay.edges.delivery.outlet import Outlet, Pace
from relay.stores.memory import MemoryLimits
from tests.by_default import by_default
from tests.wire.http_relay import (
    DONE,
    PATIENCE,
    RawClient,
    client,
    events_of,
    serving,
    text_of,
)

CHAT = {"messages": [{"role": "user", "content": "Hello!"}]}
QUICK = Pace(heartbeat=0.05, write_timeout=0.2)


@pytest.fixture
async def relay():
    async with serving() as served:
        yield served


# The answer


async def test_a_body_written_for_other_chat_servers_is_taken(relay):
    async with client(relay) as reader:
        reader.send("POST", "/chat/gpt", CHAT | {"stream": True, "model": "gpt-4o"})
        assert await reader.head() == 200


async def test_headers_leave_before_the_first_token_and_each_token_as_it_comes(relay):
    async with client(relay) as reader:
        reader.send("POST", "/chat/gpt", CHAT)
        assert await reader.head() == 200
        writer = await relay.started()
        assert reader.headers["content-type"].startswith("text/event-stream")
        assert reader.headers["x-stream-id"] == writer.stream
        assert reader.headers["x-accel-buffering"] == "no"
        assert reader.headers["cache-control"] == "no-store"
        (start,) = events_of(await reader.chunk())
        assert (start.name, start.id) == ("start", "0")
        assert start.data["stream"] == writer.stream
        for seq, piece in enumerate(["Hel", "lo\n", "ö\u2028"], 1):
            writer.append([Text(piece)])
            (token,) = events_of(await reader.chunk())
            id = start.data["id"]
            assert token.data == {"type": "token", "id": id, "seq": seq, "text": piece}
            assert (token.name, token.id) == ("token", str(seq))
        writer.append([DONE])
        (done,) = events_of(await reader.body())
        assert (done.name, done.id, done.data["finish_reason"]) == ("done", "4", "stop")


async def test_what_is_appended_in_one_tick_leaves_in_one_frame(relay):
    async with client(relay) as reader:
        reader.send("POST", "/chat/gpt", CHAT)
        await reader.head()
        await reader.chunk()
        for piece in "abc":
            relay.writer.append([Text(piece)])
        (token,) = events_of(await reader.chunk())
        assert (token.data["first"], token.data["seq"], token.data["text"]) == (1, 3, "abc")


async def test_a_tool_call_and_an_error_are_events_too(relay):
    async with client(relay) as reader:
        reader.send("POST", "/chat/gpt", CHAT)
        writer = await relay.started()
        writer.append([ToolCall("c1", "look", {"a": [1]}), Failed(Code.PROVIDER_ERROR, "no", True)])
        await reader.head()
        _, call, error = events_of(await reader.body())
        assert call.data["arguments"] == {"a": [1]}
        assert (error.name, error.id, error.data["code"]) == ("error", "2", "provider_error")


async def test_the_body_is_json_whatever_the_content_type_says(relay):
    relay.dispatcher.on_start = lambda writer: writer.append([DONE])
    for content_type in (
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data",
        "",
    ):
        async with client(relay) as reader:
            body = await reader.ask("POST", "/chat/gpt", CHAT, {"Content-Type": content_type})
            assert reader.status == 200
            assert events_of(body)[-1].name == "done"


async def test_the_fields_of_a_chat_reach_the_dispatcher(relay):
    relay.dispatcher.on_start = lambda writer: writer.append([DONE])
    chat = CHAT | {"id": "my.id-1", "system": "Be brief.", "max_tokens": 9, "model": "ignored"}
    async with client(relay) as reader:
        body = await reader.ask("POST", "/chat/gpt", chat)
    (request,) = relay.dispatcher.requests
    assert (request.provider, request.system, request.max_tokens) == ("gpt", "Be brief.", 9)
    assert request.messages[0].content == "Hello!"
    assert {event.data["id"] for event in events_of(body)} == {"my.id-1"}


async def test_two_chats_of_one_id_are_two_answers_because_http_has_no_session(relay):
    relay.dispatcher.on_start = lambda writer: writer.append([DONE])
    for content in ("one", "two"):
        async with client(relay) as reader:
            await reader.ask("POST", "/chat/gpt", {"id": "same", "messages": content})
            assert reader.status == 200
    assert len(relay.dispatcher.requests) == 2


async def test_a_connection_takes_its_next_request_after_an_answer(relay):
    relay.dispatcher.on_start = lambda writer: writer.append([Text("hi"), DONE])
    async with client(relay) as reader:
        for _ in range(3):
            assert text_of(events_of(await reader.ask("POST", "/chat/gpt", CHAT))) == "hi"


async def test_a_request_pipelined_behind_an_answer_waits_for_its_end(relay):
    async with client(relay) as reader:
        reader.send("POST", "/chat/gpt", CHAT)
        await reader.head()
        await reader.chunk()
        reader.send("DELETE", "/streams/none")
        relay.writer.append([Text("hi")])
        assert text_of(events_of(await reader.chunk())) == "hi"
        relay.writer.append([DONE])
        assert events_of(await reader.body())[-1].name == "done"
        assert await reader.head() == 404


async def test_http_1_0_gets_the_answer_unchunked_up_to_the_connections_end(relay):
    relay.dispatcher.on_start = lambda writer: writer.append([Text("hi"), DONE])
    async with client(relay) as reader:
        body = await reader.ask("POST", "/chat/gpt", CHAT, version="1.0")
        assert "transfer-encoding" not in reader.headers
        assert [event.name for event in events_of(body)] == ["start", "token", "done"]


async def test_silence_is_filled_with_comments():
    async with serving(pace=QUICK) as relay, client(relay) as reader:
        reader.send("POST", "/chat/gpt", CHAT)
        await reader.head()
        await reader.chunk()
        assert await reader.chunk() == b":\n\n"
        assert await reader.chunk() == b":\n\n"
        relay.writer.append([Text("hi"), DONE])
        assert text_of(events_of(await reader.body())) == "hi"


# What is wrong before it starts


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"hello", 400, "JSON"),
        (b'{"messages": "\xff"}', 400, "JSON"),
        (b"[" * 100_00, 400, "JSON"),
        (b"[]", 422, "object"),
        (b"null", 422, "object"),
        (b"{}", 422, "messages"),
        (b'{"messages": []}', 422, "messages"),
        (b'{"messages": ""}', 422, "messages"),
        (b'{"messages": 5}', 422, "messages"),
        (b'{"messages": [5]}', 422, "messages[0]"),
        (b'{"messages": [{"role": "wizard", "content": "x"}]}', 422, "messages[0].role"),
        (b'{"messages": [{"role": "user"}]}', 422, "messages[0]"),
        (b'{"messages": [{"role": "user", "content": 5}]}', 422, "messages[0].content"),
        (b'{"messages": "x", "max_tokens": 0}', 422, "max_tokens"),
        (b'{"messages": "x", "max_tokens": "5"}', 422, "max_tokens"),
        (b'{"messages": "x", "colour": "red"}', 422, "colour"),
        (b'{"messages": "x", "id": "no spaces"}', 422, "id"),
    ],
)
async def test_a_bad_body_is_told_by_its_field(relay, body, status, named):
    async with client(relay) as reader:
        answer = json.loads(await reader.ask("POST", "/chat/gpt", body))
    assert reader.status == status
    assert reader.headers["content-type"].startswith("application/json")
    assert answer["error"]["code"] == "bad_request"
    assert named in answer["error"]["message"]
    assert relay.dispatcher.requests == []


@pytest.mark.parametrize(
    ("refusal", "status", "retry_after"),
    [
        (RelayError(Code.UNKNOWN_PROVIDER, "why"), 404, None),
        (RelayError(Code.DRAINING, "why", retry_after=0.2), 503, "1"),
        (RelayError(Code.TOO_MANY_STREAMS, "why"), 429, None),
        (RelayError(Code.RATE_LIMITED, "why", retry_after=2.2), 429, "3"),
        (RelayError(Code.BAD_REQUEST, "why"), 422, None),
    ],
)
async def test_a_refused_chat_has_its_status(relay, refusal, status, retry_after):
    relay.dispatcher.refusal = refusal
    async with client(relay) as reader:
        answer = json.loads(await reader.ask("POST", "/chat/gpt", CHAT))
    assert reader.status == status
    assert answer == {"error": {"code": refusal.code.value, "message": "why"}}
    assert reader.headers.get("retry-after") == retry_after


async def test_an_unknown_provider_is_404(relay):
    async with client(relay) as reader:
        answer = json.loads(await reader.ask("POST", "/chat/nobody", CHAT))
    assert (reader.status, answer["error"]["code"]) == (404, "unknown_provider")


# Coming back


async def finished(relay, *pieces):
    """The name of a finished stream with these tokens."""
    relay.dispatcher.on_start = lambda writer: writer.append([*map(Text, pieces), DONE])
    async with client(relay) as reader:
        await reader.ask("POST", "/chat/gpt", CHAT | {"id": "mine"})
    return relay.stream


async def test_a_stream_can_be_read_again_from_any_seq(relay):
    stream = await finished(relay, *"abcde")
    async with client(relay) as reader:
        for after, text in [(-1, "abcde"), (0, "abcde"), (2, "cde"), (5, "")]:
            events = events_of(await reader.ask("GET", f"/streams/{stream}?after={after}"))
            assert text_of(events) == text
            assert events[-1].name == "done"
            assert events[-1].data["id"] == "mine"


async def test_last_event_id_beats_after(relay):
    stream = await finished(relay, *"abc")
    async with client(relay) as reader:
        path, headers = f"/streams/{stream}?after=-1", {"Last-Event-ID": "2"}
        assert text_of(events_of(await reader.ask("GET", path, headers=headers))) == "c"
        path, headers = f"/streams/{stream}?after=2", {"Last-Event-ID": ""}
        assert text_of(events_of(await reader.ask("GET", path, headers=headers))) == "c"


async def test_who_has_all_of_a_finished_stream_gets_204(relay):
    stream = await finished(relay, *"abc")
    async with client(relay) as reader:
        await reader.ask("GET", f"/streams/{stream}", headers={"Last-Event-ID": "4"})
        assert reader.status == 204


async def test_who_has_all_of_a_running_stream_waits_for_more(relay):
    async with client(relay) as first, client(relay) as second:
        first.send("POST", "/chat/gpt", CHAT)
        await first.head()
        second.send("GET", f"/streams/{relay.stream}?after=0")
        assert await second.head() == 200
        relay.writer.append([Text("hi"), DONE])
        assert text_of(events_of(await first.body())) == text_of(events_of(await second.body()))


@pytest.mark.parametrize("after", ["x", "1.5", "--1", "", "+1", "٣", "9" * 5000, "-2"])
async def test_an_after_that_is_no_seq_is_422(relay, after):
    stream = await finished(relay, "a")
    async with client(relay) as reader:
        answer = json.loads(await reader.ask("GET", f"/streams/{stream}?after={quote(after)}"))
    assert reader.status == 422
    assert "after" in answer["error"]["message"]


async def test_an_after_that_was_never_reached_is_422(relay):
    stream = await finished(relay, "a")
    async with client(relay) as reader:
        await reader.ask("GET", f"/streams/{stream}?after=3")
        assert reader.status == 422


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_stream_is_404(relay, method):
    async with client(relay) as reader:
        answer = json.loads(await reader.ask(method, "/streams/nothing"))
    assert (reader.status, answer["error"]["code"]) == (404, "stream_expired")


@pytest.mark.parametrize("cut_after", range(1, 12))
async def test_cut_anywhere_and_resumed_the_text_is_whole(relay, cut_after):
    pieces = [f"{n}é " for n in range(10)]
    async with client(relay) as first:
        first.send("POST", "/chat/gpt", CHAT)
        await first.head()
        seen, last = "", -1
        script = iter([[Text(piece)] for piece in pieces] + [[DONE]])
        for _ in range(cut_after):
            for event in events_of(await first.chunk()):
                seen += event.data.get("text", "")
                last = int(event.id)
            relay.writer.append(next(script))
    for records in script:
        relay.writer.append(records)
    async with client(relay) as second:
        path, headers = f"/streams/{relay.stream}", {"Last-Event-ID": str(last)}
        events = events_of(await second.ask("GET", path, headers=headers))
    assert seen + text_of(events) == "".join(pieces)
    assert int(events[0].data.get("first", events[0].id)) == last + 1


async def test_delete_cancels_and_erases_once_attached_readers_have_the_end(relay):
    cancelled = []
    async with client(relay) as reader, client(relay) as other:
        reader.send("POST", "/chat/gpt", CHAT)
        await reader.head()
        writer = relay.writer
        writer.on_cancel(lambda: cancelled.append(True))
        await other.ask("DELETE", f"/streams/{writer.stream}")
        assert (other.status, cancelled) == (204, [True])
        await other.ask("GET", f"/streams/{writer.stream}")
        assert other.status == 404
        writer.append([DONE])
        assert events_of(await reader.body())[-1].name == "done"
        await other.ask("DELETE", f"/streams/{writer.stream}")
        assert other.status == 404


# Readers that go, or don't read


def reset(raw: RawClient) -> None:
    """Close with RST instead of FIN."""
    sock = raw.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.writer.transport.abort()


@pytest.mark.parametrize("leave", [RawClient.close, reset, lambda raw: raw.writer.write_eof()])
async def test_a_reader_that_goes_is_noticed_without_a_write(relay, leave):
    async with client(relay) as reader:
        reader.send("POST", "/chat/gpt", CHAT)
        await reader.head()
        await reader.chunk()
        assert relay.writer.unread_since is None
        leave(reader)
        await until(lambda: relay.writer.unread_since is not None)


async def test_a_reader_that_goes_does_not_cancel_the_answer(relay):
    cancelled = []
    async with client(relay) as reader:
        reader.send("POST", "/chat/gpt", CHAT)
        await reader.head()
        relay.writer.on_cancel(lambda: cancelled.append(True))
    await until(lambda: relay.writer.unread_since is not None)
    relay.writer.append([Text("still here"), DONE])
    async with client(relay) as reader:
        events = events_of(await reader.ask("GET", f"/streams/{relay.stream}"))
    assert (text_of(events), cancelled) == ("still here", [])


async def test_a_client_gone_while_its_chat_starts_leaves_no_reader(relay):
    gone = asyncio.Event()
    begin = relay.dispatcher.start

    async def slow_start(*args, **kwargs):
        await gone.wait()
        return await begin(*args, **kwargs)

    relay.dispatcher.start = slow_start
    async with client(relay) as reader:
        reader.send("POST", "/chat/gpt", CHAT)
        await reader.writer.drain()
        await asyncio.sleep(0)
        reset(reader)
    gone.set()
    writer = await relay.started()
    await until(lambda: writer.unread_since is not None)


SMALL_WINDOW = 16 * 1024


async def stalled(relay):
    """A client with a small receive window that has asked and will not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", relay.port))
    raw = RawClient(*await asyncio.open_connection(sock=sock, limit=SMALL_WINDOW))
    raw.send("POST", "/chat/gpt", CHAT)
    await relay.started()
    return raw


BIG = 24 * 1024 * 1024
"""More than the kernel's buffers of both ends take."""


async def test_a_reader_that_does_not_read_is_only_lag(relay):
    reader = await stalled(relay)
    text = "x" * 8000
    for _ in range(BIG // len(text)):
        relay.writer.append([Text(text)])
        await asyncio.sleep(0)
    relay.writer.append([DONE])
    (cursor,) = relay.writer.cursors
    assert cursor.after < BIG // len(text) * 0.9
    await reader.head()
    whole = 0
    async with asyncio.timeout(PATIENCE * 3):
        while piece := await reader.chunk():
            assert len(piece) <= 128 * 1024
            for event in events_of(piece):
                assert len(json.dumps(event.data)) <= 64 * 1024
                whole += len(event.data.get("text", ""))
    assert whole == BIG // len(text) * len(text)
    reader.close()


async def test_a_reader_that_accepts_nothing_for_the_write_timeout_is_cut_and_may_come_back():
    async with serving(pace=QUICK) as relay:
        reader = await stalled(relay)
        text = "x" * 8000
        for _ in range(BIG // len(text)):
            relay.writer.append([Text(text)])
        await until(lambda: relay.writer.unread_since is not None)
        reader.close()
        relay.writer.append([DONE])
        async with client(relay) as second:
            path = f"/streams/{relay.stream}?after={BIG // len(text) - 1}"
            assert len(text_of(events_of(await second.ask("GET", path)))) == len(text)


async def test_a_reader_whose_records_were_let_go_is_told():
    async with serving(limits=by_default(MemoryLimits, retained_bytes=1)) as relay:
        reader = await stalled(relay)
        slow = relay.writer
        text = "x" * 8000
        for _ in range(BIG // len(text)):
            slow.append([Text(text)])
            await asyncio.sleep(0)
        slow.append([DONE])
        other = await stalled(relay)
        await until(lambda: relay.writer is not slow and relay.writer.unread_since is None)
        relay.writer.append([DONE])  # read too, and younger
        other.close()
        await reader.head()
        async with asyncio.timeout(PATIENCE * 3):
            events = events_of(await reader.body())
        assert (events[-1].name, events[-1].id) == ("error", None)
        assert events[-1].data["code"] == "stream_expired"
        assert "seq" not in events[-1].data
        reader.close()


async def test_a_reader_that_closes_its_half_while_it_is_behind_counts_as_gone(relay):
    reader = await stalled(relay)
    text = "x" * 8000
    for _ in range(BIG // len(text)):
        relay.writer.append([Text(text)])
        await asyncio.sleep(0)
    assert relay.writer.unread_since is None
    reader.writer.write_eof()
    await until(lambda: relay.writer.unread_since is not None)
    reader.close()


@pytest.mark.parametrize("path", ["/chat/gpt", "/v1/chat/completions"])
async def test_an_answer_leaves_nothing_on_its_connection(relay, path):
    relay.dispatcher.on_start = lambda writer: writer.append([Text("hi"), DONE])
    async with client(relay) as reader:
        for streamed in (True, False):
            body = {"model": "gpt", "stream": streamed} | CHAT if "v1" in path else CHAT
            await reader.ask("POST", path, body)
            assert reader.status == 200
        gc.collect()
        assert [item for item in gc.get_objects() if isinstance(item, Outlet)] == []
