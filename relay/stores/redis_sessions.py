"""Keeps the sessions that are used here: those with a connection on this node, and those of
which a stream of this node runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from relay.stores import redis_keys as keys
from relay.stores.redis_calls import Calls
from relay.stores.redis_claims import Terms
from relay.stores.redis_courier import Courier
from relay.stores.redis_stream import RedisStream


class Session(NamedTuple):
    """A session that is used here: its digest, whose it is, and for how many ms it is kept."""

    digest: str
    owner: str
    kept: int


class Sessions:
    """One node's sessions, told by digest."""

    def __init__(
        self, calls: Calls, courier: Courier, clock: Callable[[], float], terms: Terms
    ) -> None:
        self._calls = calls
        self._courier = courier
        self._clock = clock
        self._terms = terms
        self._joined: dict[str, tuple[int, str]] = {}
        self._refreshed: dict[str, float] = {}

    def joined(self, session: str, owner: str) -> None:
        """A connection of the session is here."""
        count, _ = self._joined.get(session, (0, owner))
        self._joined[session] = (count + 1, owner)
        self._refreshed[session] = self._clock()

    def left(self, session: str) -> None:
        """A connection ended: after the last one, the session is kept for its window."""
        count, owner = self._joined.pop(session, (0, ""))
        if count > 1:
            self._joined[session] = (count - 1, owner)
        else:
            self._leave(session)

    def _leave(self, session: str) -> None:  # the script spares one of which a stream runs
        names = [*_session_keys(session), keys.running(session)]
        self._courier.run_script("leave_session", names, self._terms.keep)

    def ending(self, stream: RedisStream) -> None:
        """A stream of this node gets its terminal record: it makes room for another one,
        and what names it is kept as long as it is."""
        session, newest = str(stream.facts["session"]), str(stream.facts["newest"])
        self._courier.run_errand("ZREM", keys.running(session), stream.name)
        if session not in self._joined:
            self._leave(session)
        if newest:
            self._courier.run_errand("PEXPIRE", keys.newest(newest), self._terms.keep)

    def forgotten(self) -> None:
        """Redis came back empty: keep all of them anew at the next tick."""
        self._refreshed.clear()

    def due(self, owned: list[RedisStream]) -> list[Session]:
        """The sessions to be kept anew, those of the streams that are written here included.
        What names the newest of a conversation is kept with them."""
        used = self._used(owned)
        now, pause = self._clock(), self._terms.refresh
        self._refreshed = {s: self._refreshed.get(s, 0.0) for s in used}
        due = [each for s, each in used.items() if now - self._refreshed[s] >= pause]
        self._keep_newest(owned, {each.digest for each in due})
        return due

    def _used(self, owned: list[RedisStream]) -> dict[str, Session]:
        idle = self._terms.session()
        used = {s: Session(s, owner, idle) for s, (_, owner) in self._joined.items()}
        for stream in owned:
            name, kept = str(stream.facts["session"]), self._terms.session(stream.facts)
            if name not in used or used[name].kept < kept:
                used[name] = Session(name, str(stream.facts["subject"]), kept)
        return used

    def _keep_newest(self, owned: list[RedisStream], sessions: set[str]) -> None:
        for stream in owned:
            newest = str(stream.facts["newest"])
            if newest and stream.facts["session"] in sessions:
                kept = self._terms.session(stream.facts)
                self._courier.run_errand("PEXPIRE", keys.newest(newest), kept)

    def queue(self, pipe: Any, used: Session) -> Callable[[Any], None]:
        """Add the keeping of one session to a pipeline; give its answer to what is returned."""
        names = _session_keys(used.digest)
        self._calls.queue(pipe, "open_session", names, used.owner, used.kept)

        def take(answer: Any) -> None:
            self._refreshed[used.digest] = self._clock()

        return take


def _session_keys(digest: str) -> list[str]:
    return [f(digest) for f in (keys.session, keys.ids, keys.order)]
