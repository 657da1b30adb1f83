"""Starting streams and driving them: the real policy and log, and providers made of code."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, ContextVar
from functools import partial
from typing import Any

import msgspec
import pytest

from lab.waiting import until
from relay.answering.dispatcher import AnswerSettings, Dispatcher, Lineup
from relay.answering.driver import Driver
from relay.core.account import Account, AttemptNote
from relay.core.errors import Code, Fault, Fenced, RelayError
from relay.core.events import (
    Done,
    EndedAttempt,
    Event,
    Failed,
    Fallback,
    Finish,
    FinishReason,
    Record,
    Served,
    Start,
    Target,
    Text,
    Usage,
)
from relay.core.provider import Call, Caller, Form, Take, UpstreamCall
from relay.core.records import Shown, decode
from relay.core.request import ChatRequest, Turn
from relay.core.streamlog import Orphan, Spec
from relay.providers.awaited import AwaitedCalls
from relay.stores.memory import MemoryLimits, MemoryLog
from tests.by_default import by_default, open_route, usual_breakers, usual_hedges

PATIENCE = 10.0
Script = Callable[[Call, Take], Awaitable[None]]


class ScriptedProvider:
    """Runs one script a call, in turn, the last one again and again."""

    def __init__(self, name: str, *scripts: Script) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.closed = 0
        self._scripts = list(scripts)
        self._awaited = AwaitedCalls()

    def forms(self, model: str) -> tuple[Form, ...]:
        return (Form.TURN, Form.RESTART)

    def begin(self, call: Call, caller: Caller) -> UpstreamCall:
        return self._awaited.begin(partial(self._follow, call), caller)

    async def _follow(self, call: Call, take: Take) -> None:
        self.calls.append(call)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            await script(call, take)
        finally:
            self.closed += 1

    async def warm(self, model: str) -> None:
        """Always ready."""

    async def probe(self) -> None:
        """Always well."""

    async def close(self) -> None:
        await self._awaited.close()


class Told:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str]] = []
        self.taken_over: list[str] = []
        self.attempts: list[EndedAttempt] = []
        self.ended_with: list[Record | None] = []
        self.left: list[str] = []
        self.answered: list[Target] = []
        self.defects: list[BaseException] = []

    def started(self, stream: str, route: str, request: ChatRequest, *, taken_over: bool) -> None:
        self.begun.append((stream, route))
        if taken_over:
            self.taken_over.append(stream)

    def answering(self, stream: str, target: Target, seconds: float) -> None:
        self.answered.append(target)

    def attempt_ended(self, stream: str, attempt: EndedAttempt) -> None:
        self.attempts.append(attempt)

    def ended(
        self, stream: str, route: str, record: Done | Failed | None, final: Callable[[], Shown]
    ) -> None:
        self.ended_with.append(record)
        if record is not None:
            self.left.append(final().text)

    def unexpected(self, stream: str, error: BaseException) -> None:
        self.defects.append(error)


class House:
    """A dispatcher over a memory log, with one route of the given providers."""

    def __init__(self, *providers: ScriptedProvider, **policy: float) -> None:
        self.told = Told()
        self.now = time.monotonic
        targets = tuple(Target(provider.name, f"{provider.name}-model") for provider in providers)
        route = open_route(providers[0].name, *targets)
        self.log = MemoryLog(by_default(MemoryLimits, max_streams_per_session=2), self.clock)
        self.late = 0.0
        self.dispatcher = Dispatcher(
            Lineup(
                {provider.name: provider for provider in providers},
                {route.name: route},
                {"claude": "no ANTHROPIC_API_KEY"},
            ),
            self.log,
            settings=by_default(AnswerSettings, **policy),
            breakers=usual_breakers(),
            hedges=usual_hedges(),
            observer=self.told,
            clock=self.clock,
        )

    def clock(self) -> float:
        return time.monotonic() + getattr(self, "late", 0.0)

    async def start(self, id: str = "a", text: str = "hi", provider: str = "") -> str:
        request = ChatRequest(provider, (Turn("user", text),))
        return await self.dispatcher.start(request, session="s" * 22, id=id, subject=None)

    async def records(self, stream: str) -> list[Record]:
        """All of a stream, once it ended."""
        more = asyncio.Event()
        cursor = await self.log.attach(stream, -1, more.set, None)
        found: list[Record] = []
        async with asyncio.timeout(PATIENCE):
            while not found or not isinstance(found[-1], Done | Failed):
                while chunk := cursor.take(60_000):
                    found.append(decode(chunk.kind, chunk.body))
                if not isinstance(found[-1], Done | Failed):
                    await more.wait()
                    more.clear()
        cursor.close()
        return found


def says(*texts: str, usage: Usage | None = None) -> Script:
    async def script(call: Call, take: Take) -> None:
        events: list[Event] = [Served("served-model"), *[Text(text) for text in texts]]
        take(events)
        take([Finish(FinishReason.STOP), *([usage] if usage else [])])

    return script


def breaks(fault: Fault, *texts: str) -> Script:
    async def script(call: Call, take: Take) -> None:
        if texts:
            take([Text(text) for text in texts])
        raise fault

    return script


async def waits(call: Call, take: Take) -> None:
    await asyncio.Event().wait()


def text_of(records: Sequence[Record]) -> str:
    text = ""
    for record in records:
        if isinstance(record, Fallback) and not record.keep:
            text = ""
        elif isinstance(record, Text):
            text += record.text
    return text


async def test_an_answer_goes_from_the_provider_into_the_log() -> None:
    gpt = ScriptedProvider("gpt", says("Hel", "lo", usage=Usage(3, 2, estimated=False)))
    house = House(gpt)
    stream = await house.start()
    records = await house.records(stream)
    assert records[0] == Start(stream, "gpt", "gpt-model")
    assert text_of(records) == "Hello"
    done = records[-1]
    assert isinstance(done, Done)
    assert (done.model, done.finish_reason) == ("served-model", FinishReason.STOP)
    assert (done.usage.input_tokens, done.usage.output_tokens) == (3, 2)
    assert [attempt.outcome for attempt in house.told.attempts] == ["ok"]
    assert house.told.answered == [Target("gpt", "gpt-model")]
    assert house.told.ended_with == [done]
    assert house.dispatcher.running == 0


async def test_what_ran_an_answer_is_gone_without_the_collector_once_it_ended() -> None:
    house = House(ScriptedProvider("gpt", says("Hel", "lo")))
    gc.collect()
    gc.freeze()  # what is there already is not looked through again and again
    gc.disable()
    try:
        await house.records(await house.start())
        await until(lambda: not any(isinstance(each, Driver) for each in gc.get_objects()))
    finally:
        gc.enable()
        gc.unfreeze()


async def test_the_start_record_is_there_before_any_upstream_speaks() -> None:
    house = House(ScriptedProvider("gpt", waits))
    stream = await house.start()
    cursor = await house.log.attach(stream, -1, lambda: None, None)
    chunk = cursor.take(60_000)
    assert chunk is not None
    assert chunk.kind == "start"
    await house.dispatcher.drain(0)


async def test_a_broken_answer_is_taken_up_by_the_next_target() -> None:
    fault = Fault(Code.PROVIDER_INTERRUPTED, "cut")
    gpt = ScriptedProvider("gpt", breaks(fault, "one ", "two "))
    claude = ScriptedProvider("claude", says("three four five six seven"))
    house = House(gpt, claude)
    records = await house.records(await house.start())
    assert text_of(records) == "one two three four five six seven"
    turns = claude.calls[0].request.messages
    assert [turn.role for turn in turns] == ["user", "assistant", "user"]
    assert str(turns[1].content).strip() == "one two"
    assert [attempt.outcome for attempt in house.told.attempts] == ["provider_interrupted", "ok"]


async def test_cancel_closes_the_upstream_and_ends_the_answer() -> None:
    gpt = ScriptedProvider("gpt", waits)
    house = House(gpt)
    stream = await house.start()
    await until(lambda: bool(gpt.calls))
    await house.log.cancel(stream, None)
    done = (await house.records(stream))[-1]
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.CANCELLED
    await until(lambda: gpt.closed == 1)


async def test_the_same_id_starts_one_answer() -> None:
    gpt = ScriptedProvider("gpt", says("x"))
    house = House(gpt)
    first = await house.start()
    await house.records(first)
    assert await house.start() == first
    assert len(gpt.calls) == 1


async def test_the_same_id_with_other_content_is_refused() -> None:
    house = House(ScriptedProvider("gpt", says("x")))
    await house.start(text="one")
    with pytest.raises(RelayError) as caught:
        await house.start(text="two")
    assert caught.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    ("name", "said"), [("claude", "no ANTHROPIC_API_KEY"), ("nobody", "known are gpt")]
)
async def test_a_provider_that_is_not_on_is_refused_with_the_reason(name: str, said: str) -> None:
    house = House(ScriptedProvider("gpt", says("x")))
    with pytest.raises(RelayError) as caught:
        await house.start(provider=name)
    assert caught.value.code is Code.UNKNOWN_PROVIDER
    assert said in caught.value.message


async def test_an_answer_that_nobody_reads_is_abandoned_after_its_grace() -> None:
    gpt = ScriptedProvider("gpt", waits)
    house = House(gpt, resume_grace=300)
    stream = await house.start()
    await until(lambda: bool(gpt.calls))
    house.late = 299
    house.dispatcher.sweep()
    assert house.dispatcher.running == 1
    house.late = 301
    house.dispatcher.sweep()
    failed = (await house.records(stream))[-1]
    assert isinstance(failed, Failed)
    assert failed.code is Code.ABANDONED
    await until(lambda: gpt.closed == 1)


async def test_an_answer_that_is_read_is_never_abandoned() -> None:
    house = House(ScriptedProvider("gpt", waits))
    stream = await house.start()
    await house.log.attach(stream, -1, lambda: None, None)
    house.late = 10_000
    house.dispatcher.sweep()
    assert house.dispatcher.running == 1
    await house.dispatcher.drain(0)


async def test_draining_refuses_chats_and_lets_running_ones_end() -> None:
    go_on = asyncio.Event()

    async def slow(call: Call, take: Take) -> None:
        await go_on.wait()
        await says("late")(call, take)

    house = House(ScriptedProvider("gpt", slow))
    stream = await house.start()
    draining = asyncio.ensure_future(house.dispatcher.drain(PATIENCE))
    await until(lambda: house.dispatcher.draining)
    assert await house.start() == stream, "the same chat again only attaches"
    with pytest.raises(RelayError) as caught:
        await house.start(id="b")
    assert (caught.value.code, caught.value.retryable) == (Code.DRAINING, True)
    go_on.set()
    await draining
    assert text_of(await house.records(stream)) == "late"


async def test_what_does_not_end_within_the_drain_is_stopped_with_an_error() -> None:
    gpt = ScriptedProvider("gpt", waits)
    house = House(gpt)
    stream = await house.start()
    await until(lambda: bool(gpt.calls))
    await house.dispatcher.drain(0)
    failed = (await house.records(stream))[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == (Code.DRAINING, True)
    assert [attempt.outcome for attempt in failed.attempts or ()] == ["draining"]
    await gpt.close()
    assert gpt.closed == 1, "a provider that is closed has closed every upstream"


async def test_a_providers_defect_is_a_fault_of_its_target_and_told() -> None:
    async def defect(call: Call, take: Take) -> None:
        raise ZeroDivisionError("secret detail")

    house = House(ScriptedProvider("gpt", defect), ScriptedProvider("claude", says("fine")))
    records = await house.records(await house.start())
    assert text_of(records) == "fine"
    assert isinstance(house.told.defects[0], ZeroDivisionError)
    assert not any("secret detail" in repr(record) for record in records)


async def test_a_defect_in_making_a_call_ends_the_stream_with_internal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House(ScriptedProvider("gpt", says("x")))

    def defect(*args: object) -> Call:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("relay.answering.dispatcher.call_of", defect)
    start, failed = await house.records(await house.start())
    assert isinstance(start, Start)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.message.count("secret")) == (Code.INTERNAL, 0)
    assert isinstance(house.told.defects[0], ZeroDivisionError)
    assert house.dispatcher.running == 0


@pytest.mark.interpreted
async def test_a_defect_of_the_policy_ends_the_stream_with_internal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpt = ScriptedProvider("gpt", says("x"))
    house = House(gpt)

    def defect(self: object, attempt: int, events: object, now: float) -> None:
        raise KeyError("secret detail")

    monkeypatch.setattr("relay.failover.policy.Failover.batch", defect)
    failed = (await house.records(await house.start()))[-1]
    assert isinstance(failed, Failed)
    assert failed.code is Code.INTERNAL
    assert "secret detail" not in failed.message
    assert house.dispatcher.running == 0


@pytest.mark.interpreted
async def test_a_defect_in_entering_what_a_dead_owner_left_ends_the_stream_with_internal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpt = ScriptedProvider("gpt", says("x"))
    house = House(gpt)
    writer, request = await owned(house, "one two ")

    def defect(self: object, left: object) -> None:
        raise KeyError("secret detail")

    monkeypatch.setattr("relay.failover.policy.Failover.inherit", defect)
    house.dispatcher.adopt(orphan_of(house, writer, request))
    failed = (await house.records("o1"))[-1]
    assert isinstance(failed, Failed)
    assert failed.code is Code.INTERNAL
    assert house.dispatcher.running == 0
    assert not gpt.calls


async def test_the_vendor_is_asked_before_start_returns() -> None:
    gpt = ScriptedProvider("gpt", says("x"))
    house = House(gpt)
    stream = await house.start()
    assert len(gpt.calls) == 1
    assert house.told.begun == [(stream, "gpt")]


async def test_a_start_whose_caller_goes_away_runs_on_and_is_observed() -> None:
    house = House(ScriptedProvider("gpt", says("x")))
    starting = asyncio.create_task(house.start())
    await until(lambda: house.dispatcher.running == 1)
    starting.cancel()
    await until(lambda: house.dispatcher.running == 0)
    assert len(house.told.begun) == len(house.told.ended_with) == 1
    assert starting.cancelled()


class CallingBack(ScriptedProvider):
    """Makes each call without a task: `heard` is given the caller in the next turn of the loop,
    in a context that is nobody's, as a connection is that is used again."""

    def __init__(self, name: str, heard: Callable[[Caller], None]) -> None:
        super().__init__(name)
        self.heard = heard

    def begin(self, call: Call, caller: Caller) -> UpstreamCall:
        asyncio.get_running_loop().call_soon(self.heard, caller, context=Context())
        return Closing(self)


