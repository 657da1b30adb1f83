"""The judge of a chaos run: it must see what a client must never get."""

from __future__ import annotations

from typing import Any

import pytest

from lab.chaos.fold import Reading, difference, misstatements
from lab.chaos.story import Story, story_of

STORY = Story(7, 20, 0.01)


def frames(story: Story = STORY) -> list[dict[str, Any]]:
    """The frames of a whole answer."""
    said: list[dict[str, Any]] = [{"type": "start", "seq": 0, "stream": "s"}]
    said += [{"type": "token", "seq": n, "text": t} for n, t in enumerate(story.pieces(), 1)]
    return [*said, {"type": "done", "seq": len(said), "finish_reason": "stop"}]


def read(said: list[dict[str, Any]], begins: int = -1) -> Reading:
    reading = Reading(STORY, begins)
    for frame in said:
        reading.apply(frame)
    return reading


def test_a_prompt_tells_the_vendor_the_whole_story() -> None:
    for story in (STORY, Story(8, 100, 0.0, 10)):
        assert story_of(story.prompt) == story
        assert story_of(story.prompt).text() == "".join(story.pieces())


def test_a_whole_answer_is_held_against_nobody() -> None:
    assert read(frames()).verdict() == []


def test_a_merged_frame_counts_for_all_its_records() -> None:
    said = frames()
    merged = {**said[3], "first": 1, "text": "".join(f["text"] for f in said[1:4])}
    assert read([said[0], merged, *said[4:]]).verdict() == []


def test_frames_that_come_again_are_dropped() -> None:
    said = frames()
    reading = read([*said[:5], *said[2:]])
    assert reading.verdict() == []
    assert reading.repeated == 3


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (lambda f: [*f[:5], *f[6:]], "gap"),
        (lambda f: [*f[:5], {**f[5], "text": ""}, *f[6:]], "lost"),
        (lambda f: [*f[:5], {**f[5], "text": f[5]["text"] * 2}, *f[6:]], "too many"),
        (lambda f: [*f[:5], {**f[6], "first": 4}, *f[7:]], "straddles"),
        (lambda f: f[:5], "hung"),
        (lambda f: [*f[:5], {**f[-1], "seq": 5}], "text differs"),
        (lambda f: [*f, {"type": "token", "seq": len(f), "text": "!"}], "after the terminal"),
    ],
)
def test_what_breaks_a_rule_is_said(said: Any, fault: str) -> None:
    assert fault in "; ".join(read(said(frames())).verdict())


def test_text_that_was_discarded_does_not_count() -> None:
    said = frames()
    false_start = [said[0], {"type": "token", "seq": 1, "text": "nonsense"}]
    fallback = {"type": "fallback", "seq": 2, "keep": False}
    rest = [{**frame, "seq": frame["seq"] + 2} for frame in said[1:]]
    reading = read([*false_start, fallback, *rest])
    assert reading.verdict() == []
    assert reading.restarts == 1


def test_an_answer_that_ended_in_an_error_must_still_be_true_as_far_as_it_came() -> None:
    said = frames()
    error = {"type": "error", "seq": 5, "code": "internal"}
    assert read([*said[:5], error]).verdict() == []
    wrong = {**said[4], "text": "never said"}
    assert read([*said[:4], wrong, error]).verdict() != []


def test_a_reader_that_joined_late_has_the_end() -> None:
    said = frames()
    assert read(said[6:], begins=5).verdict() == []
    assert read([*said[6:9], *said[10:]], begins=5).verdict() != []


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        ("abcdef", True, (0, 0)),
        ("abef", True, (2, 0)),
        ("abcdcdef", True, (0, 2)),
        ("abc", True, (3, 0)),
        ("abc", False, (0, 0)),
    ],
)
def test_characters_are_counted_as_lost_or_as_too_many(
    text: str, ended: bool, expected: tuple[int, int]
) -> None:
    assert difference("abcdef", text, ended=ended) == expected


@pytest.mark.parametrize(
    ("told", "total_ms", "faults"),
    [(3, 9_000, 0), (3, 5_960, 0), (2, 9_000, 1), (3, 3_000, 1), (1, 10, 2)],
)
def test_an_end_that_leaves_out_a_call_or_the_time_before_a_take_over_is_seen(
    told: int, total_ms: int, faults: int
) -> None:
    calls = [(100.0, 102.0), (103.0, 103.1), (104.0, 105.0), (106.0, 107.0)]
    done = {"attempts": [{}] * told, "timing": {"total_ms": total_ms}}
    assert len(misstatements(done, calls)) == faults
