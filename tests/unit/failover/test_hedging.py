from __future__ import annotations

from relay.failover.hedging import FREE_HEDGES, HedgeBudget


def test_the_first_ten_hedges_are_free_and_the_eleventh_is_not():
    budget = HedgeBudget(0.1)
    budget.answer_begun()
    assert [budget.take() for _ in range(FREE_HEDGES + 1)] == [True] * FREE_HEDGES + [False]
    assert budget.hedges == FREE_HEDGES


def test_beyond_that_hedges_are_a_share_of_the_answers():
    budget = HedgeBudget(0.1)
    for _ in range(1_000):
        budget.answer_begun()
        budget.take()
    assert budget.hedges == 100