class Closing:
    """The call of a provider that counts its closed ones."""

    def __init__(self, provider: ScriptedProvider) -> None:
        self._provider = provider

    def close(self) -> None:
        self._provider.closed += 1


async def test_a_call_that_can_be_begun_at_once_needs_no_task() -> None:
    def answers(caller: Caller) -> None:
        caller.take([Text("he")])
        caller.take([Text("llo"), Finish(FinishReason.STOP)])
        caller.ended(None)

    house = House(CallingBack("gpt", answers))
    before = asyncio.all_tasks()
    records = await house.records(await house.start())
    assert asyncio.all_tasks() == before
    assert text_of(records) == "hello"
    assert isinstance(records[-1], Done)


async def test_a_call_that_was_begun_and_fails_goes_to_the_next_target() -> None:
    def breaks_off(caller: Caller) -> None:
        caller.take([Text("he")])
        caller.ended(Fault(Code.PROVIDER_INTERRUPTED, "cut", remedy="fallback"))

    claude = ScriptedProvider("claude", says("hello"))
    house = House(CallingBack("gpt", breaks_off), claude)
    records = await house.records(await house.start())
    assert text_of(records) == "hello"
    assert isinstance(records[-1], Done)


whose: ContextVar[str] = ContextVar("whose", default="nobody's")


