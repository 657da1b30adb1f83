"""`LOG_CONTENT`: the text of chats and answers is in the logs where the operator asked for it,
on every edge, and nowhere where not."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import aiohttp
import pytest

from lab.redis_process import RedisProcess
from lab.upstreams import End, Finish, Refuse, Token, Upstream
from lab.upstreams.scripts import answer, continues, stalls_after
from tests.wire.nodes import Client, node
from tests.wire.served import server as served

ASKED = "canary-of-the-user"
SAID = "canary-of-the-model"
BREAKING = f'{ASKED}\n2026-01-01T00:00:00 ERROR forged\x1b[31m\u2028 "quoted"'
KEY = "sk-proj-aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"
MESSAGES = [{"role": "user", "content": BREAKING}]


async def websocket(http: aiohttp.ClientSession) -> None:
    async with http.ws_connect("/ws") as socket:
        await socket.send_json({"type": "chat", "messages": MESSAGES})
        while (await socket.receive_json())["type"] not in ("done", "error"):
            pass


async def posted(http: aiohttp.ClientSession) -> None:
    async with http.post("/chat/gpt", json={"messages": MESSAGES}) as response:
        await response.read()


async def completed(http: aiohttp.ClientSession) -> None:
    body = {"model": "gpt", "messages": MESSAGES}
    async with http.post("/v1/chat/completions", json=body) as response:
        await response.read()


async def streamed(http: aiohttp.ClientSession) -> None:
    body = {"model": "gpt", "messages": MESSAGES, "stream": True}
    async with http.post("/v1/chat/completions", json=body) as response:
        await response.read()


EDGES = [websocket, posted, completed, streamed]


async def on_every_edge(folder: Path, script=None, **variables: str) -> None:
    spoken = script or answer(f"{SAID} ", "\n", KEY)
    async with (
        Upstream(spoken) as upstream,
        served(upstream, folder, **variables) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        for edge in EDGES:
            await edge(http)


def everything_in(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("format", ["text", "json"])
async def test_where_it_is_on_each_chat_and_each_end_has_a_line_with_its_text(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], format: str
) -> None:
    await on_every_edge(tmp_path, LOG_CONTENT="1", LOG_FORMAT=format)
    files = [(tmp_path / name).read_text() for name in ("app.log", "debug.log")]
    for shown in (*files, capfd.readouterr().err):
        lines = shown.splitlines()
        asked = [line for line in lines if ASKED in line]
        said = [line for line in lines if SAID in line]
        assert (len(asked), len(said)) == (len(EDGES), len(EDGES))
        assert [line for line in lines if "forged" in line] == asked
        assert not {"\x1b", "\u2028"} & set(shown)
        assert KEY[8:] not in shown
        if format == "json":
            messages = [json.loads(line)["message"] for line in [*asked, *said]]
            assert {message.split()[0] for message in messages} == {"asked", "answered"}
    assert ASKED not in (tmp_path / "error.log").read_text()


@pytest.mark.parametrize("format", ["text", "json"])
async def test_where_it_is_off_no_text_is_in_any_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], format: str
) -> None:
    await on_every_edge(tmp_path, LOG_LEVEL="DEBUG", LOG_FORMAT=format)
    shown = capfd.readouterr()
    written = everything_in(tmp_path) + shown.out + shown.err
    assert "done stop" in written
    assert "canary" not in written
    assert "forged" not in written


@pytest.mark.parametrize(
    "script",
    [
        [Token(SAID), End()],
        [Token(SAID), Refuse("bad_request")],
        [Refuse("bad_request", body=json.dumps({"error": {"message": ASKED}}).encode())],
        [Token(SAID), Finish("length"), End()],
    ],
    ids=["cut", "faulty", "refused", "length"],
)
async def test_nor_is_there_any_where_answers_fail(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], script: list[object]
) -> None:
    await on_every_edge(tmp_path, script, LOG_LEVEL="DEBUG", MAX_ATTEMPTS="2")
    shown = capfd.readouterr()
    assert "canary" not in everything_in(tmp_path) + shown.out + shown.err


async def test_a_node_that_takes_an_answer_over_has_its_text_too(
    server: RedisProcess, tmp_path: Path
) -> None:
    words = [f"{SAID} ", "and ", "more"]

    def model(request):
        return stalls_after(*words[:2]) if request.number == 0 else continues(*words)(request)

    async with (
        Upstream(model) as upstream,
        node(upstream, server, tmp_path, LOG_CONTENT="1") as dying,
        node(upstream, server, tmp_path, LOG_CONTENT="1") as heir,
    ):
        client = Client()
        socket = await client.chat(dying.port, messages=ASKED)
        await client.read(socket, lambda: client.text == "".join(words[:2]))
        dying.signal(signal.SIGKILL)
        await dying.ended()
        await client.read(await client.resume(heir.port))
    assert client.text == "".join(words)
    log = (tmp_path / f"node-{heir.port}" / "app.log").read_text()
    assert log.count(f'asked user: "{ASKED}"') == 1
    assert log.count(f'answered text: "{client.text}"') == 1
