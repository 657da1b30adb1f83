"""One suite for every vendor, over both transports, against loopback upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import email.utils
import gzip
import json
import time

import pytest

from lab import upstreams as up
from lab.upstreams import Upstream, shapes
from lab.waiting import until
from relay.core.errors import Code, Fault
from relay.core.events import (
    Alive,
    Event,
    Finish,
    FinishReason,
    Reasoning,
    Served,
    Text,
    ToolCall,
    Usage,
)
from relay.core.provider import Call, Form, Provider
from relay.core.request import ChatRequest, ImageContent, OfferedTool, TextContent, Turn
from relay.providers.registry import build

VENDORS = ["openai", "anthropic", "gemini", "compatible"]
TEXT = ("Grüße", ", 世界", " 👩‍🚀", " und", " «mehr»", "\n", "Ende.")
MODELS = {
    "openai": "gpt-6-luna",
    "anthropic": "claude-sonnet-5-5",
    "gemini": "gemini-3.8-flash",
    "compatible": "llama-4",
}
ANY = pytest.mark.parametrize("kind", VENDORS)


WAY = {"way": ""}


@pytest.fixture(autouse=True, params=["sdk", "lean", "warm"])
def way(request, monkeypatch):
    """The whole suite holds for the SDK's own transport and for the lean one, where what the
    SDK sends is learnt by the call itself, and where it was learnt before."""
    monkeypatch.setitem(WAY, "way", request.param)


def made(kind: str, **options) -> Provider:
    given = {"name": "p", "api_key": "k-123", **options}
    return build(kind, **given, lean=WAY["way"] != "sdk")


async def run(provider: Provider, asked: Call, sink) -> None:
    """One call, to its end."""
    if WAY["way"] == "warm":
        await provider.warm(asked.model)
    caller = Calling(sink)
    upstream = provider.begin(asked, caller)
    try:
        await caller.over
    finally:
        upstream.close()


class Calling:
    """A caller whose call can be awaited."""

    def __init__(self, sink) -> None:
        self.context = contextvars.copy_context()
        self.take = sink
        self.over = asyncio.get_running_loop().create_future()

    def ended(self, error) -> None:
        assert not self.over.done() or self.over.cancelled(), "told twice"
        if error is not None:
            self.over.set_exception(error)
        else:
            self.over.set_result(None)


class Heard(list[list[Event]]):
    """A sink: the batches as they came."""

    def __call__(self, batch) -> None:
        assert batch, "an empty batch"
        self.append(list(batch))

    def of(self, kind: type) -> list:
        return [event for batch in self for event in batch if isinstance(event, kind)]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.of(Text))


def call(kind: str, content="Hi", *, form: Form = Form.RESTART, **fields) -> Call:
    messages = fields.pop("messages", (Turn("user", content),))
    request = ChatRequest("p", messages, **fields)
    return Call(MODELS[kind], request, max_tokens=64, form=form)


@contextlib.asynccontextmanager
async def connected(kind: str, script=None, **options):
    async with Upstream(script, **options) as upstream:
        provider = made(kind, base_url=upstream.base_url(kind))
        try:
            yield upstream, provider
        finally:
            await provider.close()


async def hear(provider: Provider, asked: Call) -> Heard:
    heard = Heard()
    await asyncio.wait_for(run(provider, asked, heard), 10)
    return heard


async def fail(provider: Provider, asked: Call) -> tuple[Fault, Heard]:
    heard = Heard()
    with pytest.raises(Fault) as caught:
        await asyncio.wait_for(run(provider, asked, heard), 10)
    return caught.value, heard


@ANY
@pytest.mark.parametrize("split", [1, 2, 3, 5, 17, 100, None])
async def test_text_is_equal_wherever_the_body_is_cut(kind, split):
    async with connected(kind, up.answer(*TEXT), split=split) as (_, provider):
        assert (await hear(provider, call(kind))).text == "".join(TEXT)


@ANY
async def test_model_usage_and_finish_are_the_providers_own(kind):
    counts = up.Counts(input=31, output=12, cached=5)
    async with connected(kind, up.answer(*TEXT, counts=counts)) as (_, provider):
        heard = await hear(provider, call(kind))
    assert heard.of(Served) == [Served(f"{MODELS[kind]}-served")]
    usage = heard.of(Usage)[-1]
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (31, 12, False)
    assert usage.cached_input_tokens == 5
    assert heard.of(Finish) == [Finish(FinishReason.STOP)]


@ANY
@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("refusal", FinishReason.CONTENT_FILTER),
    ],
)
async def test_finish_reasons_mean_the_same_on_every_wire(kind, reason, expected):
    async with connected(kind, up.answer("a", reason=reason)) as (_, provider):
        heard = await hear(provider, call(kind))
    assert heard.text == "a"
    assert heard.of(Finish)[-1] == Finish(expected)


@ANY
async def test_a_refusal_before_any_text_is_a_filtered_answer_without_text(kind):
    async with connected(kind, [up.Finish("refusal"), up.End()]) as (_, provider):
        heard = await hear(provider, call(kind))
    assert heard.text == ""
    assert heard.of(Finish) == [Finish(FinishReason.CONTENT_FILTER)]


@ANY
async def test_thinking_is_reasoning_and_never_text(kind):
    script = [up.Thought("hm, "), up.Thought("so"), *up.answer("yes")]
    async with connected(kind, script) as (_, provider):
        heard = await hear(provider, call(kind))
    assert "".join(event.text for event in heard.of(Reasoning)) == "hm, so"
    assert heard.text == "yes"


@ANY
@pytest.mark.parametrize("split", [1, 7, None])
async def test_tool_calls_are_handed_over_whole_between_text_and_finish(kind, split):
    script = [
        up.Token("Let me see."),
        up.Call("call_a", "weather", '{"city": "Kyōto", "days": [1, 2]}', pieces=5),
        up.Call("call_b", "time", "", pieces=1),
        up.Counts(),
        up.Finish("tool_calls"),
        up.End(),
    ]
    async with connected(kind, script, split=split) as (_, provider):
        heard = await hear(provider, call(kind))
    assert heard.of(ToolCall) == [
        ToolCall("call_a", "weather", {"city": "Kyōto", "days": [1, 2]}),
        ToolCall("call_b", "time", {}),
    ]
    order = [type(e) for batch in heard for e in batch if isinstance(e, Text | ToolCall | Finish)]
    assert order == [Text, ToolCall, ToolCall, Finish]
    assert heard.of(Finish) == [Finish(FinishReason.TOOL_CALLS)]


@pytest.mark.parametrize("kind", ["openai", "anthropic", "compatible"])
async def test_arguments_that_are_no_json_object_break_the_answer(kind):
    for arguments in ('{"city": "Ky', "[1]", "nonsense"):
        script = [up.Call("c", "weather", arguments), up.Finish("tool_calls"), up.End()]
        async with connected(kind, script) as (_, provider):
            fault, heard = await fail(provider, call(kind))
        assert fault.code is Code.PROVIDER_INTERRUPTED
        assert not heard.of(ToolCall)
        assert not heard.of(Finish)


@ANY
async def test_a_break_in_the_middle_of_a_tool_call_hands_nothing_over(kind):
    script = [up.Token("So"), up.Call("c", "weather", '{"a": 1}'), up.Reset()]
    async with connected(kind, script) as (_, provider):
        fault, heard = await fail(provider, call(kind))
    assert fault.code is Code.PROVIDER_INTERRUPTED
    assert heard.text == "So"
    assert not heard.of(ToolCall)


@ANY
async def test_images_are_passed_on_as_data_and_as_url(kind):
    parts = (
        TextContent("What is it?"),
        ImageContent("image/png", data="aGk="),
        ImageContent("image/png", url="data:image/jpeg;base64,aG8="),
        ImageContent("image/webp", url="https://example.org/a.webp"),
    )
    async with connected(kind) as (upstream, provider):
        await hear(provider, call(kind, parts))
    sent = str(upstream.requests[0].body)
    for piece in ("What is it?", "aGk=", "image/png", "image/jpeg", "aG8=", "example.org/a.webp"):
        assert piece in sent


@ANY
async def test_system_tools_stop_and_max_tokens_reach_the_vendor(kind):
    tool = OfferedTool("weather", "Tells it", {"properties": {"city": {"type": "string"}}})
    asked = call(kind, system="Be kind.", tools=(tool,), tool_choice="weather", stop=("END",))
    async with connected(kind) as (upstream, provider):
        await hear(provider, asked)
    body = upstream.requests[0].body
    sent = str(body)
    for piece in ("Be kind.", "Tells it", "city", "END", "64", "weather"):
        assert piece in sent
    assert not {"temperature", "top_p", "top_k"} & set(sent.replace("'", " ").split())
    assert upstream.requests[0].model == MODELS[kind]


@ANY
async def test_cancelling_closes_the_upstream_at_once(kind):
    async with connected(kind, up.stalls_after("one", " two")) as (upstream, provider):
        first = asyncio.Event()
        running = asyncio.create_task(run(provider, call(kind), lambda batch: first.set()))
        await asyncio.wait_for(first.wait(), 10)
        running.cancel()
        started = time.monotonic()
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 10)
        assert time.monotonic() - started < 1.0
        assert upstream.requests[0].cut_off
        with pytest.raises(asyncio.CancelledError):
            await running


@ANY
async def test_cancelling_before_the_headers_closes_the_upstream(kind):
    async with connected(kind, [up.Hang()]) as (upstream, provider):
        running = asyncio.create_task(run(provider, call(kind), Heard()))
        request = await upstream.request()
        running.cancel()
        await asyncio.wait_for(request.closed.wait(), 10)
        assert request.cut_off
        with pytest.raises(asyncio.CancelledError):
            await running


@ANY
async def test_what_the_sink_raises_passes_through_and_closes_the_upstream(kind):
    class Stop(Exception):
        pass

    def sink(batch):
        raise Stop

    async with connected(kind, up.stalls_after("one")) as (upstream, provider):
        with pytest.raises(Stop):
            await asyncio.wait_for(run(provider, call(kind), sink), 10)
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 10)


REFUSALS = [
    ("rate_limit", Code.PROVIDER_RATE_LIMITED, "retry"),
    ("quota", Code.PROVIDER_RATE_LIMITED, "fallback"),
    ("server_error", Code.PROVIDER_ERROR, "retry"),
    ("overloaded", Code.PROVIDER_OVERLOADED, "retry"),
    ("context_length", Code.CONTEXT_LENGTH, "fallback"),
    ("policy", Code.CONTENT_POLICY, "none"),
    ("auth", Code.PROVIDER_AUTH, "fallback"),
    ("not_found", Code.PROVIDER_ERROR, "fallback"),
    ("bad_request", Code.BAD_REQUEST, "none"),
]


@ANY
@pytest.mark.parametrize(("trouble", "code", "remedy"), REFUSALS)
async def test_each_refusal_is_the_right_fault_after_one_attempt(kind, trouble, code, remedy):
    async with connected(kind, [up.Refuse(trouble)]) as (upstream, provider):
        fault, heard = await fail(provider, call(kind))
    assert (fault.code, fault.remedy, fault.prefill_refused) == (code, remedy, False)
    assert len(upstream.requests) == 1
    assert not heard
    assert "k-123" not in fault.message
    assert "wrong" not in fault.message


@ANY
async def test_a_key_that_the_server_echoes_is_not_passed_on(kind):
    key = "Xq7-plain-looking-key"
    fields = {"message": f"bad value {key}", "status": "INVALID_ARGUMENT"}
    body = json.dumps({"error": {"type": "invalid_request_error", **fields}}).encode()
    script = [up.Refuse("bad_request", body=body)]
    async with Upstream(script, models=script[0]) as upstream:
        provider = made(kind, api_key=key, base_url=upstream.base_url(kind))
        fault, _ = await fail(provider, call(kind))
        with pytest.raises(Fault) as probed:
            await provider.probe()
        await provider.close()
    assert fault.code is Code.BAD_REQUEST
    for message in (fault.message, str(fault), probed.value.message):
        assert "bad value [redacted]" in message
        assert key not in message


@ANY
async def test_a_wait_that_the_vendor_asks_for_is_passed_on(kind):
    async with connected(kind, [up.Refuse("rate_limit", retry_after=2.5)]) as (_, provider):
        fault, _ = await fail(provider, call(kind))
    assert fault.retry_after == 2.5


@ANY
async def test_a_retry_after_date_becomes_seconds(kind):
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    script = [up.Refuse("overloaded", headers={"retry-after": date})]
    async with connected(kind, script) as (_, provider):
        fault, _ = await fail(provider, call(kind))
    assert fault.retry_after is not None
    assert 30 < fault.retry_after <= 60


@ANY
async def test_a_refused_prefill_is_told_from_a_malformed_request(kind):
    messages = (Turn("user", "Go"), Turn("assistant", "Once upon"))
    script = up.refuses_prefill(up.answer("a"))
    async with connected(kind, script) as (_, provider):
        fault, _ = await fail(provider, call(kind, messages=messages, form=Form.PREFILL))
        assert (fault.prefill_refused, fault.remedy) == (True, "fallback")
        fault, _ = await fail(provider, call(kind, messages=messages))
        assert (fault.prefill_refused, fault.remedy) == (False, "none")


@ANY
@pytest.mark.parametrize(
    "ending",
    [[up.Reset()], [up.Close()], [up.Garbage(), up.Token("b"), up.Finish(), up.End()]],
    ids=["reset", "clean end without marker", "event that is no JSON"],
)
async def test_an_answer_that_breaks_is_never_taken_for_a_whole_one(kind, ending):
    async with connected(kind, [up.Token("a"), *ending]) as (_, provider):
        fault, heard = await fail(provider, call(kind))
    assert (fault.code, fault.remedy) == (Code.PROVIDER_INTERRUPTED, "retry")
    assert heard.text == "a"
    assert not heard.of(Finish)


@ANY
async def test_an_error_inside_the_stream_is_a_fault_after_the_text(kind):
    script = [up.Token("a"), up.Token("b"), up.InBandError("overloaded")]
    async with connected(kind, script) as (_, provider):
        fault, heard = await fail(provider, call(kind))
    assert (fault.code, fault.remedy) == (Code.PROVIDER_OVERLOADED, "retry")
    assert heard.text == "ab"


@ANY
async def test_a_connection_reset_before_headers_is_a_break(kind):
    async with connected(kind, [up.Reset()]) as (upstream, provider):
        fault, _ = await fail(provider, call(kind))
    assert (fault.code, fault.remedy) == (Code.PROVIDER_INTERRUPTED, "retry")
    assert len(upstream.requests) == 1


@ANY
async def test_nobody_listening_is_a_provider_error(kind):
    async with Upstream() as gone:
        url = gone.base_url(kind)
    provider = made(kind, base_url=url)
    fault, _ = await fail(provider, call(kind))
    assert (fault.code, fault.remedy) == (Code.PROVIDER_ERROR, "retry")
    await provider.close()


@ANY
async def test_a_finish_reason_is_the_end_however_the_connection_ends(kind):
    for ending in ([up.Close()], [up.Reset()]):
        script = [up.Token("a"), up.Counts(), up.Finish(), *ending]
        async with connected(kind, script) as (_, provider):
            heard = await hear(provider, call(kind))
        assert heard.text == "a"
        assert heard.of(Finish) == [Finish(FinishReason.STOP)]


@ANY
async def test_the_finish_is_heard_while_the_connection_stays_open(kind):
    script = [up.Token("a"), up.Counts(), up.Finish(), up.Hang()]
    async with connected(kind, script) as (_, provider):
        finished = asyncio.Event()

        def sink(batch):
            if any(isinstance(event, Finish) for event in batch):
                finished.set()

        running = asyncio.create_task(run(provider, call(kind), sink))
        await asyncio.wait_for(finished.wait(), 10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("kind", ["openai", "anthropic", "compatible"])
async def test_an_end_marker_alone_is_an_end_and_a_left_open_connection_is_not_waited_for(kind):
    script = [up.Token("a"), up.End(), up.Hang()]
    async with connected(kind, script) as (upstream, provider):
        heard = await hear(provider, call(kind))
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 10)
    assert heard.text == "a"
    assert heard.of(Finish) == [Finish(FinishReason.STOP)]


@ANY
async def test_an_empty_200_is_not_an_answer(kind):
    async with connected(kind, [up.Close()]) as (_, provider):
        fault, heard = await fail(provider, call(kind))
    assert fault.code is Code.PROVIDER_INTERRUPTED
    assert not heard.of(Text)


@ANY
async def test_comments_are_life_and_nothing_else(kind):
    script = [up.Raw(b": ping\n\n"), *up.answer("a")]
    async with connected(kind, script) as (_, provider):
        heard = await hear(provider, call(kind))
    assert heard.text == "a"


async def test_a_read_that_holds_only_comments_is_a_sign_of_life():
    release = asyncio.Event()
    script = [up.Raw(b": ping\n\n"), up.Pause(until=release), *up.answer("a")]
    async with connected("openai", script) as (_, provider):
        heard = Heard()
        running = asyncio.create_task(run(provider, call("openai"), heard))
        await until(lambda: heard)
        assert heard.of(Alive)
        release.set()
        await running


@ANY
async def test_one_connection_serves_one_answer_after_the_other(kind):
    async with connected(kind) as (upstream, provider):
        for _ in range(3):
            await hear(provider, call(kind))
        assert upstream.connections == 1


@ANY
async def test_the_probe_spends_no_completion(kind):
    async with connected(kind) as (upstream, provider):
        await provider.probe()
        assert (len(upstream.probes), len(upstream.requests)) == (1, 0)


@ANY
async def test_a_probe_with_a_bad_key_is_an_auth_fault(kind):
    async with connected(kind, models=up.Refuse("auth")) as (_, provider):
        with pytest.raises(Fault) as caught:
            await provider.probe()
        assert caught.value.code is Code.PROVIDER_AUTH


@ANY
async def test_close_may_be_called_twice(kind):
    async with connected(kind) as (_, provider):
        await provider.close()
        await provider.close()


async def test_a_compatible_server_never_gets_what_belongs_to_openai(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openais-own")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-own")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-own")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: own")
    async with Upstream() as upstream:
        url = upstream.base_url("compatible")
        provider = made("compatible", api_key=None, base_url=url)
        await hear(provider, call("compatible"))
        await provider.probe()
        await provider.close()
        for request in (*upstream.requests, *upstream.probes):
            assert request.headers["authorization"] == "Bearer none"
            assert "own" not in str(request.headers)
            assert not {"openai-organization", "openai-project"} & set(request.headers)


async def test_each_vendor_gets_the_key_that_was_given(monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.setenv(name, "from-environment")
    for kind in VENDORS:
        async with connected(kind) as (upstream, provider):
            await hear(provider, call(kind))
            assert "k-123" in str(upstream.requests[0].headers)
            assert "from-environment" not in str(upstream.requests[0].headers)


async def test_a_compatible_server_is_reached_over_a_unix_socket(tmp_path):
    upstream = Upstream(up.answer("near"))
    await upstream.start(uds=str(tmp_path / "s"))
    url = "http://localhost/v1"
    uds = str(tmp_path / "s")
    provider = made("compatible", base_url=url, uds=uds)
    try:
        assert (await hear(provider, call("compatible"))).text == "near"
    finally:
        await provider.close()
        await upstream.stop()


async def test_geminis_signature_comes_back_with_the_call():
    script = up.in_turn(
        [up.Call("c1", "weather", "{}", state="c2lnbmVk"), up.Finish("tool_calls")],
        up.answer("Sunny."),
    )
    async with connected("gemini", script) as (upstream, provider):
        (made,) = (await hear(provider, call("gemini"))).of(ToolCall)
        assert made.state is not None
        assert made.state != "c2lnbmVk"
        past = ToolCall("c1", "weather", {}, made.state)
        messages = (
            Turn("user", "Weather?"),
            Turn("assistant", tool_calls=(past,)),
            Turn("tool", "sun", call_id="c1"),
        )
        await hear(provider, call("gemini", messages=messages))
        part = upstream.requests[1].body["contents"][1]["parts"][0]
        assert part["thoughtSignature"] == "c2lnbmVk"


async def test_gemini_serves_latest_aliases_from_the_version_that_knows_them():
    async with connected("gemini") as (upstream, provider):
        request = ChatRequest("p", (Turn("user", "Hi"),))
        await hear(provider, Call("gemini-flash-latest", request, 64))
        await hear(provider, call("gemini"))
    assert upstream.requests[0].path.startswith("/v1beta/")
    assert upstream.requests[1].path.startswith("/v1/")


def wire_of(kind: str) -> str:
    return "openai" if kind == "compatible" else kind


SIGNS_OF_FAILURE = {
    "a field named error": lambda wire: b'error: {"code": 500, "message": "gone"}\n\n',
    "an event named error": lambda wire: b'event: error\ndata: {"code": 1, "message": "gone"}\n\n',
    "a bare object": lambda wire: b'{"error": {"code": 500, "message": "gone"}}\n\n',
    "bare words": lambda wire: b"Internal Server Error\n\n",
    "an unknown object": lambda wire: shapes.event({"session": "expired"}),
    "an unknown finish reason": lambda wire: shapes.ends(wire, "worker_died"),
    "words that cannot be read": lambda wire: shapes.says(wire, True),
}


@ANY
@pytest.mark.parametrize("sign", SIGNS_OF_FAILURE)
async def test_a_sign_of_failure_outweighs_the_end_that_follows(kind, sign):
    odd = up.Raw(SIGNS_OF_FAILURE[sign](wire_of(kind)))
    async with connected(kind, [up.Token("half"), odd, up.Finish(), up.End()]) as (_, provider):
        fault, heard = await fail(provider, call(kind))
    assert fault.code in (Code.PROVIDER_ERROR, Code.PROVIDER_INTERRUPTED)
    assert heard.text == "half"
    assert not heard.of(Finish)


@ANY
async def test_what_has_another_type_or_no_words_costs_nothing(kind):
    wire = wire_of(kind)
    odd = b"".join(
        [
            shapes.literally(wire, "5"),
            b"data: null\n\n",
            shapes.says(wire, " \ud83d"),
            shapes.says(wire, "\ude00 "),
            shapes.counts(wire, []),
        ]
    )
    async with connected(kind, [up.Token("a"), up.Raw(odd), *up.answer("b")]) as (_, provider):
        heard = await hear(provider, call(kind))
    assert heard.text == "a5 😀 b"
    assert heard.of(Finish) == [Finish(FinishReason.STOP)]


@ANY
async def test_two_calls_without_ids_under_one_index_are_two(kind):
    pieces = [
        {"name": "weather", "arguments": f'{{"city": "{city}"}}'} for city in ("Rome", "Oslo")
    ]
    odd = up.Raw(shapes.calls(wire_of(kind), *pieces))
    async with connected(kind, [odd, up.Finish("tool_calls"), up.End()]) as (_, provider):
        heard = await hear(provider, call(kind))
    assert [made.arguments for made in heard.of(ToolCall)] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert len({made.call_id for made in heard.of(ToolCall)}) == 2


@ANY
@pytest.mark.parametrize("status", [200, 201, 203])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_an_answer_in_one_json_object_is_read(kind, status, coding):
    made = [("weather", {"city": "Rome"})]
    body = json.dumps(shapes.whole(wire_of(kind), "m", "Let me see.", made)).encode()
    packed = gzip.compress(body) if coding == "gzip" else body
    script = [up.Respond(status, packed, {"content-encoding": coding})]
    async with connected(kind, script) as (_, provider):
        heard = await hear(provider, call(kind))
    assert heard.text == "Let me see."
    assert [(tool.name, tool.arguments) for tool in heard.of(ToolCall)] == made
    assert heard.of(Finish) == [Finish(FinishReason.TOOL_CALLS)]
    assert heard.of(Served) == [Served("m")]


@ANY
@pytest.mark.parametrize("cut", [2, 30, 100])
async def test_an_answer_in_one_json_object_that_is_cut_is_a_break(kind, cut):
    body = json.dumps(shapes.whole(wire_of(kind), "m", "Let me see.")).encode()
    async with connected(kind, [up.Respond(200, body[:-cut])]) as (_, provider):
        fault, heard = await fail(provider, call(kind))
    assert fault.code is Code.PROVIDER_INTERRUPTED
    assert not heard.of(Finish)


@ANY
@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (204, Code.PROVIDER_INTERRUPTED, "retry"),
        (302, Code.PROVIDER_ERROR, "fallback"),
        (307, Code.PROVIDER_ERROR, "fallback"),
        (410, Code.PROVIDER_ERROR, "fallback"),
        (424, Code.PROVIDER_ERROR, "retry"),
        (498, Code.PROVIDER_OVERLOADED, "retry"),
        (499, Code.PROVIDER_INTERRUPTED, "retry"),
    ],
)
async def test_a_status_that_is_not_the_clients_fault_is_tried_elsewhere(
    kind, status, code, remedy
):
    script = [up.Respond(status, b"", {"location": "/elsewhere"})]
    async with connected(kind, script) as (_, provider):
        fault, heard = await fail(provider, call(kind))
    assert (fault.code, fault.remedy) == (code, remedy)
    assert not heard.of(Text)
