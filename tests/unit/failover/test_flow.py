from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from relay.failover.flow import TRANSITIONS, Move, Phase, diagram, next_phase

ROOT = Path(__file__).resolve().parents[3]


def script():
    spec = importlib.util.spec_from_file_location(
        "failover_diagram", ROOT / "scripts" / "failover_diagram.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documented_diagram_is_the_table():
    page = (ROOT / "docs" / "failover.md").read_text(encoding="utf-8")
    assert script().with_diagram(page) == page, "run python scripts/failover_diagram.py"


def test_a_page_without_a_place_for_the_diagram_is_refused():
    with pytest.raises(ValueError, match="no place"):
        script().with_diagram("a page")


def test_the_diagram_names_every_phase_and_move():
    drawn = diagram()
    assert all(phase in drawn for phase in Phase)
    assert all(move in drawn for move in Move)


def test_every_phase_can_be_reached_and_left_for_the_end():
    reached, todo = set(), [Phase.NEW]
    while todo:
        phase = todo.pop()
        if phase not in reached:
            reached.add(phase)
            todo += TRANSITIONS[phase].values()
    assert reached == set(Phase)
    assert all(Phase.ENDED in moves.values() for moves in TRANSITIONS.values() if moves)


def test_nothing_follows_the_end_and_no_move_is_made_up():
    assert TRANSITIONS[Phase.ENDED] == {}
    with pytest.raises(KeyError):
        next_phase(Phase.WAITING, Move.HEDGE)
