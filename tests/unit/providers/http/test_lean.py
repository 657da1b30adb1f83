"""What the lean transport learns from an SDK's request, and when it stands aside."""

import itertools

import pytest

from relay.providers.http.lean import LeanTransport, greeting
from relay.providers.http.sdk_client import http_client, rehearse

URL = "http://127.0.0.1:9/v1/chat"


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


async def aside(send, **options) -> bool:
    """Whether a call is left to the SDK."""
    lean = LeanTransport(lambda call: send(), **options)
    try:
        return await lean.learn("m") is None
    finally:
        await lean.close()


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
    assert not await aside(lambda: sdk.post(URL))


async def test_it_can_be_switched_off(sdk):
    assert await aside(lambda: sdk.post(URL), on=False)


async def test_a_proxy_is_the_sdks_to_use(sdk, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert await aside(lambda: sdk.post(URL))


async def test_a_header_that_changes_with_each_request_cannot_be_learnt(sdk):
    numbers = itertools.count()
    send = lambda: sdk.post(URL, headers={"idempotency-key": str(next(numbers))})  # noqa: E731
    assert await aside(send)


async def test_an_sdk_that_sends_nothing_is_asked_for_real():
    async def nothing():
        return None

    assert await aside(nothing)


async def test_each_model_is_learnt_once_by_the_smallest_call(sdk):
    asked = []

    def send(call):
        asked.append(call)
        return sdk.post(URL)

    lean = LeanTransport(send)
    await lean.warm("m")
    before = len(asked)
    await lean.warm("m")
    assert len(asked) == before
    await lean.warm("other")
    assert len(asked) == 2 * before
    assert asked == [*[greeting("m")] * before, *[greeting("other")] * before]
    await lean.close()


async def test_a_key_is_not_in_what_might_be_logged(sdk):
    lean = LeanTransport(lambda call: sdk.post(URL, headers={"authorization": "Bearer sk-1234"}))
    assert await lean.learn("m") is not None
    assert "sk-1234" not in repr(lean._endpoints)
    await lean.close()


async def test_where_a_models_calls_go_is_known_once_it_was_learnt_until_it_stands_aside(sdk):
    lean = LeanTransport(lambda call: sdk.post(URL))
    assert lean.endpoint("m") is None
    assert await lean.learn("m") is lean.endpoint("m") is not None
    lean.leave_to_sdk("m")
    assert await lean.learn("m") is lean.endpoint("m") is None
    await lean.close()


def test_a_greeting_is_a_whole_small_call():
    call = greeting("m")
    assert call.model == "m"
    assert call.request.messages
    assert call.max_tokens == 1
