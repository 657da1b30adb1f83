"""What a client saw of one answer, and whether it followed the wire's rules.

Written from `protocol.md` alone: the relay is not judged by its own code.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

Frame = dict[str, Any]


@dataclass
class Seen:
    """One answer as a client sees it. Times are of the monotonic clock. `misses` are violations of
    the wire's rules."""

    asked_at: float = field(default_factory=time.monotonic)
    text: str = ""
    reasoning: str = ""
    calls: list[Frame] = field(default_factory=list)
    fallbacks: list[Frame] = field(default_factory=list)
    model: str | None = None
    terminal: Frame | None = None
    stream: str = ""
    first_text_at: float | None = None
    ended_at: float | None = None
    misses: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds from the question to the end."""
        return (self.ended_at or time.monotonic()) - self.asked_at

    @property
    def code(self) -> str | None:
        """The error's code, if the answer ended in one."""
        ended = self.terminal or {}
        return ended.get("code") if ended.get("type") == "error" else None

    @property
    def finish(self) -> str | None:
        """The finish reason, if the answer ended well."""
        return (self.terminal or {}).get("finish_reason")

    def begin(self) -> None:
        """The question was sent."""
        self.asked_at = time.monotonic()

    def miss(self, what: str) -> None:
        """Record a violation."""
        self.misses.append(what)

    def add_text(self, text: str) -> None:
        """Add a piece of the answer."""
        if self.terminal is not None:
            self.miss("text after the terminal frame")
        if self.first_text_at is None:
            self.first_text_at = time.monotonic()
        self.text += text

    def end(self, terminal: Frame) -> None:
        """Take the terminal frame."""
        if self.terminal is not None:
            self.miss("a second terminal frame")
        self.terminal = terminal
        self.ended_at = time.monotonic()


class FrameReader:
    """Collects the frames of `relay.v1`, over any transport."""

    def __init__(self, seen: Seen, id: str) -> None:
        self.seen = seen
        self._id = id
        self.last = -1

    def take(self, frame: Frame) -> None:
        """Take one frame of the stream."""
        seen = self.seen
        if seen.terminal is not None:
            seen.miss(f"{frame.get('type')} after the terminal frame")
        if frame.get("id") != self._id:
            seen.miss(f"a frame of {frame.get('id')!r}")
        self._count(frame)
        match frame["type"]:
            case "start":
                seen.stream, seen.model = frame["stream"], frame["model"]
            case "token":
                seen.add_text(frame["text"])
            case "reasoning":
                seen.reasoning += frame["text"]
            case "tool_call":
                seen.calls.append(frame)
            case "fallback":
                self._fall_back(frame)
            case "done" | "error":
                seen.end(frame)
            case other:
                seen.miss(f"a frame of type {other!r}")

    def _count(self, frame: Frame) -> None:
        seq = frame.get("seq")
        if seq is None:
            self.seen.miss(f"refused: {frame.get('code')}: {frame.get('message')}")
            return
        first = frame.get("first", seq)
        if first != self.last + 1 or seq < first:
            self.seen.miss(f"seq {first}..{seq} after {self.last}")
        self.last = seq

    def _fall_back(self, frame: Frame) -> None:
        seen = self.seen
        seen.fallbacks.append(frame)
        if frame["from"]["model"] != seen.model:
            seen.miss(f"fallback from {frame['from']['model']}, not from {seen.model}")
        seen.model = frame["to"]["model"]
        if not frame["keep"]:
            seen.text = seen.reasoning = ""


_OPENAI_WORDS = {
    "content_policy_violation": "content_policy",
    "context_length_exceeded": "context_length",
}
"""OpenAI's own names for two of the codes."""


class ChunkReader:
    """Collects the chunks of OpenAI's chat.completions. An answer is whole only with its finish
    reason and `[DONE]`."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self._finish: Frame | None = None
        self._calls: dict[int, Frame] = {}

    def take(self, chunk: Frame) -> None:
        """Take one chunk."""
        if self.seen.terminal is not None:
            self.seen.miss("a chunk after the end")
        if "error" in chunk:
            error = chunk["error"]
            code = _OPENAI_WORDS.get(error["code"], error["code"])
            self.seen.end({"type": "error", "code": code, "message": error["message"]})
            return
        self.seen.model = chunk["model"]
        if usage := chunk.get("usage"):
            assert self._finish is not None, "usage before the finish reason"
            self._finish["usage"] = usage
        for choice in chunk["choices"]:
            self._choice(chunk, choice)

    def done(self) -> None:
        """`[DONE]`."""
        if self._finish is None:
            self.seen.miss("[DONE] without a finish reason")
        for call in self._calls.values():
            self.seen.calls.append({**call, "arguments": json.loads(call["arguments"])})
        self.seen.end(self._finish or {"type": "done"})

    def _choice(self, chunk: Frame, choice: Frame) -> None:
        delta = choice["delta"]
        if self._finish is not None and delta:
            self.seen.miss("a delta after the finish reason")
        if delta.get("content"):
            self.seen.add_text(delta["content"])
        self.seen.reasoning += delta.get("reasoning_content") or ""
        for call in delta.get("tool_calls", ()):
            held = self._calls.setdefault(call["index"], {"name": "", "arguments": ""})
            held.setdefault("call_id", call.get("id"))
            held["name"] += call["function"].get("name") or ""
            held["arguments"] += call["function"].get("arguments") or ""
        if choice.get("finish_reason"):
            self._finish = {
                "type": "done",
                "finish_reason": choice["finish_reason"],
                "model": chunk["model"],
            }
