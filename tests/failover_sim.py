"""A pure world for the failover policy: scripted upstreams, a clock that jumps, no I/O.

`Sim` carries out the policy's steps as a driver does and checks what must always hold:
one terminal record and nothing after it, every launched attempt ended or aborted,
attempts within their bound, as many under way as the phase says, and each offered the very
text that stands. Tests give it a `Script` for every launch.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from relay.core.account import Account
from relay.core.errors import Code, Fault
from relay.core.events import (
    Done,
    Event,
    Failed,
    Fallback,
    Finish,
    FinishReason,
    Reasoning,
    Record,
    Served,
    Start,
    Target,
    Text,
    ToolCall,
    Usage,
)
from relay.core.provider import Form
from relay.core.records import Records, Shown, encode, shown, split_long
from relay.failover.breaker import Breakers
from relay.failover.flow import Phase
from relay.failover.hedging import HedgeBudget
from relay.failover.inherited import inherited_from
from relay.failover.plan import Abort, Launch, Plan, Step
from relay.failover.policy import Failover
from tests.by_default import by_default, usual_breakers, usual_hedges

A, B, C = (Target(name, f"{name}-1") for name in ("gpt", "claude", "gemini"))
MOST_STEPS = 100_000
UNDER_WAY = {Phase.HEDGED: 2, **dict.fromkeys((Phase.NEW, Phase.WAITING, Phase.ENDED), 0)}
"""How many attempts are under way in each phase, 1 where it isn't said."""
STOP = Finish(FinishReason.STOP)


@dataclass(frozen=True)
class Script:
    """What one upstream does: batches at seconds after its launch, then an end (None for a
    return, a fault to raise) after so many seconds, or never where `ends_at` is None."""

    batches: tuple[tuple[float, tuple[Event, ...]], ...] = ()
    ends_at: float | None = None
    fault: Fault | None = None


Upstream = Callable[[Launch], Script]


def split(text: str, size: int = 4) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def answer(
    text: str, *, first: float = 0.1, gap: float = 0.01, size: int = 4, finish: Finish = STOP
) -> Script:
    """The whole text in small chunks, a count, and a clean end."""
    batches: list[tuple[float, tuple[Event, ...]]] = [(first, (Served("served"),))]
    for n, piece in enumerate(split(text, size)):
        batches.append((first + n * gap, (Text(piece),)))
    at = batches[-1][0] + gap
    batches.append((at, (finish, Usage(10, 20, estimated=False))))
    return Script(tuple(batches), at + 0.01)


def cut(text: str, fault: Fault | None = None, *, first: float = 0.1, size: int = 4) -> Script:
    """The text, then a break (or silence, where `fault` is None)."""
    script = answer(text, first=first, size=size)
    batches = script.batches[:-1]
    return Script(batches, batches[-1][0] + 0.01 if fault else None, fault)


def dies(fault: Fault, at: float = 0.05) -> Script:
    return Script(ends_at=at, fault=fault)


SILENCE = Script()


def interrupted() -> Fault:
    return Fault(Code.PROVIDER_INTERRUPTED, "the connection was cut")


def overloaded(retry_after: float | None = None) -> Fault:
    return Fault(Code.PROVIDER_OVERLOADED, "503", retry_after=retry_after)


def limited(retry_after: float | None) -> Fault:
    return Fault(Code.PROVIDER_RATE_LIMITED, "429", retry_after=retry_after)


def carries_on(text: str, **kwargs: float) -> Upstream:
    """An upstream that gives `text`, and goes on exactly where a partial answer stopped;
    what it was given must be how the text begins."""

    def upstream(launch: Launch) -> Script:
        assert text.startswith(launch.partial)
        return answer(text[len(launch.partial) :], **kwargs)  # type: ignore[arg-type]

    return upstream


