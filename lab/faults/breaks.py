"""F08 to F11, F14, F18 to F23: faults after text was shown, and faults of the wire itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

from lab.faults.canon import (
    CALL,
    MIXED,
    SETTLE,
    TEXT,
    TOKENS,
    goes_on,
    pieces,
    spoken,
    whole,
    written,
)
from lab.faults.matrix import Profile
from lab.faults.scenario import Fault, Played, Scenario
from lab.upstreams.request import Request
from lab.upstreams.scripts import Script, in_turn, refuses_prefill
from lab.upstreams.steps import (
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
    Step,
    Thought,
)

TEAR: tuple[Step, ...] = (Pause(SETTLE), Reset())
DOWN = [Refuse("overloaded")]
Make = Callable[[Profile, str], Scenario]


def broken(count: int, *end: Step) -> list[Step]:
    """The first `count` tokens, then `end`."""
    return [*spoken(TOKENS[:count]), *(end or TEAR)]


def _rescued(primary: Script, fallback: Script | None = None, **rules: object) -> Make:
    """The primary breaks, and the reader still gets the whole answer."""

    def make(p: Profile, vendor: str) -> Scenario:
        scripts = {"primary": primary, "fallback": fallback or goes_on()}
        return Scenario(scripts, **{"continued": True, **rules})  # type: ignore[arg-type]

    return make


def _stalled(p: Profile, vendor: str) -> Scenario:
    stall = Pause(p.seconds(30))
    return Scenario(
        {
            "primary": [*spoken(TOKENS[:20]), stall, *whole(TOKENS[20:])],
            "fallback": goes_on(),
        },
        within=30,
        attempts={"primary": (1, 1), "fallback": (1, 1)},
        continued=True,
    )


def _ended(*end: Step) -> Make:
    """The answer is whole but its end is not as it should be; it must still be done 2 s after the
    last event."""

    def prompt(played: Played) -> Iterator[str]:
        after = played.seen.seconds - SPEAKING
        if after > 2 + played.profile.allowance:
            yield f"done {after:.1f} s after the last event, must be within 2 s"

    def make(p: Profile, vendor: str) -> Scenario:
        return Scenario(
            {"primary": [*spoken(TOKENS), *end], "fallback": goes_on()},
            by=("primary",),
            attempts={"primary": (1, 1), "fallback": (0, 0)},
            checks=(prompt,),
        )

    return make


SPEAKING = 0.1
"""Seconds that the tokens take: the least time before the last event."""


def _unended(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": [*spoken(TOKENS), Hang()], "fallback": goes_on()},
        by=("primary", "fallback"),
        within=30,
        continued=True,
    )


def _reason_kept(played: Played) -> Iterator[str]:
    reasons = [frame["reason"] for frame in played.seen.fallbacks]
    if played.cell.transport != "chat" and reasons != ["provider_interrupted"]:
        yield f"the reason given is {reasons}, must be provider_interrupted"


def _prefill_was_refused(played: Played) -> Iterator[str]:
    offers = [r.turns[-1].role for r in played.cast.parts["fallback"].requests]
    if played.cell.vendor != "gpt" and offers[:1] != ["assistant"]:
        yield f"the relay sent no prefill that could be refused: {offers}"


def _exhausted_late(p: Profile, vendor: str) -> Scenario:
    def told(played: Played) -> Iterator[str]:
        if played.seen.text != "".join(TOKENS[:40]):
            yield f"shown: {played.seen.text[-40:]!r}"

    return Scenario(
        {"primary": in_turn(broken(40), DOWN), "fallback": DOWN},
        outcome="error",
        code="providers_exhausted",
        attempts={"fallback": (1, 3)},
        checks=(told,),
    )


def _limited_late(p: Profile, vendor: str) -> Scenario:
    def no_sooner(played: Played) -> Iterator[str]:
        early = [r for r in played.cast.requests if r.arrived < played.seen.asked_at + 0.5]
        if len(early) > 3:
            yield f"{len(early)} attempts in the first half second"

    limited = [InBandError("rate_limit")]
    return Scenario(
        {"primary": in_turn(broken(40, *limited), limited), "fallback": limited},
        outcome="error",
        code="providers_exhausted",
        checks=(no_sooner,),
    )


def _saying(say: Callable[[str], str], *, only_first: bool = False) -> Script:
    """A model that answers an unfinished turn with `say(turn)`."""

    def script(request: Request) -> Sequence[Step]:
        if not request.partial or (only_first and request.number):
            return goes_on()(request)  # type: ignore[operator]
        return whole(pieces(say(request.partial)))

    return script


def _breaking(say: Callable[[str], str]) -> Script:
    """As `_saying`, but the first time it breaks off right after that."""

    def script(request: Request) -> Sequence[Step]:
        if request.number == 0:
            return [*spoken(pieces(say(request.partial))), *TEAR]
        return goes_on()(request)  # type: ignore[operator]

    return script


def _rest(partial: str) -> str:
    return TEXT[len(partial) :]


def _last_words(partial: str) -> str:
    return " ".join(partial.split(" ")[-4:])


def _sentence(partial: str) -> str:
    return partial[partial.rindex(". ") + 2 :]


SPACED = [f"{word} " for word in TEXT.split(" ")[:-1]] + [TEXT.split(" ")[-1]]
"""The tokens with white space after each, so that a cut leaves some at the end."""


def _no_space_at_the_end(request: Request) -> Sequence[Step]:
    if request.partial != request.partial.rstrip():
        return [Refuse("bad_request")]
    return goes_on()(request)  # type: ignore[operator]


def _half_call(before: Sequence[str] = ()) -> Callable[[Request], list[Step]]:
    """Tokens, then a tool call that breaks off in its arguments."""

    def script(request: Request) -> list[Step]:
        said = [*spoken(before), Pause(SETTLE)] if before else []
        tokens = [step for step in said if not isinstance(step, Pause)]
        body, all_of_it = written(request, *tokens), written(request, *tokens, CALL)
        cut = len(body) + (len(all_of_it) - len(body)) * 6 // 10
        return [Raw(body), Pause(SETTLE), Raw(all_of_it[len(body) : cut]), *TEAR]

    return script


CALLED: tuple[Step, ...] = (CALL, Counts(), Finish("tool_calls"), End())


def _called(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": _half_call(), "fallback": [*CALLED]},
        outcome="tool_call",
        text="",
        tools=True,
    )


def _called_after_text(p: Profile, vendor: str) -> Scenario:
    def script(request: Request) -> Sequence[Step]:
        rest = _rest(request.partial) if request.partial else TEXT
        return [*spoken(pieces(rest)), *CALLED]

    return Scenario(
        {"primary": _half_call(TOKENS), "fallback": script},
        outcome="tool_call",
        by=("primary", "fallback"),
        tools=True,
    )


def _in_a_character(request: Request) -> list[Step]:
    body = _body(request)
    cut = body.index("京".encode()) + 1
    return [Raw(body[:cut]), *TEAR]


def _thoughts_apart(played: Played) -> Iterator[str]:
    shown = played.seen.reasoning
    if "lamp" in shown or "thinking" in played.seen.text:
        yield f"reasoning and text are mixed: {shown!r}"


def _thinking(p: Profile, vendor: str) -> Scenario:
    thoughts = [Thought("Let me be thinking "), Thought("of ships. ")]
    return Scenario(
        {"primary": [*thoughts, *TEAR], "fallback": [*thoughts, *whole()]},
        by=("primary", "fallback"),
        checks=(_thoughts_apart,),
    )


def _thinking_again(p: Profile, vendor: str) -> Scenario:
    thoughts = [Thought("Let me be thinking "), Thought("of ships. ")]

    def script(request: Request) -> Sequence[Step]:
        return [*thoughts, *whole(pieces(_rest(request.partial)))]

    return Scenario(
        {"primary": [*thoughts, *broken(40)], "fallback": script},
        continued=True,
        checks=(_thoughts_apart,),
    )


def _body(request: Request) -> bytes:
    return written(request, *_plain(whole(pieces(MIXED, 4))))


def _plain(steps: Sequence[Step]) -> list[Step]:
    return [step for step in steps if not isinstance(step, Pause)]


def _in_pieces(sizes: Sequence[int]) -> Callable[[Request], list[Step]]:
    def script(request: Request) -> list[Step]:
        body, at, steps = _body(request), 0, list[Step]()
        for size in cycle(sizes):
            steps += [Raw(body[at : at + size]), Pause(0)]
            at += size
            if at >= len(body):
                return steps
        raise AssertionError

    return script


def _one_read(request: Request) -> list[Step]:
    return [Raw(_body(request))]


def _other_line_ends(request: Request) -> list[Step]:
    body = _body(request)
    lf = body.replace(b"\r\n", b"\n")
    return [Raw(lf if lf != body else body.replace(b"\n", b"\r\n"))]


def _cut_up(script: Script) -> Make:
    def make(p: Profile, vendor: str) -> Scenario:
        return Scenario(
            {"primary": script, "fallback": whole()},
            text=MIXED,
            by=("primary",),
            attempts={"primary": (1, 1), "fallback": (0, 0)},
        )

    return make


def _third_completes(p: Profile, vendor: str) -> Scenario:
    def breaks_too(request: Request) -> Sequence[Step]:
        return [*spoken(pieces(_rest(request.partial)[:60])), *TEAR]

    return Scenario(
        {"primary": broken(20), "fallback": breaks_too, "third": goes_on()},
        by=("third",),
        continued=True,
        prefill=True,
    )


def _empty_continuation(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {
            "primary": broken(40),
            "fallback": [Counts(output=0), Finish(), End()],
            "third": goes_on(),
        },
        by=("third",),
        continued=True,
    )


def _restart_breaks(p: Profile, vendor: str) -> Scenario:
    return Scenario(
        {"primary": broken(40), "fallback": broken(20), "third": goes_on()},
        by=("third",),
        continued=True,
    )


_mid_code_point = _rescued(_in_a_character, goes_on(MIXED), text=MIXED)

BREAKS = (
    Fault("F08", "cut at token 40 of 60", _rescued(broken(40))),
    Fault(
        "F08 closed", "closed in order at token 40, no end marker", _rescued(broken(40, Close()))
    ),
    Fault("F08 prefill", "F08, the fallback takes a prefill", _rescued(broken(40), prefill=True)),
    Fault("F09", "stalls 30 s after 20 tokens", _stalled, length=16),
    Fault(
        "F10",
        "an event that is not JSON amid good ones",
        _rescued([*spoken(TOKENS[:30]), Garbage(), *whole(TOKENS[31:])]),
    ),
    Fault("F11", "finish reason, no end marker, closed", _ended(Counts(output=60), Finish())),
    Fault("F11 open", "finish reason, no end marker, left open", _ended(Finish(), Hang())),
    Fault("F11 reset", "finish reason, no end marker, reset", _ended(Finish(), *TEAR)),
    Fault(
        "F11 marker",
        "end marker, no finish reason",
        _ended(Counts(output=60), End()),
        vendors=("gpt", "claude"),
    ),
    Fault("F11 neither", "neither, left open", _unended, length=16),
    Fault(
        "F14",
        "F08, and the fallback refuses a prefill",
        _rescued(
            broken(40),
            refuses_prefill(goes_on()),
            prefill=True,
            checks=(_reason_kept, _prefill_was_refused),
        ),
    ),
    Fault("F17 continued", "an empty continuation", _empty_continuation),
    Fault("F18", "an in-band overload", _rescued(broken(40, InBandError("overloaded")))),
    Fault("F18 limit", "an in-band rate limit", _rescued(broken(40, InBandError("rate_limit")))),
    Fault("F19", "the fallback breaks too, a third completes", _third_completes),
    Fault("F20 late", "every target fails after text", _exhausted_late),
    Fault("F20 limited", "every target limits its rate for ever, in-band", _limited_late),
    Fault(
        "F21",
        "the continuation repeats the last words",
        _rescued(broken(40), _saying(lambda partial: _last_words(partial) + _rest(partial))),
    ),
    Fault(
        "F21 sentence",
        "it restarts the sentence",
        _rescued(broken(40), _saying(lambda partial: _sentence(partial) + _rest(partial))),
    ),
    Fault("F21 over", "it starts over", _rescued(broken(40), _saying(lambda partial: TEXT))),
    Fault(
        "F21 undecided",
        "it breaks while the overlap is undecided",
        _rescued(broken(40), _breaking(lambda partial: _last_words(partial)[:9])),
    ),
    Fault("F21 restart", "a restart breaks before it passed the text", _restart_breaks),
    Fault(
        "F21 space",
        "white space at the seam",
        _rescued([*spoken(SPACED[:40]), *TEAR], _no_space_at_the_end, prefill=True),
    ),
    Fault("F22", "broken in a tool call", _called),
    Fault("F22 text", "broken in a tool call after text", _called_after_text),
    Fault("F22 character", "broken in a code point", _mid_code_point),
    Fault("F22 thought", "broken in reasoning", _thinking),
    Fault("F22 thoughts", "broken after reasoning and text", _thinking_again),
    Fault("F23", "reads of 1 to 13 bytes", _cut_up(_in_pieces((1, 2, 3, 5, 7, 11, 13)))),
    Fault("F23 merged", "all events in one read", _cut_up(_one_read)),
    Fault("F23 lines", "the other line ends", _cut_up(_other_line_ends)),
)
