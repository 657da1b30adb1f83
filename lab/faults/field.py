"""V01 to V15: irregular data that vendors, and the gateways in front of them, were seen to send.

None of it is in a vendor's documents. The faults show which of it breaks an answer, which is
harmless, which calls belong together, and which refusals another target may not make.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lab.faults.canon import ARGUMENTS, CALL, TEXT, TOKENS, goes_on, spoken, whole
from lab.faults.matrix import Profile
from lab.faults.scenario import Check, Fault, Played, Scenario
from lab.upstreams import shapes
from lab.upstreams.request import Request
from lab.upstreams.scripts import Script
from lab.upstreams.steps import (
    Counts,
    End,
    Finish,
    Pause,
    Raw,
    Respond,
    Step,
    Thought,
    Token,
)

Odd = Callable[[str], bytes]
"""The bytes of an irregularity on a wire (`openai`, `anthropic`, `gemini`)."""

Make = Callable[[Profile, str], Scenario]
HALF = spoken(TOKENS[:30])
ONCE = (1, 1)
NEVER = (0, 0)
TWICE = (1, 2)
"""A target that fails in the same way each time is not asked more often than this."""


def _same(data: bytes) -> Odd:
    """An irregularity that is the same on every wire."""
    return lambda wire: data


def _event(value: object) -> Odd:
    return _same(shapes.event(value))


def _reason(reason: object) -> Odd:
    return lambda wire: shapes.ends(wire, reason)


def _with(before: Sequence[Step], odd: Odd, *after: Step, size: int = 0) -> Script:
    """A script of `before`, the irregularity, `after`; `size` cuts the irregularity into reads of
    so many bytes."""

    def script(request: Request) -> list[Step]:
        data = odd(request.vendor)
        step = size or len(data)
        reads = [data[at : at + step] for at in range(0, len(data), step)]
        said = [each for read in reads for each in (Raw(read), Pause(0))]
        return [*(before or [Counts()]), *said, *after]

    return script


def _breaks(odd: Odd, before: Sequence[Step] = HALF, *, size: int = 0, **rules: Any) -> Make:
    """The answer breaks there although an end marker follows; another target continues it."""
    primary = _with(before, odd, End(), size=size)
    said = any(isinstance(step, Token) for step in before)

    def make(p: Profile, vendor: str) -> Scenario:
        limits = {"primary": ONCE if said else TWICE, "fallback": ONCE}
        given = {"attempts": limits, "continued": said, **rules}
        return Scenario({"primary": primary, "fallback": goes_on()}, **given)

    return make


def _for_ever(odd: Odd) -> Make:
    """Every target breaks there, every time."""
    script = _with(HALF, odd, End())

    def make(p: Profile, vendor: str) -> Scenario:
        return Scenario(
            {"primary": script, "fallback": script},
            outcome="error",
            code="providers_exhausted",
            attempts={"primary": TWICE, "fallback": TWICE},
        )

    return make


def _costs_nothing(primary: Script, text: str = TEXT, **rules: Any) -> Make:
    """The first target gives the whole answer in one call."""

    def make(p: Profile, vendor: str) -> Scenario:
        return Scenario(
            {"primary": primary, "fallback": whole()},
            text=text,
            by=("primary",),
            attempts={"primary": ONCE, "fallback": NEVER},
            **rules,
        )

    return make


def _reads(odd: Odd, text: str = TEXT, after: Sequence[Step] = (), **rules: Any) -> Make:
    """The irregularity is in the middle of a good answer, whose whole text is `text`."""
    rest = after or whole(TOKENS[30:])
    return _costs_nothing(_with(HALF, odd, *rest), text, **rules)


def _filtered(odd: Odd) -> Make:
    """The answer ends there because the vendor's filter stopped it."""
    return _costs_nothing(_with(HALF, odd, End()), "".join(TOKENS[:30]), outcome="filtered")


def _calls(made: Sequence[tuple[str, dict[str, Any]]], odd: Odd) -> Make:
    """The answer is some text and exactly these calls."""
    script = _with(HALF, odd, Counts(), Finish("tool_calls"), End())
    return _costs_nothing(
        script, "".join(TOKENS[:30]), outcome="tool_call", tools=True, calls=tuple(made)
    )


def _refused(status: int, body: object, reason: str = "", tries: tuple[int, int] = ONCE) -> Make:
    """The next target is tried; `reason` is the code that the fallback frame must have."""
    refusal = Respond(status, json.dumps(body).encode())

    def make(p: Profile, vendor: str) -> Scenario:
        return Scenario(
            {"primary": [refusal], "fallback": whole()},
            attempts={"primary": tries, "fallback": ONCE},
            checks=(_because(reason),) if reason else (),
        )

    return make


