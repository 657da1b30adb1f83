"""OpenAI's chat completions, asked by OpenAI's own client."""

import asyncio
import json

import openai
import pytest

from lab.waiting import until
from relay.core.errors import Code, RelayError
from relay.core.events import (
    Done,
    Failed,
    Fallback,
    FinishReason,
    Reasoning,
    Target,
    Text,
    Timing,
    ToolCall,
    Usage,
)
from relay.core.request import ImageContent, OfferedTool, TextContent, Turn
from relay.edges.delivery.outlet import Pace
from tests.wire.http_relay import DONE, PATIENCE, client, serving

HELLO = [{"role": "user", "content": "Hello!"}]
ASKED = {"model": "gpt", "messages": HELLO}
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}},
}


def done(reason, usage=DONE.usage):
    return Done("gpt", "model-1-0613", reason, usage, [], Timing(1, 2))


@pytest.fixture
async def relay():
    async with serving(pace=Pace(heartbeat=0.05, write_timeout=5)) as served:
        yield served


@pytest.fixture
async def sdk(relay):
    async with openai.AsyncOpenAI(
        base_url=f"{relay.url}/v1", api_key="sk-any", max_retries=0, timeout=PATIENCE
    ) as made:
        yield made


def answer(relay, *records):
    """Let every chat be answered by these records."""
    relay.dispatcher.on_start = lambda writer: writer.append(records)


# Streamed


async def test_a_streamed_answer_is_read_by_the_sdk_token_by_token(relay, sdk):
    stream = await sdk.chat.completions.create(**ASKED, stream=True)
    chunks = []
    pieces = iter([[Text("Hel")], [Text('lo "w"\n')], [Text("ö")], [DONE]])
    async for chunk in stream:
        chunks.append(chunk)
        if records := next(pieces, None):
            relay.writer.append(records)
    first, *middle, last = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert [c.choices[0].delta.content for c in middle] == ["Hel", 'lo "w"\n', "ö"]
    assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("stop", None)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.created for chunk in chunks} == {1_700_000_000}
    assert len({chunk.id for chunk in chunks}) == 1
    assert (first.model, last.model) == ("model-1", "model-1-0613")
    assert all(chunk.usage is None for chunk in chunks)


async def test_usage_comes_in_a_chunk_without_choices_where_it_is_asked_for(relay, sdk):
    answer(relay, Text("hi"), done(FinishReason.STOP, Usage(7, 5, False, 4, 2)))
    stream = await sdk.chat.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}
    )
    *others, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 5)
    assert last.usage.total_tokens == 12
    assert last.usage.prompt_tokens_details.cached_tokens == 4
    assert last.usage.completion_tokens_details.reasoning_tokens == 2
    assert len({chunk.id for chunk in [*others, last]}) == 1


async def test_a_whole_stream_ends_in_done_and_has_the_streams_headers(relay):
    answer(relay, Text("hi"), DONE)
    async with client(relay) as reader:
        body = await reader.ask("POST", "/v1/chat/completions", ASKED | {"stream": True})
    assert body.endswith(b"data: [DONE]\n\n")
    assert reader.headers["content-type"].startswith("text/event-stream")
    assert reader.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("shown", [(), (Text("half an ans"),)])
async def test_a_broken_answer_ends_in_an_error_and_never_in_done(relay, sdk, shown):
    failed = Failed(Code.PROVIDERS_EXHAUSTED, "every target failed", True)
    answer(relay, *shown, failed)
    with pytest.raises(openai.APIError, match="every target failed") as caught:
        async for _ in await sdk.chat.completions.create(**ASKED, stream=True):
            pass
    assert caught.value.code == "providers_exhausted"
    async with client(relay) as reader:
        body = await reader.ask("POST", "/v1/chat/completions", ASKED | {"stream": True})
    assert b"[DONE]" not in body


async def test_a_cancelled_answer_is_a_broken_one(relay, sdk):
    answer(relay, Text("half"), done(FinishReason.CANCELLED))
    with pytest.raises(openai.APIError, match="cancelled"):
        async for _ in await sdk.chat.completions.create(**ASKED, stream=True):
            pass
    with pytest.raises(openai.APIStatusError) as caught:
        await sdk.chat.completions.create(**ASKED)
    assert caught.value.status_code == 409


async def test_reasoning_comes_as_reasoning_content(relay, sdk):
    answer(relay, Reasoning("Hmm. "), Text("Yes"), DONE)
    chunks = [c async for c in await sdk.chat.completions.create(**ASKED, stream=True)]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [d.reasoning_content for d in deltas if hasattr(d, "reasoning_content")] == ["Hmm. "]
    whole = await sdk.chat.completions.create(**ASKED)
    assert whole.choices[0].message.reasoning_content == "Hmm. "
    assert whole.choices[0].message.content == "Yes"