async def test_a_call_that_follows_a_break_runs_in_the_context_of_its_stream() -> None:
    seen: list[str] = []

    async def records(call: Call, take: Take) -> None:
        seen.append(whose.get())
        await says("hello")(call, take)

    def breaks_off(caller: Caller) -> None:
        caller.ended(Fault(Code.PROVIDER_ERROR, "no", remedy="fallback"))

    house = House(CallingBack("gpt", breaks_off), ScriptedProvider("claude", records))
    token = whose.set("mine")
    stream = await house.start()
    whose.reset(token)
    assert text_of(await house.records(stream)) == "hello"
    assert seen == ["mine"]


async def test_calls_that_follow_a_wait_run_in_the_contexts_of_their_streams() -> None:
    seen: dict[str, list[str]] = {}

    async def records(call: Call, take: Take) -> None:
        asked = str(call.request.messages[0].content)
        before = seen.setdefault(asked, [])
        before.append(whose.get())
        if len(before) == 1:
            raise Fault(Code.PROVIDER_OVERLOADED, "busy", remedy="retry")
        await says("hello")(call, take)

    house = House(ScriptedProvider("gpt", records))

    async def asks(name: str) -> str:
        whose.set(name)
        return await house.start(id=name, text=name)

    streams = await asyncio.gather(asks("a"), asks("b"))
    for stream in streams:
        assert text_of(await house.records(stream)) == "hello"
    assert seen == {"a": ["a", "a"], "b": ["b", "b"]}


