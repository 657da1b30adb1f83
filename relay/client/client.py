"""The client: carries out what `relay.client.session` decides, with real sockets and clocks."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Literal

from websockets.exceptions import InvalidStatus

from relay.client.answer import Answer, ClientError, ConnectionFailed, Frame
from relay.client.chat import Chat
from relay.client.session import (
    NOT_CONNECTED,
    CloseLink,
    LinkId,
    OpenLink,
    Problem,
    Ready,
    SendOnLink,
    Session,
    SessionAction,
    Stop,
    Tell,
    after_close,
    backoff,
    close_error,
)
from relay.client.transport import (
    CLOSE_TIMEOUT,
    DEFAULT_HEARTBEAT,
    Socket,
    close_code_of,
    refusal_of,
    retry_after_of,
    websocket_url,
)

DEFAULT_URL = "ws://127.0.0.1:3050/ws"
"""A relay's default address."""

GIVE_UP_AFTER = 60.0
"""Seconds without a connection after which running chats fail."""


NOT_RELAY = 4406
"""The close code used for a server whose frames can't be understood."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the connection: `waiting` before a try (`delay` seconds), `connecting`,
    `online`, `stopped` (`failure` says why; the next chat connects again)."""

    state: Literal["waiting", "connecting", "online", "stopped"]
    delay: float = 0.0
    failure: ClientError | None = None


