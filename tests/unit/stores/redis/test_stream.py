"""What the owner of a stream in Redis has appended, wherever it is on its way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.core.events import Reasoning, Record, Start, Text
from relay.core.records import MAX_RECORD_CHARS, decode, shown
from relay.stores.redis.encoding import StreamFacts
from relay.stores.redis.stream import RedisStream


class Holder:
    def write_soon(self, stream: RedisStream) -> None:
        """The tests send themselves."""

    left_alone = lost = write_soon


def owned() -> RedisStream:
    stream = RedisStream("st1", lambda: 0.0, Holder())
    stream.own(1, StreamFacts("", "s", "a", 300.0, "f", "", None), 0.0)
    return stream


RECORDS = st.lists(
    st.one_of(
        st.text("ab谢👍\\", min_size=1, max_size=9).map(Text),
        st.text("ab", min_size=1, max_size=9).map(Reasoning),
        st.just(Text("x" * (MAX_RECORD_CHARS + 7))),
    ),
    min_size=1,
    max_size=4,
)
DOINGS = st.lists(st.one_of(RECORDS, st.sampled_from(["send", "answer"])), max_size=14)


@given(DOINGS)
def test_a_writer_reads_back_all_it_appended_acknowledged_or_on_its_way(doings):
    stream = owned()
    appended: list[Record] = [Start("st1", "gpt", "m")]
    stream.append(appended)
    for doing in doings:
        if doing == "send":
            stream.next_batch()
        elif doing == "answer":
            stream.acknowledged()
        else:
            stream.append(doing)
            appended += doing
        chunks = stream.chunks()
        text = "".join(r.text for r in appended if isinstance(r, Text))
        thought = "".join(r.text for r in appended if isinstance(r, Reasoning))
        assert shown(chunks) == (text, thought, ())
        assert decode(chunks[0].kind, chunks[0].body) == appended[0]
        assert [c.first for c in chunks[1:]] == [c.last + 1 for c in chunks[:-1]]
        assert chunks[0].first == 0


def test_reading_back_leaves_what_is_on_its_way_as_it_is():
    stream = owned()
    stream.append([Text("one ")])
    sent = stream.next_batch()
    stream.append([Text("two")])
    before = list(stream.pending)
    assert shown(stream.chunks()).text == "one two"
    assert (stream.in_flight, stream.pending) == (sent, before)
    assert len(stream.records) == 0, "nobody may read it before Redis has it"