async def test_a_provider_that_raises_in_beginning_a_call_ends_the_stream_with_internal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpt = ScriptedProvider("gpt", says("hello"))
    monkeypatch.setattr(gpt, "begin", lambda call, caller: 1 / 0)
    house = House(gpt)
    failed = (await house.records(await house.start()))[-1]
    assert isinstance(failed, Failed)
    assert failed.code is Code.INTERNAL
    assert isinstance(house.told.defects[0], ZeroDivisionError)
    assert house.dispatcher.running == 0


async def test_cancel_closes_a_call_that_was_begun_and_hears_no_more_of_it() -> None:
    callers: list[Caller] = []
    gpt = CallingBack("gpt", callers.append)
    house = House(gpt)
    stream = await house.start()
    await until(lambda: bool(callers))
    await house.log.cancel(stream, None)
    assert gpt.closed == 1
    callers[0].take([Text("late")])
    callers[0].ended(Fault(Code.PROVIDER_ERROR, "late"))
    assert [type(record) for record in await house.records(stream)] == [Start, Done]


async def test_what_a_task_raises_against_its_end_is_told_as_a_defect() -> None:
    async def stubborn(call: Call, take: Take) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("secret detail")

    house = House(ScriptedProvider("gpt", stubborn))
    stream = await house.start()
    await house.log.cancel(stream, None)
    await until(lambda: bool(house.told.defects))
    assert isinstance(house.told.defects[0], KeyError)
    assert house.dispatcher.running == 0