def _because(reason: str) -> Check:
    def check(played: Played) -> Iterator[str]:
        told = [frame["reason"] for frame in played.seen.fallbacks]
        if played.cell.transport != "chat" and told != [reason]:
            yield f"the reason given is {told}, must be {reason}"

    return check


def _counted(known: bool) -> Check:
    """The usage is the vendor's if it can be read, else estimated."""

    def check(played: Played) -> Iterator[str]:
        usage = (played.seen.terminal or {}).get("usage") or {}
        if played.cell.transport != "chat" and usage.get("estimated") is known:
            yield f"usage known: {not known}, must be {known}: {usage}"
        if known and usage.get("output_tokens", usage.get("completion_tokens")) != len(TOKENS):
            yield f"usage misread: {usage}"

    return check


def _odd_counts(usage: Callable[[str], object], *, known: bool) -> Make:
    def script(request: Request) -> list[Step]:
        wire = request.vendor
        odd = Raw(shapes.counts(wire, usage(wire)))
        reason = {"openai": "stop", "anthropic": "end_turn", "gemini": "STOP"}[wire]
        return [*spoken(TOKENS), odd, Raw(shapes.ends(wire, reason)), End()]

    return _costs_nothing(script, checks=(_counted(known),))


def _unstreamed(
    text: str, made: Sequence[tuple[str, dict[str, Any]]] = (), indent: int | None = None
) -> Callable[[Request], bytes]:
    def body(request: Request) -> bytes:
        answer = shapes.whole(request.vendor, f"{request.model}-served", text, made)
        return json.dumps(answer, indent=indent, ensure_ascii=False).encode()

    return body


def _responds(body: Callable[[Request], bytes]) -> Script:
    return lambda request: [Respond(200, body(request))]


