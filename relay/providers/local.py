"""The embedded model as a provider: OpenAI's wire, spoken to a child process.

What is special about it is handled here: the child must be ready before a call, old turns are left
out because it reads slowly, and what it can't do (images, tools) is refused or left out.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Protocol

from msgspec import structs

from relay.core.errors import Code, Fault
from relay.core.provider import Call, Caller, Form, Provider, Take, UpstreamCall
from relay.core.request import ChatRequest, ImageContent
from relay.engine.process import Engine, EngineEndpoint, EngineFailed
from relay.engine.window import PROMPT_CHARACTERS, recent
from relay.providers.awaited import AwaitedCalls, begin_and_wait

MAYBE_A_CRASH = frozenset({Code.PROVIDER_INTERRUPTED, Code.PROVIDER_ERROR})
SYSTEM = "You are a helpful assistant."
"""The system prompt for a chat without one. The model's own template would add a longer one, with
which it answers simple questions wrong or in French."""
URL = "http://localhost/v1"
"""The engine's API. The host is a placeholder: the connection goes to a Unix socket."""


class EngineLike(Protocol):
    """What the provider needs of an engine: an `Engine`, or one that another process runs."""

    def start(self) -> None:
        """Start it in the background, unless that was done."""
        ...

    async def ready(self) -> EngineEndpoint:
        """Wait until it takes calls. Raises `EngineFailed`."""
        ...

    async def settled(self) -> None:
        """Wait until it is known whether it is still running."""
        ...

    async def close(self) -> None:
        """Stop it, if the caller owns it."""
        ...


class LocalProvider:
    """The offline demo model: no key, no network, one child process.

    Call `start` when the server starts, so that the model is loaded before the first chat.
    `engine` is closed with the provider.
    """

    def __init__(self, engine: EngineLike | None = None) -> None:
        self.name = "local"
        self._engine: EngineLike = engine or Engine()
        self._wire: Provider | None = None
        self._awaited = AwaitedCalls()
        self._warming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load the model and the SDK in the background. Needs a running loop. Failures
        are ignored; the calls will report them."""
        self._warming = self._warming or asyncio.create_task(self.warm(""), name="local-warm")

    def forms(self, model: str) -> tuple[Form, ...]:
        """The ways to continue an unfinished answer: llama.cpp goes on with an assistant turn as
        if it had written it."""
        return (Form.PREFILL, Form.RESTART)

    def begin(self, call: Call, caller: Caller) -> UpstreamCall:
        """Make a call; it waits while the engine starts. If the engine crashes, the call ends in
        `Fault(PROVIDER_INTERRUPTED)`, and the next call starts the engine again."""
        return self._awaited.begin(partial(self._learn_then_begin, call), caller)

    async def warm(self, model: str) -> None:
        """Load the model and the SDK."""
        with contextlib.suppress(Fault):
            await self._ready()

    async def probe(self) -> None:
        """Ask for the list of models; starts the engine if it is not running. Raises `Fault`."""
        wire = await self._ready()
        await wire.probe()

    async def close(self) -> None:
        """Stop the child process, even in the middle of an answer. Idempotent."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait([self._warming])
        await self._awaited.close()
        if self._wire is not None:
            await self._wire.close()
        await self._engine.close()

    async def _learn_then_begin(self, call: Call, take: Take) -> None:
        request = legible(call.request)
        wire = await self._ready()
        try:
            await begin_and_wait(wire, structs.replace(call, request=request), take)
        except Fault as fault:
            if fault.code in MAYBE_A_CRASH:
                await self._engine.settled()
            raise

    async def _ready(self) -> Provider:
        try:
            endpoint = await self._engine.ready()
        except EngineFailed as failure:
            raise Fault(Code.PROVIDER_ERROR, str(failure), remedy="fallback") from None
        if self._wire is None:
            # In a thread, because the SDK's import takes up to a second.
            wire = await asyncio.to_thread(_connect, self.name, endpoint)
            self._wire = self._wire or wire
        return self._wire


def _connect(name: str, endpoint: EngineEndpoint) -> Provider:
    from relay.providers.openai.provider import compatible

    return compatible(name, endpoint.api_key, URL, endpoint.socket, prefill=True)


def legible(request: ChatRequest) -> ChatRequest:
    """The part of a request that the embedded model can read: its newest turns, without tools.

    A request without a system prompt gets `SYSTEM`. Offered tools are left out, as if the model
    had chosen to call none. Raises `Fault(BAD_REQUEST)` if a call is required, or if a turn that
    is kept holds an image; another target may be able to answer.
    """
    if request.tools and request.tool_choice not in ("auto", "none"):
        raise _beyond("can't call tools: set tool_choice to auto")
    room = PROMPT_CHARACTERS - len(request.system or "")
    messages = recent(request.messages, room)
    parts = [part for message in messages for part in message.content]
    if any(isinstance(part, ImageContent) for part in parts):
        raise _beyond("can't see images: leave them out")
    prompted = request.system or any(message.role == "system" for message in messages)
    system = request.system if prompted else SYSTEM
    return structs.replace(request, system=system, messages=messages, tools=(), tool_choice="auto")


def _beyond(what: str) -> Fault:
    message = f"the embedded demo model {what}, or ask another provider"
    return Fault(Code.BAD_REQUEST, message, remedy="fallback")