async def test_a_writer_that_lost_its_stream_closes_the_upstream_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = asyncio.Event()

    async def script(call: Call, take: Take) -> None:
        await lost.wait()
        await says("x")(call, take)

    house = House(ScriptedProvider("gpt", script))
    stream = await house.start()

    def fenced(self: object, records: object) -> None:
        raise Fenced

    monkeypatch.setattr("relay.stores.memory.stream.MemoryStream.append", fenced)
    lost.set()
    await until(lambda: house.dispatcher.running == 0)
    assert house.told.ended_with == [None]
    assert [attempt.outcome for attempt in house.told.attempts] == ["cancelled"]
    assert (await house.log.info(stream, None)).seq == 0


ASKED = ChatRequest("gpt", (Turn("user", "hi"),))


def orphan_of(house: House, writer: object, request: ChatRequest | None, **fields: Any) -> Orphan:
    spec = Spec("o1", "s" * 22, "a", None, request, 300) if request else None
    known = {"account": Account(calls=()), "accepted": house.clock(), "last_sign_ms": 0}
    said = {**known, "late": False, "cancelled": False, **fields}
    chunks = house.log._streams["o1"].records.chunks()
    return Orphan(writer, spec, chunks, **said)  # type: ignore[arg-type]


async def owned(house: House, *texts: str) -> tuple[object, ChatRequest]:
    request = ChatRequest("gpt", (Turn("user", "hi"),))
    claim = await house.log.create(Spec("o1", "s" * 22, "a", None, request, 300))
    writer = claim.writer  # type: ignore[union-attr]
    writer.append([Start("o1", "gpt", "gpt-model"), *[Text(text) for text in texts]])
    return writer, request