def _cut(p: Profile, vendor: str) -> Scenario:
    def half(request: Request) -> list[Step]:
        body = _unstreamed(TEXT)(request)
        return [Respond(200, body[: len(body) * 2 // 3])]

    return Scenario(
        {"primary": half, "fallback": whole()}, attempts={"primary": TWICE, "fallback": ONCE}
    )


LINE = b'error: {"code":500,"message":"The upstream failed."}\n\n'
BARE = b'{\n  "error": {\n    "code": 503,\n    "message": "Overloaded."\n  }\n}\n\n'
THROTTLED = b'event: error\ndata: {"code":"Throttling","message":"Too fast."}\n\n'
MINIMAX = {"choices": None, "base_resp": {"status_code": 1000, "status_msg": "unknown error"}}
INSPECTED = {"error": {"code": "data_inspection_failed", "message": "Inappropriate content."}}
THOUGHTS = [Thought("Let me be thinking "), Thought("of ships. ")]
OTHER = {"name": "Old Tom", "night": False}
TWO = ((CALL.name, ARGUMENTS), (CALL.name, OTHER))
PIECES = tuple({"name": name, "arguments": json.dumps(given)} for name, given in TWO)
GIVEN = json.dumps(ARGUMENTS)


def _number(wire: str) -> bytes:
    words = ('" Half past "', "7", '" "', "3.10", '"."')
    return b"".join(shapes.literally(wire, word) for word in words)


def _halves(wire: str) -> bytes:
    return shapes.says(wire, " A \ud83d") + shapes.says(wire, "\udd50 strikes.")


def _lone_half(wire: str) -> bytes:
    return shapes.says(wire, " A \ud83d") + shapes.says(wire, " strikes.")


def _apart(wire: str) -> bytes:
    return b"".join(shapes.calls(wire, piece) for piece in PIECES)


def _without_ids(wire: str) -> bytes:
    return shapes.calls(wire, *({**piece, "id": ""} for piece in PIECES))


def _named_in_pieces(wire: str) -> bytes:
    names = ("find_", "ship")
    named = b"".join(shapes.calls(wire, {"name": name, "arguments": ""}) for name in names)
    return named + shapes.grows(wire, GIVEN[:9]) + shapes.grows(wire, GIVEN[9:])


def _repeating(wire: str) -> bytes:
    begun = shapes.calls(wire, {"name": CALL.name, "arguments": GIVEN[:9], "id": "c"})
    return begun + shapes.grows(wire, GIVEN[:30]) + shapes.grows(wire, GIVEN)


def _then(text: str) -> str:
    return "".join(TOKENS[:30]) + text


ENDED = (Counts(), Finish(), End())
TGI = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"
XAI = "This model's maximum prompt length is 131072 but the request contains 200000 tokens."
ZAI = {"error": {"code": "1261", "message": "Prompt exceeds max length"}}
WIRES_WITH_PIECES = ("gpt", "claude")

FIELD = (
    Fault("V01", "an error in a line without data, then the end marker", _breaks(_same(LINE))),
    Fault("V01 before", "the same before the first token", _breaks(_same(LINE), ())),
    Fault("V01 thought", "the same after reasoning", _breaks(_same(LINE), THOUGHTS)),
    Fault(
        "V01 last",
        "the same right before the end marker",
        _breaks(_same(LINE), spoken(TOKENS), by=("primary", "fallback")),
    ),
    Fault("V01 split", "the same in reads of 3 bytes", _breaks(_same(LINE), size=3)),
    Fault("V01 object", "an error object of many lines, without data", _breaks(_same(BARE))),
    Fault("V01 words", "an error in bare words", _breaks(_same(b"Internal Server Error\n\n"))),
    Fault("V01 for ever", "an error in a line, of every target", _for_ever(_same(LINE))),
    Fault("V02", "an event named error, then the end marker", _breaks(_same(THROTTLED))),
    Fault(
        "V02 before",
        "the same before any text: a rate limit",
        _breaks(_same(THROTTLED), (), checks=(_because("provider_rate_limited"),)),
    ),
    Fault("V03", "an object with a failed status of its own", _breaks(_event(MINIMAX))),
    Fault("V03 unknown", "an object of which nothing is known", _breaks(_event({"session": "x"}))),
    Fault("V04", "the finish reason network_error", _breaks(_reason("network_error"))),
    Fault("V04 unknown", "a finish reason that nobody knows", _breaks(_reason("worker_died"))),
    Fault("V04 for ever", "the same of every target", _for_ever(_reason("worker_died"))),
    Fault("V05", "the finish reason sensitive", _filtered(_reason("sensitive"))),
    Fault(
        "V05 error", "a content filter as an error amid the answer", _filtered(_event(INSPECTED))
    ),
    Fault("V06", "numbers where text belongs", _reads(_number, _then(" Half past 7 3.10."), ENDED)),
    Fault("V06 unread", "true where text belongs", _breaks(lambda wire: shapes.says(wire, True))),
    Fault("V06 for ever", "the same of every target", _for_ever(lambda w: shapes.says(w, True))),
    Fault(
        "V07", "text cut inside a surrogate pair", _reads(_halves, _then(" A 🕐 strikes."), ENDED)
    ),
    Fault(
        "V07 lone",
        "half a surrogate pair, the other never comes",
        _reads(_lone_half, _then(" A \ufffd strikes."), ENDED),
    ),
    Fault("V08", "data: null amid good events", _reads(_same(b"data: null\n\n"))),
    Fault(
        "V08 ping",
        "an object that only shows life",
        _reads(_event({"type": "ping", "message": "still here"})),
    ),
    Fault(
        "V09",
        "counts such as 60.0",
        _odd_counts(lambda wire: shapes.counted(wire, 11.0, 60.0), known=True),
    ),
    Fault("V09 list", "a usage that is a list", _odd_counts(lambda wire: [11, 60], known=False)),
    Fault(
        "V10",
        "two calls under one index, in one event",
        _calls(TWO, lambda w: shapes.calls(w, *PIECES)),
    ),
    Fault("V10 apart", "the same, in two events", _calls(TWO, _apart)),
    Fault("V10 ids", "the same, their ids empty", _calls(TWO, _without_ids)),
    Fault(
        "V11",
        "a call's name in two pieces",
        _calls(TWO[:1], _named_in_pieces),
        vendors=("gpt",),
    ),
    Fault(
        "V12",
        "arguments that repeat what came so far",
        _calls(TWO[:1], _repeating),
        vendors=WIRES_WITH_PIECES,
    ),
    Fault("V13 410", "410, the model is retired", _refused(410, {"error": {"message": "Gone."}})),
    Fault("V13 424", "424", _refused(424, {"error": {"message": "Failed."}}, tries=TWICE)),
    Fault("V13 498", "498, no capacity", _refused(498, {"error": "No capacity."}, tries=TWICE)),
    Fault("V13 499", "499, without a body that says why", _refused(499, {}, tries=TWICE)),
    Fault(
        "V14 TGI",
        "422 in words: the input is too long",
        _refused(422, {"error": TGI, "error_type": "validation"}, "context_length"),
    ),
    Fault(
        "V14 xAI",
        "400 in other words for it",
        _refused(400, {"code": "invalid argument", "error": XAI}, "context_length"),
    ),
    Fault("V14 Z.AI", "400 with a number for it", _refused(400, ZAI, "context_length")),
    Fault(
        "V15", "one JSON object in place of a stream", _costs_nothing(_responds(_unstreamed(TEXT)))
    ),
    Fault(
        "V15 lines",
        "the same, written in many lines",
        _costs_nothing(_responds(_unstreamed(TEXT, indent=2))),
    ),
    Fault(
        "V15 calls",
        "the same, with two tool calls",
        _costs_nothing(
            _responds(_unstreamed("", TWO)), "", outcome="tool_call", tools=True, calls=TWO
        ),
    ),
    Fault("V15 cut", "the same, cut in the middle", _cut),
)
