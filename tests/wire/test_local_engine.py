"""The embedded model answering for real, and what happens when it dies."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from lab.waiting import until
from relay.core.errors import Code, Fault
from relay.core.events import Event, Finish, FinishReason, Served, Text, Usage
from relay.core.provider import Call
from relay.core.request import ChatRequest, OfferedTool, Turn
from relay.engine.model import MODEL_NAME
from relay.engine.process import Engine
from relay.providers import awaited
from relay.providers.local import LocalProvider

ROOT = Path(__file__).resolve().parents[2]
STEP = 60
"""Seconds that anything may take before it counts as hanging."""
STORY = "Write a long story about the sea."


@pytest.fixture
async def engine():
    made = Engine()
    yield made
    await made.close()


@pytest.fixture
async def provider(engine):
    made = LocalProvider(engine)
    yield made
    await made.close()


def ask(text: str, max_tokens: int = 24, **fields) -> Call:
    messages = fields.pop("messages", (Turn("user", text),))
    return Call(MODEL_NAME, ChatRequest("local", messages, **fields), max_tokens)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


async def answer(provider: LocalProvider, call: Call) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(STEP):
        await awaited.begin_and_wait(provider, call, events.extend)
    return events


class Running:
    """An answer under way: its task, and an event that its first text sets."""

    def __init__(self, provider: LocalProvider, call: Call) -> None:
        self.speaking = asyncio.Event()
        self.task = asyncio.create_task(awaited.begin_and_wait(provider, call, self._sink))

    def _sink(self, events) -> None:
        if text_of(events):
            self.speaking.set()


async def speaking(provider: LocalProvider) -> Running:
    running = Running(provider, ask(STORY, max_tokens=1500))
    async with asyncio.timeout(STEP):
        await running.speaking.wait()
    return running


def is_gone(pid: int) -> bool:
    """Whether no such process runs; one that nobody has waited for yet counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_it_answers_and_counts(provider):
    events = await answer(provider, ask("What is the capital of France?"))
    assert "Paris" in text_of(events)
    usage = [event for event in events if isinstance(event, Usage)][-1]
    assert not usage.estimated
    assert 0 < usage.output_tokens <= 24
    assert usage.input_tokens > 5
    assert Served(MODEL_NAME) in events


async def test_a_cap_on_tokens_ends_the_answer_as_too_long(provider):
    events = await answer(provider, ask(STORY, max_tokens=5))
    assert Finish(FinishReason.LENGTH) in events


async def test_it_goes_on_from_an_unfinished_assistant_turn(provider):
    turns = (Turn("user", "Count from one to nine."), Turn("assistant", "one, two, three,"))
    events = await answer(provider, ask("", messages=turns))
    assert text_of(events).strip().startswith("four")


async def test_it_answers_beside_offered_tools_and_past_calls(provider):
    turns = (
        Turn("user", "What is the weather?"),
        Turn("tool", "sunny", call_id="1"),
        Turn("user", "Say hello."),
    )
    assert text_of(await answer(provider, ask("", messages=turns, tools=(OfferedTool("weather"),))))


async def test_several_answers_run_at_once(provider):
    answers = await asyncio.gather(*(answer(provider, ask("Say hello.")) for _ in range(6)))
    assert all(text_of(events) for events in answers)


async def test_a_question_beyond_its_context_is_context_length(provider):
    with pytest.raises(Fault) as refusal:
        await answer(provider, ask("sky " * 3000))
    assert (refusal.value.code, refusal.value.remedy) == (Code.CONTEXT_LENGTH, "fallback")


async def test_a_long_history_is_cut_to_what_it_can_read(provider):
    past = [Turn(role, "sky " * 300) for _ in range(20) for role in ("user", "assistant")]
    turns = (*past, Turn("user", "Say hello."))
    assert text_of(await answer(provider, ask("", 4, messages=turns)))


async def test_a_cancelled_answer_leaves_the_engine_free_for_the_next(provider, engine):
    running = await speaking(provider)
    pid = engine.pid
    running.task.cancel()
    await asyncio.wait([running.task], timeout=STEP)
    assert running.task.cancelled()
    assert text_of(await answer(provider, ask("Say hello.")))
    assert engine.pid == pid


async def test_a_killed_engine_interrupts_the_answer_and_the_next_call_starts_it_again(
    provider, engine
):
    running = await speaking(provider)
    killed = engine.pid
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(Fault) as interruption:
        async with asyncio.timeout(STEP):
            await running.task
    assert (interruption.value.code, interruption.value.remedy) == (
        Code.PROVIDER_INTERRUPTED,
        "retry",
    )
    assert text_of(await answer(provider, ask("Say hello.")))
    assert engine.pid not in (None, killed)


async def test_close_in_mid_answer_ends_the_child_without_an_abort(engine):
    provider = LocalProvider(engine)
    running = await speaking(provider)
    child = engine._process
    await provider.close()
    assert child.returncode == 0
    with pytest.raises(Fault):
        async with asyncio.timeout(STEP):
            await running.task


async def test_start_loads_it_before_the_first_call(provider, engine):
    provider.start()
    await until(lambda: engine.pid, within=STEP)
    await provider.probe()


async def test_a_probe_needs_no_completion(provider):
    async with asyncio.timeout(STEP):
        await provider.probe()


async def test_only_a_caller_with_the_key_is_served(engine):
    endpoint = await engine.ready()
    transport = httpx2.AsyncHTTPTransport(uds=endpoint.socket)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        body = {"messages": [{"role": "user", "content": "hello"}]}
        refused = await client.post("/v1/chat/completions", json=body)
        page = await client.get("/")
    assert refused.status_code == 401
    assert page.status_code != 200


async def test_two_providers_share_one_engine(engine):
    providers = [LocalProvider(engine), LocalProvider(engine)]
    pids = set()
    for provider in providers:
        assert text_of(await answer(provider, ask("Say hello.", 4)))
        pids.add(engine.pid)
    assert len(pids) == 1
    for provider in providers:
        await provider.close()
    assert engine.pid is None


PARENT = """
import asyncio
from relay.engine.process import Engine

async def main():
    engine = Engine()
    endpoint = await engine.ready()
    print(engine.pid, endpoint.socket, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_engine_does_not_outlive_its_parent(signal_number):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        line = await asyncio.to_thread(parent.stdout.readline)
        child, path = line.decode().split()
        parent.send_signal(signal_number)
        parent.wait(STEP)
    with contextlib.suppress(ProcessLookupError):
        await until(lambda: is_gone(int(child)), within=STEP)
    assert not Path(path).exists()


async def test_ctrl_c_in_the_terminal_is_left_to_the_parent(provider, engine):
    await provider.probe()
    os.kill(engine.pid, signal.SIGINT)
    assert text_of(await answer(provider, ask("Say hello.", 4)))
    assert os.getpgid(engine.pid) != os.getpgid(0)


async def test_a_stale_socket_does_not_hinder_the_start(engine):
    endpoint = await engine.ready()
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: engine.pid is None, within=STEP)
    assert Path(endpoint.socket).exists()
    assert await engine.ready() == endpoint
