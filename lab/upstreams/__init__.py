"""Loopback servers that speak OpenAI's, Anthropic's and Gemini's real wires, as scripted.

    async with Upstream(answer("Hello", " world")) as up:
        provider = build("openai", name="gpt", api_key="k", base_url=up.base_url("openai"))
        ...
        assert up.requests[0].body["model"] == "gpt-6-luna"

One `Upstream` speaks all wires: the request's path decides, so one script serves every
vendor. A script is a sequence of steps (the same for every request), or a function from
`Request` to steps; `in_turn` gives each request its own. See `steps` for the steps,
`scripts` for ready-made answers and faults, `wires` for the bytes.
"""

from lab.upstreams.request import Request
from lab.upstreams.scripts import (
    answer,
    continues,
    cut_after,
    in_turn,
    refuses_prefill,
    stalls_after,
    starts_over,
)
from lab.upstreams.server import Upstream
from lab.upstreams.steps import (
    Call,
    Close,
    Counts,
    End,
    Finish,
    Garbage,
    Hang,
    InBandError,
    Pause,
    Raw,
    Refuse,
    Reset,
    Respond,
    Step,
    Thought,
    Token,
)

__all__ = [
    "Call",
    "Close",
    "Counts",
    "End",
    "Finish",
    "Garbage",
    "Hang",
    "InBandError",
    "Pause",
    "Raw",
    "Refuse",
    "Request",
    "Reset",
    "Respond",
    "Step",
    "Thought",
    "Token",
    "Upstream",
    "answer",
    "continues",
    "cut_after",
    "in_turn",
    "refuses_prefill",
    "stalls_after",
    "starts_over",
]
