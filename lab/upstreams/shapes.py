"""Irregular data that servers and the gateways in front of them were seen to send.

Bytes of a body on the wire named first (`openai`, `anthropic`, `gemini`): the same irregularity on
each wire on which it can occur.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

WORD = "WORD"
"""A placeholder in an event, for JSON that is inserted unescaped."""


def event(value: object) -> bytes:
    """A JSON value as an event without a name, with everything beyond ASCII escaped."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def says(wire: str, text: object) -> bytes:
    """One event that carries `text`, a JSON value of any type, in its text field."""
    match wire:
        case "openai":
            return event({"choices": [{"index": 0, "delta": {"content": text}}]})
        case "anthropic":
            delta = {"type": "text_delta", "text": text}
            return event({"type": "content_block_delta", "index": 0, "delta": delta})
    return event({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}]})


def literally(wire: str, text: str) -> bytes:
    """The same with `text` as raw JSON: a number as it is written, a bare tab."""
    return says(wire, WORD).replace(f'"{WORD}"'.encode(), text.encode())


def ends(wire: str, reason: object) -> bytes:
    """The event that carries the finish reason, without the end marker."""
    match wire:
        case "openai":
            return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        case "anthropic":
            return event({"type": "message_delta", "delta": {"stop_reason": reason}})
    return event({"candidates": [{"content": {"parts": []}, "finishReason": reason}]})


def counts(wire: str, usage: object) -> bytes:
    """An event whose usage is `usage`."""
    match wire:
        case "openai":
            return event({"choices": [], "usage": usage})
        case "anthropic":
            return event({"type": "message_delta", "delta": {}, "usage": usage})
    return event({"candidates": [], "usageMetadata": usage})


def counted(wire: str, read: object, written: object) -> dict[str, object]:
    """The usage with these token counts, each of any type."""
    names = {
        "openai": ("prompt_tokens", "completion_tokens"),
        "anthropic": ("input_tokens", "output_tokens"),
        "gemini": ("promptTokenCount", "candidatesTokenCount"),
    }[wire]
    return dict(zip(names, (read, written), strict=True))


def calls(wire: str, *pieces: Mapping[str, Any]) -> bytes:
    """One event with pieces of tool calls, all under index 0: each has `name`, `arguments`
    (JSON text) and perhaps an `id`. On Anthropic's wire each is a block of its own."""
    match wire:
        case "openai":
            return event(
                {"choices": [{"index": 0, "delta": {"tool_calls": [*map(_piece, pieces)]}}]}
            )
        case "anthropic":
            return b"".join(_block(piece) for piece in pieces)
    parts = [
        {"functionCall": {"name": piece["name"], "args": json.loads(piece["arguments"])}}
        for piece in pieces
    ]
    return event({"candidates": [{"content": {"role": "model", "parts": parts}}]})


def grows(wire: str, arguments: str) -> bytes:
    """More of the arguments of the call at index 0, in a separate event."""
    if wire == "openai":
        piece = {"index": 0, "function": {"arguments": arguments}}
        return event({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]})
    delta = {"type": "input_json_delta", "partial_json": arguments}
    return event({"type": "content_block_delta", "index": 0, "delta": delta})


def whole(wire: str, model: str, text: str, made: Sequence[tuple[str, dict[str, Any]]] = ()) -> Any:
    """The JSON object of an answer that is not streamed, with `text` and the calls `made`."""
    match wire:
        case "openai":
            return _completion(model, text, made)
        case "anthropic":
            return _message(model, text, made)
    parts: list[dict[str, Any]] = [{"text": text}] if text else []
    parts += [{"functionCall": {"name": name, "args": given}} for name, given in made]
    return {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": counted(wire, 11, 60),
        "modelVersion": model,
    }


def _piece(piece: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": piece.get("name"), "arguments": piece["arguments"]}
    own = {"id": piece["id"]} if "id" in piece else {}
    return {"index": 0, **own, "type": "function", "function": function}


def _block(piece: Mapping[str, Any]) -> bytes:
    block = {"type": "tool_use", "id": piece.get("id", ""), "name": piece["name"], "input": {}}
    begun = event({"type": "content_block_start", "index": 0, "content_block": block})
    more = grows("anthropic", piece["arguments"]) if piece["arguments"] else b""
    return begun + more


def _completion(model: str, text: str, made: Sequence[tuple[str, dict[str, Any]]]) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if made:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
            for name, given in made
        ]
    reason = "tool_calls" if made else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": counted("openai", 11, 60),
    }


def _message(model: str, text: str, made: Sequence[tuple[str, dict[str, Any]]]) -> Any:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    content += [
        {"type": "tool_use", "id": f"toolu_{n}", "name": name, "input": given}
        for n, (name, given) in enumerate(made)
    ]
    return {
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if made else "end_turn",
        "usage": counted("anthropic", 11, 60),
    }
