"""The Python client and its command line, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lab.waiting import until
from relay.client import (
    AnswerFailed,
    ConnectionFailed,
    Done,
    Fallback,
    RelayClient,
    Start,
    Status,
    Text,
)
from tests.wire.stub_relay import StubRelay, answer, drop

WORDS = [f"word{n} " for n in range(40)]
TEXT = "".join(WORDS)


async def test_a_chat_yields_start_text_and_done_in_order() -> None:
    async with (
        StubRelay(lambda _: answer("a", "b")).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        events = [event async for event in relay.chat("hi", provider="claude")]
    assert events[0] == Start("stream-1", "claude", "claude-sonnet-5-5")
    assert "".join(e.text for e in events if isinstance(e, Text)) == "ab"
    assert isinstance(events[-1], Done)
    assert events[-1].model == "claude-sonnet-5-5-20261001"
    (sent,) = stub.frames("chat")
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    assert set(sent) == {"type", "id", "messages", "provider"}


async def test_entering_knows_the_providers() -> None:
    async with StubRelay(lambda _: []).serve() as stub, RelayClient(stub.url) as relay:
        assert [offer["name"] for offer in relay.providers] == ["claude", "local"]


@pytest.mark.parametrize("every", [1, 2, 3, 7, 20])
async def test_the_text_is_whole_whenever_the_connection_is_cut(every: int) -> None:
    words = WORDS[: 6 * every]
    async with (
        StubRelay(lambda _: answer(*words), cut_every=every).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        assert await relay.chat("hi").text() == "".join(words)
    assert stub.starts == 1
    assert len(stub.connections) > 2


async def test_a_frame_that_is_missing_is_asked_for_and_one_sent_twice_is_dropped() -> None:
    def lose_and_repeat(frames: list[dict]) -> list[dict]:
        if not frames or frames[0]["seq"] != 0:
            return frames
        return [*frames[:5], *frames[3:5], *frames[7:]]

    async with (
        StubRelay(lambda _: answer(*WORDS), mutate=lose_and_repeat).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        assert await relay.chat("hi").text() == TEXT
    assert {frame["after"] for frame in stub.frames("resume")} == {4}
    assert len(stub.frames("resume")) <= 2


async def test_merged_frames_are_applied_as_one() -> None:
    def merge(frames: list[dict]) -> list[dict]:
        tokens = [f for f in frames if f["type"] == "token"]
        whole = {**tokens[-1], "first": 1, "text": "".join(f["text"] for f in tokens)}
        return [frames[0], whole, frames[-1]]

    async with (
        StubRelay(lambda _: answer(*WORDS), mutate=merge).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        assert await relay.chat("hi").text() == TEXT


async def test_a_chat_sent_while_the_connection_is_down_is_answered_once() -> None:
    async with (
        StubRelay(lambda _: answer(*WORDS)).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        drop(stub.connections[0])
        assert await relay.chat("hi").text() == TEXT
    assert stub.starts == 1


async def test_cancel_stops_at_the_relay_and_ends_with_cancelled() -> None:
    async with (
        StubRelay(lambda _: answer("a", finish=False)).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        chat = relay.chat("hi")
        async for event in chat:
            if isinstance(event, Text):
                chat.cancel()
        assert (await chat.done()).finish_reason == "cancelled"
    assert [frame["id"] for frame in stub.frames("cancel")] == [chat.id]


async def test_a_cancel_lost_with_the_connection_is_sent_again() -> None:
    async with (
        StubRelay(lambda _: answer("a", finish=False)).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        chat = relay.chat("hi")
        async for event in chat:
            if isinstance(event, Text):
                drop(stub.connections[0])
                await asyncio.sleep(0)
                chat.cancel()
        assert chat.answer.done is not None
        assert chat.answer.done.finish_reason == "cancelled"


async def test_a_discarded_beginning_is_not_in_the_text() -> None:
    back = {
        "type": "fallback",
        "from": {"provider": "claude", "model": "a"},
        "to": {"provider": "gpt", "model": "b"},
        "reason": "provider_interrupted",
        "keep": False,
    }
    records = [*answer("wrong", finish=False), back, *answer("right")[1:]]
    async with StubRelay(lambda _: records).serve() as stub, RelayClient(stub.url) as relay:
        chat = relay.chat("hi")
        events = [event async for event in chat]
        assert chat.answer.text == "right"
    assert any(isinstance(event, Fallback) and not event.keep for event in events)


async def test_a_failed_answer_raises_what_the_relay_said() -> None:
    failed = {"type": "error", "code": "providers_exhausted", "message": "no", "retryable": True}
    records = [*answer("a", finish=False), failed]
    async with StubRelay(lambda _: records).serve() as stub, RelayClient(stub.url) as relay:
        with pytest.raises(AnswerFailed) as caught:
            await relay.chat("hi").text()
    assert (caught.value.code, caught.value.retryable) == ("providers_exhausted", True)


async def test_an_answer_that_the_relay_lost_fails_instead_of_hanging() -> None:
    async with (
        StubRelay(lambda _: answer("a", finish=False)).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        chat = relay.chat("hi")
        await until(lambda: chat.answer.text)
        stub.sessions.clear()
        drop(stub.connections[0])
        with pytest.raises(AnswerFailed) as caught:
            await chat.done()
    assert caught.value.code == "stream_expired"


async def test_after_drain_new_chats_take_another_connection_and_the_old_one_ends() -> None:
    async with (
        StubRelay(lambda _: answer("a", finish=False)).serve() as stub,
        RelayClient(stub.url) as relay,
    ):
        old = relay.chat("one")
        await stub.until(lambda: stub.starts == 1)
        await stub.connections[0].send_json({"type": "drain", "reconnect_after": 1})
        await stub.until(lambda: len(stub.frames("hello")) == 2)
        new = relay.chat("two")
        await stub.until(lambda: stub.starts == 2)
        assert not stub.connections[0].closed
        old.cancel()
        await old.done()
        await stub.until(lambda: stub.connections[0].closed)
        new.cancel()
        await new.done()
    assert "resume" not in stub.frames("hello")[1]
    assert len(stub.connections) == 2


async def test_a_close_that_says_stay_away_is_obeyed() -> None:
    async with StubRelay(lambda _: [], hello_closes_with=4401).serve() as stub:
        with pytest.raises(ConnectionFailed) as caught:
            async with RelayClient(stub.url):
                pass
    assert caught.value.code == "unauthorized"
    assert len(stub.connections) == 1


async def test_no_server_is_said_at_once() -> None:
    async with StubRelay(lambda _: []).serve() as stub:
        url = stub.url
    with pytest.raises(ConnectionFailed, match="refused"):
        async with RelayClient(url):
            pass


async def test_a_relay_gone_for_good_fails_the_chats_after_the_time_to_give_up() -> None:
    async with StubRelay(lambda _: answer("a", finish=False)).serve() as stub:
        client = RelayClient(stub.url, give_up_after=0)
        relay = await client.__aenter__()
        chat = relay.chat("hi")
        await stub.until(lambda: stub.starts == 1)
    with pytest.raises(ConnectionFailed):
        await chat.text()
    await client.__aexit__(None, None, None)


async def test_a_connection_that_fell_silent_is_replaced() -> None:
    stub = StubRelay(lambda _: answer("a", finish=False), heartbeat=0.05)
    statuses: list[Status] = []
    async with stub.serve(), RelayClient(stub.url, on_status=statuses.append) as relay:
        chat = relay.chat("hi")
        await stub.until(lambda: stub.starts == 1)
        stub.silent = True
        await stub.until(lambda: len(stub.connections) > 1)
        stub.silent = False
        stub.stream().append(*answer("b")[1:])
        assert await chat.text() == "ab"
    assert "waiting" in {status.state for status in statuses}


async def test_a_slow_reader_gets_merged_text() -> None:
    async with StubRelay(lambda _: answer(*WORDS)).serve() as stub, RelayClient(stub.url) as relay:
        chat = relay.chat("hi")
        await chat.done()
        texts = [event.text async for event in chat if isinstance(event, Text)]
    assert texts == [TEXT]


@asynccontextmanager
async def command(*arguments: str, stdin: bytes | None = None) -> AsyncIterator[Process]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment.pop("RELAY_TOKEN", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "relay.client", *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment,
    )
    try:
        if stdin is not None:
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_command_prints_the_text_and_notes_the_model() -> None:
    async with (
        StubRelay(lambda _: answer("Hello", " there")).serve() as stub,
        command("hi", "--url", stub.url, "--provider", "claude") as process,
    ):
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"Hello there\n")
    assert b"claude claude-sonnet-5-5-20261001" in err


async def test_the_command_reads_stdin() -> None:
    async with (
        StubRelay(lambda _: answer("ok")).serve() as stub,
        command("--url", stub.url, stdin="für ein 👍".encode()) as process,
    ):
        await process.wait()
    assert stub.frames("chat")[0]["messages"][0]["content"] == "für ein 👍"


async def test_the_command_never_lets_a_model_command_the_terminal() -> None:
    evil = "a\x1b]0;owned\x07b\x1b[2J\x9b31m\rc\x00d\n"
    async with (
        StubRelay(lambda _: answer(evil)).serve() as stub,
        command("hi", "--url", stub.url) as process,
    ):
        out, err = await process.communicate()
    assert out == b"a]0;ownedb[2J31mcd\n"
    assert not set(err) & set(b"\x1b\x07\x00")


async def test_the_command_goes_on_after_a_drop_and_says_so() -> None:
    async with (
        StubRelay(lambda _: answer(*WORDS), cut_every=10).serve() as stub,
        command("hi", "--url", stub.url, "--whole") as process,
    ):
        out, err = await process.communicate()
    assert out.decode() == TEXT + "\n"
    assert b"connection lost, trying again" in err


async def test_ctrl_c_cancels_at_the_relay_and_exits_130() -> None:
    async with (
        StubRelay(lambda _: answer("begun", finish=False)).serve() as stub,
        command("hi", "--url", stub.url) as process,
    ):
        assert process.stdout is not None
        assert await process.stdout.read(5) == b"begun"
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 130
    assert len(stub.frames("cancel")) == 1
    assert b"cancelled" in err
    assert b"Traceback" not in err


async def test_the_command_says_how_to_start_a_relay_that_is_not_there() -> None:
    async with StubRelay(lambda _: []).serve() as stub:
        url = stub.url
    async with command("hi", "--url", url) as process:
        out, err = await process.communicate()
    assert (process.returncode, out) == (3, b"")
    assert b"make run" in err
    assert err.count(b"\n") == 1


async def test_the_command_explains_a_failed_answer() -> None:
    failed = {"type": "error", "code": "provider_auth", "message": "no key", "retryable": False}
    records = [*answer(finish=False), failed]
    async with (
        StubRelay(lambda _: records).serve() as stub,
        command("hi", "--url", stub.url) as process,
    ):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert err.startswith(b"error: provider_auth: no key - check the provider's API key")


async def test_json_is_one_event_a_line() -> None:
    async with (
        StubRelay(lambda _: answer("a\x1b", "b")).serve() as stub,
        command("hi", "--url", stub.url, "--json") as process,
    ):
        out, _ = await process.communicate()
    events = [json.loads(line) for line in out.splitlines()]
    assert [events[0]["type"], events[-1]["type"]] == ["start", "done"]
    assert "".join(e["text"] for e in events if e["type"] == "token") == "a\x1bb"
    assert b"\x1b" not in out


async def test_the_command_sends_the_token_and_never_shows_it() -> None:
    async with (
        StubRelay(lambda _: answer("a")).serve() as stub,
        command("hi", "--url", stub.url, "--token", "s3cret") as process,
    ):
        _, err = await process.communicate()
    assert stub.frames("hello")[0]["token"] == "s3cret"
    assert b"s3cret" not in err


async def test_an_output_that_nobody_reads_cancels_the_answer() -> None:
    async with (
        StubRelay(lambda _: answer("begun", finish=False)).serve() as stub,
        command("hi", "--url", stub.url) as process,
    ):
        assert process.stdout is not None
        assert await process.stdout.read(5) == b"begun"
        process.stdout._transport.close()  # type: ignore[attr-defined]
        stub.stream().append({"type": "token", "text": " more"})
        await process.wait()
    assert process.returncode == 141
    assert len(stub.frames("cancel")) == 1