class RelayClient:
    """A client of one relay: `async with RelayClient(url) as relay`.

    Entering connects, and raises `ConnectionFailed` if no relay answers. Later a dropped
    connection is made again, and every chat continues where it broke; after `give_up_after`
    seconds without a connection chats raise `ConnectionFailed` (None: never). Leaving closes the
    connections; running answers go on at the relay for its grace period. `session` is the secret
    of a session to resume. `on_status` is called with each `Status`, and `on_problem` with errors
    of the relay that belong to no chat.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        session: str | None = None,
        give_up_after: float | None = GIVE_UP_AFTER,
        on_status: Callable[[Status], None] | None = None,
        on_problem: Callable[[ClientError], None] | None = None,
    ) -> None:
        self.url = websocket_url(url)
        self.ready: Frame | None = None
        self._session = Session(session or secrets.token_urlsafe(24), token)
        self._give_up_after = give_up_after
        self._on_status = on_status or (lambda status: None)
        self._on_problem = on_problem or (lambda failure: None)
        self._chats: dict[str, Chat] = {}
        self._sockets: dict[LinkId, Socket] = {}
        self._links = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._carriers: set[asyncio.Task[None]] = set()
        self._fresh = True
        self._closing = False
        self._down_since: float | None = None
        self._entered: asyncio.Future[None] | None = None

    @property
    def session(self) -> str:
        """The session's secret. Another client can resume the session with it."""
        return self._session.secret

    @property
    def providers(self) -> list[dict[str, Any]]:
        """The relay's providers, its default first: `{name, model, status}` each."""
        return list((self.ready or {}).get("providers", ()))

    def chat(
        self,
        messages: str | Sequence[dict[str, Any]],
        *,
        provider: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | None = None,
        conversation: str | None = None,
        fallback: bool | None = None,
        id: str | None = None,
    ) -> Chat:
        """Send a chat; the fields are those of the `chat` frame. A string is one user message.
        Raises `ValueError` if a chat with this id is running."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        fields = {
            "messages": list(messages),
            "provider": provider,
            "system": system,
            "max_tokens": max_tokens,
            "stop": None if stop is None else list(stop),
            "tools": None if tools is None else list(tools),
            "tool_choice": tool_choice,
            "conversation": conversation,
            "fallback": fallback,
        }
        request = {name: value for name, value in fields.items() if value is not None}
        answer = Answer(id or secrets.token_urlsafe(12), request)
        actions = self._session.add(answer)
        chat = self._chats[answer.id] = Chat(answer, self._cancel)
        self._do(actions)
        return chat

    async def __aenter__(self) -> RelayClient:
        self._entered = asyncio.get_running_loop().create_future()
        self._do(self._session.connect())
        try:
            await self._entered
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        """Close open connections in order, and cancel those not opened yet."""
        self._closing = True
        for socket in self._sockets.values():
            socket.close()
        for task in self._tasks - self._carriers:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT + 1)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._do(self._session.give_up(ConnectionFailed("unreachable", "the client was closed")))

    def _cancel(self, id: str) -> None:
        self._do(self._session.cancel(id))

    def _do(self, actions: list[SessionAction]) -> None:
        for action in actions:
            self._perform(action)

    def _perform(self, action: SessionAction) -> None:
        match action:
            case SendOnLink(link, frame):
                if link in self._sockets:
                    self._sockets[link].send(frame)
            case Tell(answer, event):
                chat = self._chats.pop(answer.id) if answer.finished else self._chats[answer.id]
                chat.tell(event)
            case OpenLink():
                self._open_later(action)
            case CloseLink(link):
                self._sockets[link].close()
            case Ready(frame):
                self._is_ready(frame)
            case Problem(failure):
                self._on_problem(failure)
            case Stop(_, failure):
                self._stopped(failure)

    def _is_ready(self, frame: Frame) -> None:
        self.ready = frame
        self._down_since = None
        self._on_status(Status("online"))
        if self._entered is not None and not self._entered.done():
            self._entered.set_result(None)

    def _stopped(self, failure: ClientError) -> None:
        self._fresh = True
        self._on_status(Status("stopped", failure=failure))
        if self._entered is not None and not self._entered.done():
            if not isinstance(failure, ConnectionFailed):
                failure = ConnectionFailed(failure.code, failure.message, frame=failure.frame)
            self._entered.set_exception(failure)

    def _open_later(self, action: OpenLink) -> None:
        if self._closing:
            return
        delay = 0.0 if self._fresh else action.delay
        self._fresh = False
        if delay is None:
            delay = backoff(action.attempt, random.random())  # noqa: S311 - jitter only
            self._on_status(Status("waiting", delay=delay))
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
        task = asyncio.create_task(self._connect(delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, delay: float) -> None:
        await asyncio.sleep(delay)
        link = next(self._links)
        self._on_status(Status("connecting"))
        try:
            socket = await Socket.open(self.url)
        except Exception as error:  # whatever the error is, the waiting callers must get it
            self._not_connected(link, error)
            return
        code = await self._carry(link, socket)
        self._do(self._session.closed(link, code))

    async def _carry(self, link: LinkId, socket: Socket) -> int:
        task = asyncio.current_task()
        assert task is not None
        self._sockets[link] = socket
        self._carriers.add(task)
        try:
            self._do(self._session.opened(link))
            return await socket.run(lambda frame: self._received(link, frame))
        except (KeyError, TypeError, AttributeError):
            return NOT_RELAY
        finally:
            self._carriers.discard(task)
            del self._sockets[link]

    def _received(self, link: LinkId, frame: Frame) -> None:
        if frame.get("type") == "ready" and link in self._sockets:
            self._sockets[link].expect_heartbeat(frame.get("heartbeat") or DEFAULT_HEARTBEAT)
        self._do(self._session.received(link, frame))

    def _not_connected(self, link: LinkId, error: Exception) -> None:
        code = close_code_of(error)
        failure = _connection_failure(self.url, code, error)
        if self._is_entering() or (self._is_time_to_give_up() and after_close(code) != "stop"):
            self._down_since = None
            self._stopped(failure)
            self._do(self._session.give_up(failure))
        else:
            self._do(self._session.closed(link, code))

    def _is_entering(self) -> bool:
        return self._entered is not None and not self._entered.done()

    def _is_time_to_give_up(self) -> bool:
        if self._give_up_after is None or self._down_since is None:
            return False
        return asyncio.get_running_loop().time() - self._down_since >= self._give_up_after


def _connection_failure(url: str, code: int, error: Exception) -> ConnectionFailed:
    if isinstance(error, InvalidStatus):
        return _refused(url, code, error)
    message = f"no relay answers at {url} ({_reason(error)})"
    return ConnectionFailed("unreachable", message, retryable=True)


def _refused(url: str, code: int, error: InvalidStatus) -> ConnectionFailed:
    """The server answered the handshake with something other than a WebSocket."""
    response = error.response
    passing = after_close(code) != "stop"
    if told := refusal_of(response):
        name, message = told
    elif code == NOT_CONNECTED:
        name = "unreachable"
        message = f"the server at {url} answered {response.status_code} to the WebSocket handshake"
    else:
        name, message = close_error(code).code, close_error(code).message
    wait = retry_after_of(response)
    return ConnectionFailed(name, message, retryable=passing, retry_after=wait)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error) or type(error).__name__
