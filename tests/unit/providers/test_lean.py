"""What the lean transport learns from an SDK's request, and when it stands aside."""

import itertools

import pytest

from relay.errors import Code, Fault
from relay.providers.http import http_client, rehearse
from relay.providers.lean import LeanTransport, greeting
from relay.providers.openai_wire import OpenAIDecoder

URL = "http://127.0.0.1:9/v1/chat"
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
CHUNK = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}\n\n'


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def sdk():
    """Stands for an SDK: whatever makes its requests on the common HTTP client."""
    async with http_client() as client:
        yield client


def transport(**options):
    def classify(reply, call):
        return Fault(Code.PROVIDER_ERROR, f"no: {reply.body.decode()}")

    return LeanTransport(classify, "sk-12345678", **options)


async def aside(transport, send) -> bool:
    """Whether the call is left to the SDK; where it is not, port 9 refuses it."""
    try:
        return not await transport.run(greeting("m"), dict, send, OpenAIDecoder(), print)
    except Fault:
        return False
    finally:
        await transport.close()


async def test_a_rehearsed_request_is_seen_whole_and_never_sent(sdk):
    request = await rehearse(lambda: sdk.post(URL, headers={"x-a": "1"}, json={"b": 2}))
    assert str(request.url) == URL
    assert request.headers["x-a"] == "1"
    assert request.content == b'{"b":2}'


async def test_a_rehearsal_without_a_request_is_none():
    async def nothing():
        return None

    assert await rehearse(nothing) is None


async def test_a_plain_request_goes_the_short_way(sdk):
    assert not await aside(transport(), lambda: sdk.post(URL))


async def test_it_can_be_switched_off(sdk):
    assert await aside(transport(on=False), lambda: sdk.post(URL))


async def test_a_proxy_is_the_sdks_to_use(sdk, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert await aside(transport(), lambda: sdk.post(URL))


async def test_a_header_that_changes_with_each_request_cannot_be_learnt(sdk):
    numbers = itertools.count()
    send = lambda: sdk.post(URL, headers={"idempotency-key": str(next(numbers))})  # noqa: E731
    assert await aside(transport(), send)


async def test_an_sdk_that_sends_nothing_is_asked_for_real():
    async def nothing():
        return None

    assert await aside(transport(), nothing)


async def test_each_model_is_learnt_once(sdk):
    asked = []

    def send():
        asked.append(1)
        return sdk.post(URL)

    lean = transport()
    await lean.warm("m", send)
    before = len(asked)
    await lean.warm("m", send)
    assert len(asked) == before
    await lean.warm("other", send)
    assert len(asked) == 2 * before
    await lean.close()


async def test_a_key_is_not_in_what_might_be_logged(sdk):
    lean = transport()
    await lean.warm("m", lambda: sdk.post(URL, headers={"authorization": "Bearer sk-1234"}))
    assert "sk-1234" not in repr(lean._endpoints)
    await lean.close()


async def test_a_call_is_begun_at_once_where_its_model_was_learnt(sdk):
    lean = transport()
    arguments = (greeting("m"), dict, OpenAIDecoder(), None)
    assert lean.begin(*arguments) is None
    await lean.warm("m", lambda: sdk.post(URL))
    begun = lean.begin(*arguments)
    begun.close()
    lean.stand_aside("m")
    assert lean.begin(*arguments) is None
    await lean.close()


def test_a_greeting_is_a_whole_small_call():
    call = greeting("m")
    assert call.model == "m"
    assert call.request.messages
    assert call.max_tokens == 1
