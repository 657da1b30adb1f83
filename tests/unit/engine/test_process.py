import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from lab.waiting import until
from relay.engine import process
from relay.engine.process import Engine, EngineFailed, private_folder

TAKE_KEY = "import sys; key = sys.stdin.readline().strip()\n"
READY = TAKE_KEY + "print('ready', flush=True); "
UNTIL_STDIN_ENDS = "sys.stdin.read()"
FOR_EVER = "import signal, time; signal.pause()"


def command(program: str) -> list[str]:
    return [sys.executable, "-c", program]


@pytest.fixture
async def engine():
    """Makes engines whose child runs a given Python program, and closes them."""
    async with contextlib.AsyncExitStack() as stack:

        def make(program: str) -> Engine:
            made = Engine(command(program))
            stack.push_async_callback(made.close)
            return made

        yield make


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_ready_engine_tells_a_socket_in_a_folder_that_only_the_user_can_enter(engine):
    endpoint = await engine(READY + UNTIL_STDIN_ENDS).ready()
    folder = Path(endpoint.socket).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(endpoint.api_key) >= 32


async def test_waiters_share_one_start(engine):
    made = engine(READY + UNTIL_STDIN_ENDS)
    first, second = await asyncio.gather(made.ready(), made.ready())
    assert first is second
    pid = made.pid
    await made.ready()
    assert made.pid == pid


async def test_close_ends_the_child_and_removes_its_folder(engine):
    made = engine(READY + UNTIL_STDIN_ENDS)
    endpoint, pid = await made.ready(), made.pid
    await made.close()
    await made.close()
    assert is_gone(pid)
    assert not Path(endpoint.socket).parent.exists()


async def test_a_closed_engine_refuses_to_start_again(engine):
    made = engine(READY + UNTIL_STDIN_ENDS)
    await made.close()
    with pytest.raises(EngineFailed, match="being stopped"):
        await made.ready()


async def test_a_child_that_does_not_leave_is_killed(engine, monkeypatch):
    monkeypatch.setattr(process, "STOP_TIMEOUT", 0.05)
    made = engine(READY + FOR_EVER)
    await made.ready()
    pid = made.pid
    await made.close()
    assert is_gone(pid)


async def test_close_during_the_start_ends_the_child(engine, monkeypatch):
    monkeypatch.setattr(process, "STOP_TIMEOUT", 0.05)
    made = engine(FOR_EVER)
    made.start()
    await until(lambda: made.pid)
    pid = made.pid
    await made.close()
    assert is_gone(pid)


async def test_a_waiter_that_gives_up_leaves_the_start_to_the_others(engine):
    made = engine(READY + UNTIL_STDIN_ENDS)
    impatient, patient = asyncio.create_task(made.ready()), asyncio.create_task(made.ready())
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).socket
    assert impatient.cancelled()


async def test_a_failed_start_tells_the_last_line_the_engine_printed(engine):
    made = engine("import sys; print('weights are bent', file=sys.stderr); sys.exit(3)")
    with pytest.raises(EngineFailed, match="weights are bent"):
        await made.ready()


async def test_each_call_after_a_failed_start_tries_again(engine, tmp_path):
    mended = tmp_path / "mended"
    made = engine(
        f"import os; os.path.exists({str(mended)!r}) or exit(1)\n" + READY + UNTIL_STDIN_ENDS
    )
    with pytest.raises(EngineFailed):
        await made.ready()
    mended.touch()
    assert (await made.ready()).socket


async def test_a_start_that_takes_too_long_is_given_up(engine, monkeypatch):
    monkeypatch.setattr(process, "START_TIMEOUT", 0.05)
    monkeypatch.setattr(process, "STOP_TIMEOUT", 0.05)
    with pytest.raises(EngineFailed, match="took too long"):
        await engine(FOR_EVER).ready()


async def test_a_program_that_is_not_there_is_a_failed_start():
    made = Engine(["/no/such/program"])
    with pytest.raises(EngineFailed, match="did not start"):
        await made.ready()
    await made.close()


async def test_a_child_that_died_is_started_again_at_the_same_endpoint(engine):
    made = engine(READY + UNTIL_STDIN_ENDS)
    before, pid = await made.ready(), made.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: made.pid is None)
    assert await made.ready() == before
    assert made.pid != pid


async def test_a_dying_child_is_known_to_be_dead_once_settled(engine):
    made = engine(READY + UNTIL_STDIN_ENDS)
    await made.ready()
    os.kill(made.pid, signal.SIGKILL)
    await made.settled()
    assert made.pid is None


async def test_a_living_child_is_still_there_once_settled(engine, monkeypatch):
    monkeypatch.setattr(process, "DYING_TIME", 0)
    made = engine(READY + UNTIL_STDIN_ENDS)
    await made.ready()
    await made.settled()
    assert made.pid


async def test_the_child_gets_the_key_on_stdin_and_no_vendor_key_in_its_environment(
    engine, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    seen = tmp_path / "seen.json"
    program = (
        f"{TAKE_KEY}import json, os; "
        f"json.dump([key, dict(os.environ), sys.argv], open({str(seen)!r}, 'w')); "
        "print('ready', flush=True); sys.stdin.read()"
    )
    endpoint = await engine(program).ready()
    key, environment, arguments = json.loads(seen.read_text())
    assert key == endpoint.api_key
    assert "OPENAI_API_KEY" not in environment
    assert arguments[-1] == endpoint.socket
    assert endpoint.api_key not in " ".join(arguments)


async def test_an_engine_that_prints_much_is_not_stopped_by_a_full_pipe(engine):
    much = "import os; [os.write(2, b'x' * 999 + b'\\n') for _ in range(1000)]\n"
    assert (await engine(much + READY + UNTIL_STDIN_ENDS).ready()).socket


def test_the_socket_folder_moves_where_the_usual_path_is_too_long(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    folder = private_folder()
    try:
        assert len(f"{folder}/{process.SOCKET_NAME}") <= process.LONGEST_SOCKET_PATH
    finally:
        os.rmdir(folder)
