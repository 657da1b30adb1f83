"""Output for a terminal: a model's text without characters that control the terminal."""

from __future__ import annotations

import json
from typing import TextIO

from relay.client.answer import (
    Answer,
    ClientError,
    Done,
    Event,
    Fallback,
    Reasoning,
    Text,
    ToolCall,
)

_KEPT = "\n\t"
_CONTROLS = {c: None for c in [*range(0x20), *range(0x7F, 0xA0)] if chr(c) not in _KEPT}


def plain(text: str) -> str:
    """`text` without control characters (C0, DEL and C1: escape sequences, carriage returns,
    bells) except newline and tab."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """`text` made fit for use in one line."""
    return " ".join(plain(text).split())


def as_json(told: Event | ClientError) -> str:
    """An event or a failure as one line of ASCII JSON: its frame, as on the wire."""
    return json.dumps(told.frame)


_ADVICE = {
    "unauthorized": "give a valid token with --token or RELAY_TOKEN",
    "unknown_provider": "choose another with --provider; --providers lists them",
    "rate_limited": "wait a moment and ask again",
    "too_many_streams": "wait until another answer has ended and ask again",
    "context_length": "shorten the message, or choose another provider",
    "content_policy": "rephrase the message",
    "providers_exhausted": "wait a moment and ask again, or choose another provider",
    "provider_auth": "check the provider's API key in the relay's settings",
    "draining": "the relay is restarting: ask again in a moment",
    "unreachable": "start the relay (`relay serve` or `make run`), or set its address with --url",
}


def explain(failure: ClientError) -> str:
    """One line that says what went wrong and what to do about it."""
    advice = _ADVICE.get(failure.code, "ask again" if failure.retryable else "")
    if failure.retry_after:
        advice = f"{advice or 'ask again'} (after {failure.retry_after:g} s)"
    line = f"{failure.code}: {failure.message}" if failure.message else failure.code
    return one_line(f"{line} - {advice}" if advice else line)


def footnote(done: Done) -> str:
    """One line: which model answered, how long it took and what it cost."""
    parts = [f"{done.provider} {done.model}".strip() or "no model"]
    if done.finish_reason != "stop":
        parts.append(done.finish_reason)
    if done.timing:
        parts.append(f"{done.timing['total_ms'] / 1000:.1f} s")
    if done.usage:
        about = "~" if done.usage.get("estimated") else ""
        parts.append(f"{about}{done.usage['output_tokens']} tokens")
    if done.cost_usd is not None:
        parts.append(f"${done.cost_usd:.4f}")
    return one_line(" · ".join(parts))


class Printer:
    """Prints a chat's events: text to `out`, everything about it to `err`."""

    def __init__(self, out: TextIO, err: TextIO, *, reasoning: bool = False) -> None:
        self._out = out
        self._err = err
        self._reasoning = reasoning
        self._midline = False
        self._shown = False

    def show(self, event: Event) -> None:
        """Print one event. Raises `BrokenPipeError` if the output is closed."""
        match event:
            case Text(text):
                self._write(self._out, text)
                self._shown = True
            case Reasoning(text) if self._reasoning:
                self._write(self._err, text)
            case ToolCall(_, name, arguments):
                self.note(f"calls {name}({json.dumps(arguments)})")
            case Fallback():
                self._fall_back(event)
            case Done():
                self.note(footnote(event))

    def note(self, line: str) -> None:
        """Print a separate line on `err`."""
        self.end_line()
        print(f"[{one_line(line)}]", file=self._err, flush=True)

    def end_line(self) -> None:
        """End a started line of text."""
        if self._midline:
            self._midline = False
            print(file=self._out, flush=True)

    def _fall_back(self, event: Fallback) -> None:
        other = f"{event.to_provider} {event.to_model}"
        if not event.keep and self._shown:
            self.note(f"{event.reason}: discard the text above, {other} starts over")
            self._shown = False
        else:
            self.note(f"{event.reason}: {other} {'goes on' if self._shown else 'answers'}")

    def _write(self, stream: TextIO, text: str) -> None:
        clean = plain(text)
        stream.write(clean)
        stream.flush()
        if stream is self._out and clean:
            self._midline = not clean.endswith("\n")


class WholePrinter(Printer):
    """Prints the text once, when the answer ended, without text that a fallback discarded."""

    def __init__(self, out: TextIO, err: TextIO, answer: Answer, *, reasoning: bool) -> None:
        super().__init__(out, err, reasoning=reasoning)
        self._answer = answer

    def show(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, Done):
            super().show(Text(self._answer.text))
        if not isinstance(event, Text):
            super().show(event)


class JsonPrinter(Printer):
    """Prints each event as a line of JSON."""

    def show(self, event: Event) -> None:
        """Print one event."""
        print(as_json(event), file=self._out, flush=True)
