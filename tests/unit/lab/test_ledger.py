"""The judge of errors: an answer under way must not be told gone, an old one may."""

from __future__ import annotations

import random
import time

import pytest

from lab.chaos.clients import SocketReader
from lab.chaos.ground import RESUME_WINDOW, Ground
from lab.chaos.ledger import Ledger
from lab.chaos.plan import Plan
from lab.chaos.story import Story
from lab.upstreams.request import Request

STORY = Story(7, 20, 0.01)


@pytest.mark.parametrize(
    ("over", "cut_off", "ago", "losses"),
    [
        (True, False, RESUME_WINDOW + 1, 0),
        (True, False, RESUME_WINDOW - 1, 1),
        (True, True, RESUME_WINDOW + 1, 1),
        (False, False, 0.0, 1),
    ],
    ids=["ended long ago", "ended lately", "its owner was killed", "under way"],
)
def test_only_an_answer_that_ended_longer_ago_than_the_window_may_be_gone(
    over: bool, cut_off: bool, ago: float, losses: int
) -> None:
    ground = Ground(store=False, lease=1.0)
    call = Request(0, "openai", "POST", "/", {}, {}, cut_off=cut_off)
    call.ended = time.monotonic() - ago
    if over:
        call.closed.set()
    ground.vendor._asked[STORY.number] = [call]
    reader = SocketReader(ground, STORY, Plan(), random.Random(1))
    reader.reading.refuse("stream_expired")
    ledger = Ledger(ground)
    ledger.close(reader)
    assert len(ledger.losses) == losses
