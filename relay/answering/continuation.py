"""Builds the upstream call of an attempt: the chat alone, or with an unfinished answer to
continue."""

from __future__ import annotations

import msgspec

from relay.core.events import estimate_tokens
from relay.core.provider import Call, Form
from relay.core.request import ChatRequest, Turn
from relay.failover.plan import Launch

CONTINUATION_PROMPT = (
    "Your last message was cut off. Begin with its last few words exactly as they stand, then "
    "go straight on from there, in the same language, voice and format. Explain nothing, do "
    "not mention the interruption."
)
"""The user turn that asks a model to go on. It is the last turn, so that the system prompt stays as
the client or the operator wrote it. The repeated words are removed again: they show where the
answer was cut, inside a word or between two."""


def continued(request: ChatRequest, form: Form, partial: str, prompt: str) -> ChatRequest:
    """The request with the turns that offer `partial` in the given form."""
    if form is Form.RESTART or not partial:
        return request
    turns = [Turn("assistant", partial)]
    if form is Form.TURN:
        turns.append(Turn("user", prompt))
    return msgspec.structs.replace(request, messages=(*request.messages, *turns))


REPEATED_TOKENS = 32
"""Tokens that a continuation may use beyond the rest of `max_tokens`: it repeats the last words
first, and the count of tokens shown is an estimate."""


def call_of(request: ChatRequest, launch: Launch, max_tokens: int, prompt: str) -> Call:
    """The upstream call that an attempt makes. `max_tokens` is the route's cap."""
    form = launch.form if launch.partial else Form.RESTART
    asked = min(request.max_tokens or max_tokens, max_tokens)
    shown = 0 if form is Form.RESTART else estimate_tokens(len(launch.partial))
    return Call(
        model=launch.target.model,
        request=continued(request, form, launch.partial, prompt),
        max_tokens=min(asked, max(asked - shown, 0) + REPEATED_TOKENS),
        form=form,
    )
