"""Ready-made scripts: whole answers, and the ways in which they break."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from lab.upstreams.request import Request
from lab.upstreams.steps import (
    Counts,
    End,
    Finish,
    Hang,
    Reason,
    Refuse,
    Reset,
    Step,
    Token,
)

Script: TypeAlias = Sequence[Step] | Callable[[Request], Sequence[Step]]


def answer(*tokens: str, reason: Reason = "stop", counts: Counts | None = None) -> list[Step]:
    """A whole answer with usage and end marker. `counts` defaults to one token per piece."""
    usage = counts or Counts(output=len(tokens))
    return [*map(Token, tokens), usage, Finish(reason), End()]


def cut_after(*tokens: str) -> list[Step]:
    """An answer whose connection is reset after `tokens`."""
    return [*map(Token, tokens), Reset()]


def stalls_after(*tokens: str) -> list[Step]:
    """An answer that stops after `tokens`, with the connection left open."""
    return [*map(Token, tokens), Hang()]


def in_turn(*scripts: Script) -> Callable[[Request], Sequence[Step]]:
    """The n-th request gets the n-th script, all later ones the last."""

    def script(request: Request) -> Sequence[Step]:
        chosen = scripts[min(request.number, len(scripts) - 1)]
        return chosen(request) if callable(chosen) else chosen

    return script


def continues(*tokens: str, overlap: int = 0) -> Callable[[Request], Sequence[Step]]:
    """A model that continues an unfinished assistant turn: it sends the rest of the answer
    `tokens`, after repeating the turn's last `overlap` characters. Without such a turn it sends
    the whole answer."""
    whole = "".join(tokens)

    def script(request: Request) -> Sequence[Step]:
        partial = request.partial
        if not partial or not whole.startswith(partial):
            return answer(*tokens)
        return answer(*_pieces(tokens, max(0, len(partial) - overlap)))

    return script


def starts_over(*tokens: str) -> Callable[[Request], Sequence[Step]]:
    """A model that answers from the beginning, whatever turn it gets."""
    return lambda request: answer(*tokens)


def refuses_prefill(script: Script) -> Callable[[Request], Sequence[Step]]:
    """A model that refuses, with status 400, a conversation that ends in an assistant turn, and
    otherwise follows `script`."""

    def guarded(request: Request) -> Sequence[Step]:
        if request.turns and request.turns[-1].role == "assistant":
            return [Refuse("prefill")]
        return script(request) if callable(script) else script

    return guarded


def _pieces(tokens: Sequence[str], skip: int) -> list[str]:
    left: list[str] = []
    for token in tokens:
        left.append(token[skip:])
        skip = max(0, skip - len(token))
    return [piece for piece in left if piece]