async def test_an_orphan_that_was_cancelled_ends_without_an_upstream_call() -> None:
    gpt = ScriptedProvider("gpt", says("x"))
    house = House(gpt)
    writer, request = await owned(house)
    house.dispatcher.adopt(orphan_of(house, writer, request, cancelled=True))
    done = (await house.records("o1"))[-1]
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.CANCELLED
    assert not gpt.calls
    assert house.told.taken_over == ["o1"]


async def test_a_cancelled_orphan_without_a_record_ends_without_an_upstream_call() -> None:
    gpt = ScriptedProvider("gpt", says("x"))
    house = House(gpt)
    claim = await house.log.create(Spec("o1", "s" * 22, "a", None, ASKED, 300))
    house.dispatcher.adopt(orphan_of(house, claim.writer, ASKED, cancelled=True))  # type: ignore[union-attr]
    start, done = await house.records("o1")
    assert isinstance(start, Start)
    assert isinstance(done, Done)
    assert (done.finish_reason, done.attempts) == (FinishReason.CANCELLED, [])
    assert not gpt.calls


async def test_the_calls_of_a_dead_owner_are_told_of_once_and_in_the_end() -> None:
    house = House(ScriptedProvider("gpt", says("three four five six seven")))
    writer, request = await owned(house, "one ", "two ")
    ended = EndedAttempt("gpt", "gpt-model", "provider_overloaded", 9)
    account = Account((ended,), (AttemptNote("gpt", "gpt-model", 10, 0),), first_text_ms=30)
    left = orphan_of(house, writer, request, account=account, last_sign_ms=1010)
    house.dispatcher.adopt(msgspec.structs.replace(left, accepted=house.clock() - 5))
    done = (await house.records("o1"))[-1]
    assert isinstance(done, Done)
    assert [each.outcome for each in done.attempts] == ["provider_overloaded", "internal", "ok"]
    assert done.attempts[1].ms == 1000
    assert done.timing.first_token_ms == 30
    assert 5_000 <= done.timing.total_ms < 60_000
    assert [each.outcome for each in house.told.attempts] == ["internal", "ok"]


async def test_an_orphan_whose_request_was_not_kept_tells_of_its_call_too() -> None:
    house = House(ScriptedProvider("gpt", says("x")))
    writer, _ = await owned(house, "one two ")
    account = Account((), (AttemptNote("gpt", "gpt-model", 10, 0),))
    house.dispatcher.adopt(orphan_of(house, writer, None, account=account))
    failed = (await house.records("o1"))[-1]
    assert isinstance(failed, Failed)
    assert [each.outcome for each in failed.attempts or []] == ["internal"]
    assert house.told.attempts == failed.attempts
    assert house.told.ended_with == [failed]


async def test_an_orphan_that_nobody_came_back_for_in_time_is_abandoned() -> None:
    house = House(ScriptedProvider("gpt", says("x")))
    writer, request = await owned(house)
    house.dispatcher.adopt(orphan_of(house, writer, request, late=True))
    failed = (await house.records("o1"))[-1]
    assert isinstance(failed, Failed)
    assert failed.code is Code.ABANDONED


async def test_an_orphan_whose_request_was_not_kept_ends_with_a_retryable_error() -> None:
    house = House(ScriptedProvider("gpt", says("x")))
    writer, _ = await owned(house)
    house.dispatcher.adopt(orphan_of(house, writer, None))
    failed = (await house.records("o1"))[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == (Code.PROVIDER_INTERRUPTED, True)


async def test_an_orphan_is_continued_from_the_text_that_its_log_left() -> None:
    gpt = ScriptedProvider("gpt", says("three four five six seven"))
    house = House(gpt)
    writer, request = await owned(house, "one ", "two ")
    house.dispatcher.adopt(orphan_of(house, writer, request))
    records = await house.records("o1")
    assert text_of(records) == "one two three four five six seven"
    assert isinstance(records[-1], Done)
    assert str(gpt.calls[0].request.messages[1].content).strip() == "one two"
