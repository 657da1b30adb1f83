"""The Python client of the chat relay, built on `websockets`.

    from relay.client import RelayClient

    async with RelayClient("ws://127.0.0.1:3050/ws") as relay:
        async for event in relay.chat("Why is the sky blue?"):
            if isinstance(event, Text):
                print(event.text, end="")

After a dropped connection an answer continues where it broke: nothing missing, nothing twice.
`relay chat --help` is the same from a terminal.
"""

from relay.client.answer import (
    Answer,
    AnswerFailed,
    ClientError,
    ConnectionFailed,
    Done,
    Event,
    Fallback,
    Reasoning,
    Start,
    Text,
    ToolCall,
)
from relay.client.chat import Chat
from relay.client.client import RelayClient, Status

__all__ = [
    "Answer",
    "AnswerFailed",
    "Chat",
    "ClientError",
    "ConnectionFailed",
    "Done",
    "Event",
    "Fallback",
    "Reasoning",
    "RelayClient",
    "Start",
    "Status",
    "Text",
    "ToolCall",
]
