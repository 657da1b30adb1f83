"""Whatever is sent over HTTP, the answer is JSON with a status: never a 500, never a hang."""

import asyncio
import gzip
import json

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.waiting import until
from relay.core.errors import Code, RelayError
from relay.edges import http
from tests.wire.http_relay import DONE, RawClient, client, events_of, listening, serving

LIMIT = 4096


def chat_of(size: int) -> bytes:
    """A good body of exactly so many bytes."""
    empty = len(json.dumps({"messages": "x"})) - 1
    return json.dumps({"messages": "x" * (size - empty)}).encode()


@pytest.fixture
async def relay():
    async with serving(max_body=LIMIT) as served:
        served.dispatcher.on_start = lambda writer: writer.append([DONE])
        yield served


async def test_a_body_of_the_limit_passes_and_one_byte_more_is_413(relay):
    for size, status in [(LIMIT, 200), (LIMIT + 1, 413)]:
        async with client(relay) as sender:
            await sender.ask("POST", "/chat/gpt", chat_of(size))
            assert sender.status == status


def chunked(body: bytes, size: int = 1000) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


async def test_a_body_without_a_length_is_counted_as_it_comes(relay):
    for size, status in [(LIMIT, 200), (LIMIT + 1, 413)]:
        async with client(relay) as sender:
            head = (
                b"POST /chat/gpt HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            sender.writer.write(head + chunked(chat_of(size)))
            await sender.head()
            body = await sender.body()
            assert sender.status == status
    assert json.loads(body)["error"]["code"] == "too_large"


async def test_a_length_beyond_the_limit_is_refused_before_the_body_is_sent(relay):
    async with client(relay) as sender:
        headers = {"Content-Length": str(10**12)}
        answer = json.loads(await sender.ask("POST", "/chat/gpt", b"", headers))
    assert (sender.status, answer["error"]["code"]) == (413, "too_large")
    assert "MAX_FRAME_BYTES" in answer["error"]["message"]


async def test_a_compressed_body_is_counted_by_what_it_unpacks_to(relay):
    async with client(relay) as sender:
        bomb = gzip.compress(chat_of(LIMIT * 100))
        assert len(bomb) < LIMIT
        await sender.ask("POST", "/chat/gpt", bomb, {"Content-Encoding": "gzip"})
        assert sender.status == 413


async def test_a_body_that_only_claims_to_be_compressed_is_400(relay):
    async with client(relay) as sender:
        answer = json.loads(
            await sender.ask(
                "POST", "/chat/gpt", b'{"messages": "x"}', {"Content-Encoding": "gzip"}
            )
        )
    assert (sender.status, answer["error"]["code"]) == (400, "bad_request")


async def test_a_body_that_does_not_arrive_is_given_up(relay, monkeypatch):
    monkeypatch.setattr(http, "BODY_SECONDS", 0.05)
    async with client(relay) as sender:
        sender.send("POST", "/chat/gpt", b'{"mess', {"Content-Length": "100"})
        assert await sender.head() == 408
        assert json.loads(await sender.body())["error"]["code"] == "bad_request"


async def test_a_client_that_leaves_while_it_sends_disturbs_nobody(relay):
    async with client(relay) as sender:
        sender.send("POST", "/chat/gpt", b'{"mess', {"Content-Length": "100"})
        await sender.writer.drain()
    async with client(relay) as sender:
        await sender.ask("POST", "/chat/gpt", chat_of(100))
        assert sender.status == 200


async def test_curl_waits_for_100_continue_and_gets_it(relay):
    async with client(relay) as sender:
        sender.send("POST", "/chat/gpt", b"", {"Expect": "100-continue", "Content-Length": "100"})
        assert await sender.head() == 100
        sender.writer.write(chat_of(100))
        assert await sender.head() == 200
        assert events_of(await sender.body())[-1].name == "done"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/chat", 404),
        ("POST", "/chat/", 404),
        ("POST", "/chat/a/b", 404),
        ("GET", "/chat/gpt", 405),
        ("PUT", "/streams/x", 405),
        ("OPTIONS", "/chat/gpt", 405),
        ("POST", "/chat/%00%0d%0a", 400),
        ("GET", "/streams/%ff", 404),
    ],
)
async def test_a_path_or_method_that_is_not_there_is_told_in_json(relay, method, path, status):
    async with client(relay) as sender:
        answer = json.loads(await sender.ask(method, path))
    assert sender.status == status
    assert answer["error"]["message"]
    if status == 405:
        assert "POST" in sender.headers["allow"] or "GET" in sender.headers["allow"]


async def test_head_of_a_stream_is_405_because_it_would_be_a_reader(relay):
    async with client(relay) as sender:
        sender.send("HEAD", "/streams/x")
        assert await sender.head() == 405


async def test_below_v1_errors_have_openais_shape(relay):
    async with client(relay) as sender:
        answer = json.loads(await sender.ask("GET", "/v1/nowhere"))
    assert sender.status == 404
    assert set(answer["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("defect", [KeyError("sk-secret"), ConnectionRefusedError("sk-secret")])
async def test_what_nobody_foresaw_is_told_as_internal_without_its_text(defect):
    async def broken(request):
        raise defect

    app = web.Application(middlewares=[http.errors])
    app.router.add_get("/broken", broken)
    async with listening(app) as port:
        sender = await RawClient.connect(port)
        body = await sender.ask("GET", "/broken")
        sender.close()
    assert sender.status == 500
    assert json.loads(body) == {"error": {"code": "internal", "message": "internal error"}}


@pytest.mark.interpreted
async def test_an_answer_that_breaks_inside_ends_the_connection_and_never_looks_whole(relay):
    async with client(relay) as reader:
        relay.dispatcher.on_start = lambda writer: None
        reader.send("POST", "/chat/gpt", chat_of(100))
        await reader.head()
        await reader.chunk()
        (cursor,) = relay.writer.cursors
        relay.writer.records = None  # so that the cursor's next take raises
        cursor.wake()
        assert await reader.reader.read() == b""
        await until(lambda: not relay.writer.cursors)


def test_every_code_has_a_status():
    assert set(http.STATUS) == set(Code)


@pytest.mark.parametrize("code", list(Code))
def test_an_error_response_tells_code_and_message(code):
    response = http.error_response(RelayError(code, "why"))
    assert 400 <= response.status < 600
    assert json.loads(response.body) == {"error": {"code": code.value, "message": "why"}}
    assert ("WWW-Authenticate" in response.headers) == (response.status == 401)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = [
    "messages",
    "id",
    "system",
    "stop",
    "tools",
    "tool_choice",
    "provider",
    "max_tokens",
    "model",
]
bodies = st.one_of(
    st.binary(max_size=64),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4).map(
        lambda value: json.dumps({"messages": "x"} | value).encode()
    ),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=bodies, path=st.sampled_from(["/chat/gpt", "/v1/chat/completions"]))
def test_no_body_ever_makes_a_500_or_a_hang(body, path):
    async def ask() -> int:
        async with serving(max_body=LIMIT) as relay, client(relay) as sender:
            relay.dispatcher.on_start = lambda writer: writer.append([DONE])
            await sender.ask("POST", path, body)
            return sender.status

    assert asyncio.run(ask()) in {200, 400, 404, 413, 422}