@dataclass
class Outcome:
    """What came of one answer."""

    records: list[Record] = field(default_factory=list)
    launches: list[tuple[float, Launch]] = field(default_factory=list)
    aborted: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    at: float = 0.0

    @property
    def last(self) -> Done | Failed:
        record = self.records[-1]
        assert isinstance(record, Done | Failed)
        return record

    @property
    def done(self) -> Done:
        assert isinstance(self.last, Done), self.last
        return self.last

    @property
    def failed(self) -> Failed:
        assert isinstance(self.last, Failed), self.last
        return self.last

    @property
    def text(self) -> str:
        """What stands on the screen: discarded text taken away."""
        return self.shown(Text)

    @property
    def reasoning(self) -> str:
        return self.shown(Reasoning)

    def shown(self, kind: type) -> str:
        pieces: list[str] = []
        for record in self.records:
            if isinstance(record, kind):
                pieces.append(record.text)  # type: ignore[attr-defined]
            elif isinstance(record, Fallback) and not record.keep:
                pieces.clear()
        return "".join(pieces)

    @property
    def fallbacks(self) -> list[Fallback]:
        return [record for record in self.records if isinstance(record, Fallback)]

    @property
    def calls(self) -> list[ToolCall]:
        return [record for record in self.records if isinstance(record, ToolCall)]

    @property
    def targets(self) -> list[Target]:
        return [launch.target for _, launch in self.launches]

    @property
    def outcomes(self) -> list[str]:
        return [str(attempt.outcome) for attempt in self.last.attempts or []]