async def test_silence_is_filled_with_comments_that_the_sdk_skips(relay, sdk):
    stream = await sdk.chat.completions.create(**ASKED, stream=True)
    async with client(relay) as reader:
        reader.send("POST", "/v1/chat/completions", ASKED | {"stream": True})
        await reader.head()
        await reader.chunk()
        assert await reader.chunk() == b":\n\n"
    for writer in relay.dispatcher.writers:
        writer.append([Text("hi"), DONE])
    text = [chunk.choices[0].delta.content async for chunk in stream]
    assert "".join(piece or "" for piece in text) == "hi"


async def test_the_model_that_took_over_is_named(relay, sdk):
    to = Target("claude", "model-2")
    answer(
        relay,
        Fallback(Target("gpt", "model-1"), to, Code.PROVIDER_OVERLOADED, True),
        Text("hi"),
        DONE,
    )
    chunks = [c async for c in await sdk.chat.completions.create(**ASKED, stream=True)]
    assert [chunk.model for chunk in chunks] == ["model-1", "model-2", "model-1-0613"]


# In one piece


async def test_an_answer_in_one_piece(relay, sdk):
    answer(relay, Text("Hel"), Text("lo"), done(FinishReason.LENGTH, Usage(7, 5, True)))
    whole = await sdk.chat.completions.create(**ASKED)
    assert whole.object == "chat.completion"
    assert whole.id.startswith("chatcmpl-")
    assert whole.choices[0].message.content == "Hello"
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].finish_reason == "length"
    assert (whole.model, whole.usage.total_tokens) == ("model-1-0613", 12)


async def test_in_one_piece_text_that_was_taken_back_is_not_in_it(relay, sdk):
    again = Target("gpt", "model-1")
    answer(
        relay,
        Text("wrong"),
        Fallback(again, again, Code.PROVIDER_ERROR, False),
        Text("right"),
        DONE,
    )
    whole = await sdk.chat.completions.create(**ASKED)
    assert whole.choices[0].message.content == "right"


async def test_only_a_streamed_answer_cannot_be_unsaid(relay, sdk):
    answer(relay, DONE)
    await sdk.chat.completions.create(**ASKED)
    async for _ in await sdk.chat.completions.create(**ASKED, stream=True):
        pass
    assert [request.can_unsay for request in relay.dispatcher.requests] == [True, False]


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (Code.PROVIDERS_EXHAUSTED, 503, "providers_exhausted"),
        (Code.CONTENT_POLICY, 400, "content_policy_violation"),
        (Code.CONTEXT_LENGTH, 400, "context_length_exceeded"),
        (Code.PROVIDER_RATE_LIMITED, 429, "provider_rate_limited"),
    ],
)
async def test_in_one_piece_a_failure_is_a_status(relay, sdk, code, status, said):
    answer(relay, Failed(code, "why", True, retry_after=2.5))
    with pytest.raises(openai.APIStatusError, match="why") as caught:
        await sdk.chat.completions.create(**ASKED)
    assert (caught.value.status_code, caught.value.code) == (status, said)
    assert caught.value.response.headers["retry-after"] == "3"


# Tools


async def test_tools_go_both_ways(relay, sdk):
    calls = (ToolCall("c1", "look", {"at": "ö"}, "sig"), ToolCall("c2", "look", {}))
    answer(relay, Text("Let me see."), *calls, done(FinishReason.TOOL_CALLS))
    asked = ASKED | {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
    }
    whole = await sdk.chat.completions.create(**asked)
    made = whole.choices[0].message.tool_calls
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in made] == [
        ("c1", "look", {"at": "ö"}),
        ("c2", "look", {}),
    ]
    assert whole.choices[0].finish_reason == "tool_calls"
    chunks = [c async for c in await sdk.chat.completions.create(**asked, stream=True)]
    deltas = [call for c in chunks for call in c.choices[0].delta.tool_calls or []]
    assert [(d.index, d.id, d.type, d.function.arguments) for d in deltas] == [
        (0, "c1", "function", '{"at":"ö"}'),
        (1, "c2", "function", "{}"),
    ]
    answer(relay, Text("I see."), DONE)
    results = [{"role": "tool", "tool_call_id": id, "content": "nothing"} for id in ("c1", "c2")]
    await sdk.chat.completions.create(
        model="gpt", messages=[*HELLO, whole.choices[0].message, *results], tools=[TOOL]
    )
    first, *_, last = relay.dispatcher.requests
    assert first.tools == (OfferedTool("look", "Looks.", {"type": "object"}),)
    assert (first.tool_choice, last.tool_choice) == ("look", "auto")
    assert last.messages == (
        Turn("user", "Hello!"),
        Turn(
            "assistant",
            "Let me see.",
            (ToolCall("c1", "look", {"at": "ö"}, "sig"), ToolCall("c2", "look", {})),
        ),
        Turn("tool", "nothing", call_id="c1"),
        Turn("tool", "nothing", call_id="c2"),
    )


