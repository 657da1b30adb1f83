from __future__ import annotations

from relay.core.streamlog import StreamInfo
from relay.edges.relay_v1.served_socket import MAX_LISTED, newest_or_running


def streams(count: int, running: set[int]) -> list[StreamInfo]:
    return [
        StreamInfo(f"s{n}", f"st{n}", 3, "running" if n in running else "done")
        for n in range(count)
    ]


def test_as_many_as_the_limit_are_listed_as_they_are() -> None:
    listed = streams(MAX_LISTED, set())
    assert newest_or_running(listed) == listed


def test_beyond_it_the_oldest_finished_are_left_out_and_the_running_never() -> None:
    listed = newest_or_running(streams(MAX_LISTED + 2, {0}))
    assert [stream.id for stream in listed] == ["s0", *(f"s{n}" for n in range(3, MAX_LISTED + 2))]