class Sim:
    """One answer from its beginning to its end. `now` is where the clock stands; give
    several the same breakers and budget for a process's worth."""

    def __init__(
        self,
        plan: Plan,
        upstreams: dict[Target, Upstream | Sequence[Script]],
        *,
        breakers: Breakers | None = None,
        hedges: HedgeBudget | None = None,
        now: float = 1000.0,
        jitter: float = 0.5,
    ) -> None:
        self.plan = plan
        self.now = self.began = self.accepted = now
        self.out = Outcome()
        self.breakers = breakers or usual_breakers(jitter)
        self.hedges = hedges or usual_hedges()
        self.log = Records()
        self.policy = Failover(plan, self.breakers, self.hedges, lambda: jitter, self.log.chunks)
        self._upstreams = {t: _as_function(u) for t, u in upstreams.items()}
        self._due: list[tuple[float, int, Callable[[], Step]]] = []
        self._order = itertools.count()
        self._taken_over = False

    def run(
        self,
        *,
        cancel_at: float | None = None,
        abandoned: bool = False,
        take_over: Shown | None = None,
        attempts: Sequence = (),
        limit: float = 2000.0,
    ) -> Outcome:
        """Play it through; `cancel_at` in seconds after the begin."""
        if cancel_at is not None:
            cancel = lambda: self.policy.cancel(self.now, abandoned=abandoned)  # noqa: E731
            self._at(self.began + cancel_at, cancel)
        if take_over is None:
            self._do(self.policy.begin(self.now))
        else:
            self._taken_over = True
            told = self.plan.targets[0]
            self._keep([Start(self.plan.stream, told.provider, told.model)])
            self._keep([Reasoning(take_over.reasoning), Text(take_over.text), *take_over.calls])
            inherited = inherited_from(
                self.log.chunks(), Account(tuple(attempts), calls=()), self.now, 0
            )
            self.policy.inherit(inherited)
            self._do(self.policy.begin(self.now))
        return self._to_the_end(limit)

    def play(self, seconds: float) -> None:
        """Play its first `seconds`, then leave it there, as an owner does that dies."""
        if not self._taken_over:
            self._do(self.policy.begin(self.now))
        self._at(stop := self.now + seconds, Step)
        while self.now < stop and not self._over():
            self._advance(seconds + 1)

    def inherit(self, former: Sim, after: float, *, left: Account | None = None) -> None:
        """Take over what `former` left, so many seconds later by a clock of its own, and a
        sign of life in the moment of its end; `left` is its account, if not what it has."""
        self._taken_over = True
        for kind, body in former.log.each():
            self.log.append(kind, body)
        account = left or former.policy.account(former.now)
        accepted = self.now - after - (former.now - former.accepted)
        self.accepted = accepted
        last_sign = round((former.now - former.accepted) * 1000)
        inherited = inherited_from(self.log.chunks(), account, accepted, last_sign)
        self.policy.inherit(inherited)
        self._do(self.policy.begin(self.now))

    def finish(self) -> Outcome:
        """Play on to the end."""
        return self._to_the_end(2000.0)

    def _to_the_end(self, limit: float) -> Outcome:
        for steps in itertools.takewhile(lambda n: not self._over(), itertools.count()):
            assert steps < MOST_STEPS, "the answer makes no progress"
            self._advance(limit)
        self._check()
        return self.out

    def _over(self) -> bool:
        return bool(self.out.records) and isinstance(self.out.records[-1], Done | Failed)

    def _advance(self, limit: float) -> None:
        deadline = self.policy.deadline
        next_due = self._due[0][0] if self._due else None
        assert deadline is not None or next_due is not None, "the answer hangs"
        assert self.now - self.began < limit, "the answer goes on for ever"
        if next_due is not None and (deadline is None or next_due <= deadline):
            at, _, happens = heapq.heappop(self._due)
            self.now = max(self.now, at)
            self._do(happens())
        else:
            assert deadline is not None
            self.now = max(self.now, deadline)
            self._do(self.policy.tick(self.now))

    def _do(self, step: Step) -> None:
        assert not (step.records and self._over()), "a record after the terminal one"
        self.out.records.extend(step.records)
        self._keep(step.records)
        self.out.at = self.now - self.began
        for action in step.actions:
            if isinstance(action, Abort):
                self.out.aborted.add(action.attempt)
            else:
                self._launch(action)
        assert step.ended == (self._over() and bool(step.records))
        under_way = len(self.out.launches) - len(self.out.aborted | self.out.ended)
        assert under_way == UNDER_WAY.get(self.policy.phase, 1), self.policy.phase

    def _keep(self, records: Sequence[Record]) -> None:
        for record in split_long(records):
            self.log.append(*encode(record))

    def _launch(self, launch: Launch) -> None:
        if launch.partial:
            assert launch.partial == shown(self.log.chunks()).text.rstrip()
        self.out.launches.append((self.now - self.began, launch))
        script = self._upstreams[launch.target](launch)
        number = launch.attempt
        for after, events in script.batches:
            self._at(self.now + after, lambda e=events: self._sink(number, e))
        if script.ends_at is not None:
            self._at(self.now + script.ends_at, lambda: self._end(number, script.fault))

    def _at(self, when: float, happens: Callable[[], Step]) -> None:
        heapq.heappush(self._due, (when, next(self._order), happens))

    def _sink(self, number: int, events: tuple[Event, ...]) -> Step:
        """As the driver does: what passes is not put to the policy again."""
        passed = self.policy.pass_through(number, list(events), self.now)
        assert not passed or self.policy.phase is Phase.STREAMING
        return Step(passed) if passed else self.policy.batch(number, list(events), self.now)

    def _end(self, number: int, fault: Fault | None) -> Step:
        if number in self.out.aborted:
            return Step()
        self.out.ended.add(number)
        return self.policy.ended(number, fault, self.now)

    def _check(self) -> None:
        out, numbers = self.out, [launch.attempt for _, launch in self.out.launches]
        terminal = [record for record in out.records if isinstance(record, Done | Failed)]
        assert len(terminal) == 1
        assert isinstance(out.records[0], Start) or self._taken_over
        assert set(numbers) == out.aborted | out.ended
        assert len(set(numbers)) == len(numbers)
        assert len(numbers) <= self.plan.max_attempts
        assert self.policy.deadline is None
        for step in (
            self.policy.cancel(self.now),
            self.policy.tick(self.now + 1e6),
            *(self.policy.batch(n, [Text("late")], self.now) for n in numbers),
            *(self.policy.ended(n, None, self.now) for n in numbers),
            *(self.policy.ended(n, interrupted(), self.now) for n in numbers),
        ):
            assert step == Step(), "something after the end"


def _as_function(upstream: Upstream | Sequence[Script]) -> Upstream:
    if callable(upstream):
        return upstream
    left = list(upstream)
    return lambda launch: left.pop(0) if len(left) > 1 else left[0]


def plan(*targets: Target, form: Form = Form.TURN, **rules: object) -> Plan:
    """A route of these targets, each continuing in `form`."""
    forms = {
        Form.PREFILL: (Form.PREFILL, Form.TURN, Form.RESTART),
        Form.TURN: (Form.TURN, Form.RESTART),
        Form.RESTART: (Form.RESTART,),
    }[form]
    by_target = dict.fromkeys(targets, forms)
    asked = {"fallback": True, "can_unsay": True, "input_characters": 0}
    return by_default(
        Plan, stream="stream", targets=targets, **{"forms": by_target, **asked, **rules}
    )


def run(rules: Plan, upstreams: dict[Target, Upstream | Sequence[Script]], **kwargs) -> Outcome:
    return Sim(rules, upstreams).run(**kwargs)
