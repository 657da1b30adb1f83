"""The README's first command in an empty folder, as a newcomer types it."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from lab.ports import free_port, listens
from lab.waiting import until

ROOT = Path(__file__).resolve().parents[2]
SET_UP = 300
"""Seconds in which the set-up has to end: it builds a virtual environment."""
STEP = 60
"""Seconds that anything else may take."""
FOREIGN = re.compile(
    r"^(MAKE|VIRTUAL_ENV$|PYTEST|PYTHON|.*_API_KEY$|.*_BASE_URL$|RELAY_)|_PROVIDER"
)
"""Environment that must not leak from this test run into the newcomer's shell."""
STORY = [{"role": "user", "content": "Write a long story about the sea."}]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

pytestmark = [pytest.mark.last, pytest.mark.timeout(2 * SET_UP)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer") / "chat-relay"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def child_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


class Run:
    """One `make run` of the clone; what it printed is in `output`."""

    def __init__(self, clone: Path, **settings: str) -> None:
        self.port = free_port()
        self._log = clone.parent / f"output-{self.port}.txt"
        kept = {name: value for name, value in os.environ.items() if not FOREIGN.search(name)}
        with self._log.open("wb") as log:
            self.make = subprocess.Popen(
                ["make", "run"],
                cwd=clone,
                env={**kept, "PORT": str(self.port), **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    async def listening(self) -> None:
        await until(self._is_up, within=SET_UP)

    @property
    def server(self) -> int:
        """The server's process id: make's only child."""
        return child_of(self.make.pid)

    def stop(self) -> int:
        """SIGTERM to the server; make's exit status."""
        os.kill(self.server, signal.SIGTERM)
        return self.make.wait(STEP)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.make.pid, signal.SIGKILL)
        self.make.wait()

    def _is_up(self) -> bool:
        assert self.make.poll() is None, self.output
        return listens(self.port)


@pytest.fixture
async def run(clone):
    runs: list[Run] = []

    def start(**settings: str) -> Run:
        runs.append(Run(clone, **settings))
        return runs[-1]

    yield start
    for one in runs:
        one.kill()


async def chat(port: int, messages=QUESTION, on_frame=lambda frames: None) -> list[dict]:
    """The frames that one `chat` frame to `/ws` yields, up to the terminal one."""
    frames: list[dict] = []
    async with asyncio.timeout(STEP), connect(f"ws://127.0.0.1:{port}/ws") as websocket:
        asked = {"type": "chat", "provider": "local", "messages": messages, "max_tokens": 200}
        await websocket.send(json.dumps(asked))
        async for message in websocket:
            frames.append(json.loads(message))
            on_frame(frames)
            if frames[-1]["type"] in ("done", "error"):
                break
    return frames


def curl(port: int) -> list[dict]:
    """The same over `curl -N`: the data of each server-sent event."""
    body = json.dumps({"messages": QUESTION})
    url = f"http://127.0.0.1:{port}/chat/local"
    command = ["curl", "-sN", "--max-time", str(STEP), url, "-d", body]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line[5:]) for line in printed.splitlines() if line.startswith("data:")]


def text(frames: list[dict]) -> str:
    return "".join(frame["text"] for frame in frames if frame["type"] == "token")


async def test_one_command_gives_a_streamed_answer_and_stops_cleanly(run, clone):
    first = run()
    await first.listening()
    over_websocket = await chat(first.port)
    over_sse = curl(first.port)

    assert [f["type"] for f in over_websocket[:2]] == ["ready", "start"]
    assert over_sse[0]["type"] == "start"
    for frames in (over_websocket, over_sse):
        assert frames[-1]["type"] == "done"
        assert frames[-1]["provider"] == "local"
        assert frames[-1]["usage"]["output_tokens"] > 0
        assert text(frames).strip()
    assert str(first.port) in first.output
    engine = child_of(first.server)
    assert first.stop() == 0, first.output
    assert not Path(f"/proc/{engine}").exists()


async def test_the_second_start_installs_nothing_and_a_stop_in_mid_answer_is_clean(run, clone):
    stamps = {stamp: stamp.stat().st_mtime_ns for stamp in (clone / ".venv").glob(".*.stamp")}
    assert stamps
    second = run(DRAIN_TIMEOUT="0.2")
    await second.listening()
    assert "installing" not in second.output
    assert {stamp: stamp.stat().st_mtime_ns for stamp in stamps} == stamps

    stopping: list[asyncio.Task[int]] = []

    def stop_at_the_first_token(frames: list[dict]) -> None:
        if frames[-1]["type"] == "token" and not stopping:
            stopping.append(asyncio.create_task(asyncio.to_thread(second.stop)))

    await chat(second.port, STORY, stop_at_the_first_token)
    assert await stopping[0] == 0, second.output
    assert "Traceback" not in second.output
    assert "terminate called" not in second.output


async def test_an_answer_goes_on_after_the_engine_was_killed_under_it(run):
    third = run()
    await third.listening()
    killed: list[int] = []

    def kill_the_engine_under_way(frames: list[dict]) -> None:
        if frames[-1]["type"] == "token" and not killed:
            killed.append(child_of(third.server))
            os.kill(killed[0], signal.SIGKILL)

    frames = await chat(third.port, STORY, kill_the_engine_under_way)
    assert killed
    assert frames[-1]["type"] == "done"
    outcomes = [attempt["outcome"] for attempt in frames[-1]["attempts"]]
    assert outcomes == ["provider_interrupted", "ok"]
    assert len(text(frames)) > 200
    assert child_of(third.server) != killed[0]
    assert third.stop() == 0, third.output


def test_ci_runs_the_test_command_of_the_readme():
    command = "make test"
    assert f"exec {command}" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.search(rf"^\s*{command}\b", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert os.access(ROOT / ".ci/run", os.X_OK)
