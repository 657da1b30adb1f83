"""An attempt's account: what it used."""

import pytest

from relay.core.events import Target, Usage
from relay.core.provider import Form
from relay.failover.attempt import Attempt
from relay.failover.breaker import Ticket

TARGET = Target("gemini", "gemini-3.8-flash")


def attempt(usage: Usage | None, written: int) -> Attempt:
    ticket = Ticket(TARGET, probe=False, forced=False)
    running = Attempt(1, TARGET, Form.RESTART, 0, False, ticket, 0.0, None)
    running.usage, running.written, running.heard = usage, written, 1.0
    return running


def counted(usage: Usage | None, written: int, *, whole: bool = True) -> Usage:
    found = attempt(usage, written).counted(40, whole=whole, billed=True)
    assert found is not None
    return found


def test_the_providers_count_of_a_whole_answer_is_believed():
    said = Usage(11, 3, estimated=False)
    assert counted(said, written=400) is said


def test_a_count_of_nothing_for_an_answer_with_words_is_estimated_and_marked():
    assert counted(Usage(11, 0, estimated=False), written=400) == Usage(11, 100, estimated=True)


def test_a_count_of_nothing_for_an_answer_without_words_is_believed():
    said = Usage(11, 0, estimated=False)
    assert counted(said, written=0) is said


@pytest.mark.parametrize(("told", "output"), [(3, 100), (100, 100), (120, 120)])
def test_a_count_from_before_a_cut_is_the_least_that_was_used(told, output):
    usage = counted(Usage(11, told, estimated=False), written=400, whole=False)
    assert usage == Usage(11, output, estimated=told < output)


def test_without_a_count_all_is_estimated():
    assert counted(None, written=400) == Usage(10, 100, estimated=True)