async def test_an_answer_of_calls_alone_has_no_content(relay, sdk):
    answer(relay, ToolCall("c1", "look", {}), done(FinishReason.TOOL_CALLS))
    whole = await sdk.chat.completions.create(**ASKED, tools=[TOOL])
    assert whole.choices[0].message.content is None


# What is asked


async def test_every_field_that_matters_reaches_the_dispatcher(relay, sdk):
    answer(relay, DONE)
    await sdk.chat.completions.create(
        model="gpt",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                    {"type": "image_url", "image_url": {"url": "https://x.example/a.webp?b=c"}},
                    {"type": "image_url", "image_url": {"url": "https://x.example/a"}},
                ],
            },
        ],
        max_completion_tokens=77,
        stop="END",
        temperature=0.1,
        top_p=0.5,
        seed=3,
        presence_penalty=1,
        logit_bias={"1": 2},
        user="u",
        extra_body={"top_k": 4, "min_p": {"any": "thing"}},
    )
    (request,) = relay.dispatcher.requests
    assert (request.provider, request.max_tokens, request.stop) == ("gpt", 77, ("END",))
    assert request.messages == (
        Turn("system", "Be brief."),
        Turn(
            "user",
            (
                TextContent("What is this?"),
                ImageContent("image/png", data="QUJD"),
                ImageContent("image/webp", url="https://x.example/a.webp?b=c"),
                ImageContent("image/jpeg", url="https://x.example/a"),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:x"}}],
                    }
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"n": 2}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"stop": 5}, "stop"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        (
            {
                "messages": [
                    *HELLO,
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "id": "c",
                                "type": "function",
                                "function": {"name": "f", "arguments": "{"},
                            }
                        ],
                    },
                ]
            },
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)
async def test_a_wrong_field_is_400_and_named(relay, fields, param):
    async with client(relay) as sender:
        said = json.loads(await sender.ask("POST", "/v1/chat/completions", ASKED | fields))["error"]
    assert (sender.status, said["type"], said["param"]) == (400, "invalid_request_error", param)
    assert param in said["message"]
    assert relay.dispatcher.requests == []


async def test_bad_json_is_400(relay):
    async with client(relay) as sender:
        said = json.loads(await sender.ask("POST", "/v1/chat/completions", b"{"))["error"]
    assert (sender.status, said["type"]) == (400, "invalid_request_error")


async def test_an_unknown_model_is_404_model_not_found(sdk):
    for streamed in (False, True):
        with pytest.raises(openai.NotFoundError) as caught:
            await sdk.chat.completions.create(model="gpt-nope", messages=HELLO, stream=streamed)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("refusal", "raised"),
    [
        (RelayError(Code.DRAINING, "going"), openai.InternalServerError),
        (RelayError(Code.RATE_LIMITED, "slow"), openai.RateLimitError),
        (RelayError(Code.BAD_REQUEST, "tools: not on this route"), openai.BadRequestError),
    ],
)
async def test_a_refused_chat_raises_what_the_sdk_has_for_it(relay, sdk, refusal, raised):
    relay.dispatcher.refusal = refusal
    with pytest.raises(raised, match=refusal.message):
        await sdk.chat.completions.create(**ASKED, stream=True)


async def test_models_are_the_providers_and_routes(sdk):
    assert [model.id async for model in sdk.models.list()] == ["gpt", "best"]
    assert (await sdk.models.retrieve("best")).owned_by == "relay"
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("nope")


# A client that leaves


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_cancels_the_answer_at_once(relay, streamed):
    cancelled = asyncio.Event()
    async with client(relay) as sender:
        sender.send("POST", "/v1/chat/completions", ASKED | {"stream": streamed})
        writer = await relay.started()
        writer.on_cancel(cancelled.set)
        await until(lambda: writer.unread_since is None)
    async with asyncio.timeout(PATIENCE):
        await cancelled.wait()
    assert writer.unread_since is not None


async def test_a_client_that_reads_to_the_end_cancels_nothing(relay, sdk):
    cancelled = []
    for streamed in (True, False):
        relay.dispatcher.on_start = lambda writer: (
            writer.on_cancel(lambda: cancelled.append(True)),
            writer.append([Text("hi"), DONE]),
        )
        made = await sdk.chat.completions.create(**ASKED, stream=streamed)
        if streamed:
            assert [chunk async for chunk in made][-1].choices[0].finish_reason == "stop"
    await until(lambda: all(writer.unread_since is not None for writer in relay.dispatcher.writers))
    assert cancelled == []
    assert not any(writer.cancel_wanted for writer in relay.dispatcher.writers)
