"""One thread writes for all outputs: whole lines, at their level, nothing lost."""

import gzip
import io
import sys
import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from lab.waiting import block_until
from relay.observability import logwriter
from relay.observability.loglayout import About, Layout, LogEntry
from relay.observability.logwriter import Console, Line, LogFile


class Kept:
    """An output that keeps what it is given, or has no room for it."""

    def __init__(self, level, full=False):
        self.level = level
        self.full = full
        self.batches = []
        self.closed = False

    def write(self, lines):
        if self.full:
            raise OSError(28, "No space left on device")
        self.batches.append([line.text for line in lines])

    def close(self):
        self.closed = True

    @property
    def texts(self):
        return [text for batch in self.batches for text in batch]


def entry(message, level=20):
    nobody = About()
    return LogEntry(level, 0, "some.module", nobody, nobody, message, (), {})


def log_writer(outputs, limit, compose=lambda entry: entry.message):
    return logwriter.LogWriter(outputs, limit, compose)


def test_each_output_gets_the_lines_of_its_level_in_order_and_in_batches():
    low, high = Kept(10), Kept(30)
    writer = log_writer([low, high], 1_000)
    for number in range(500):
        writer.put(entry(f"{number}\n", 40 if number % 100 == 0 else 20))
    writer.close()
    assert low.texts == [f"{number}\n" for number in range(500)]
    assert high.texts == [f"{number}\n" for number in range(0, 500, 100)]
    assert len(low.batches) < 500
    assert low.closed
    assert high.closed


def test_lines_of_an_output_that_takes_none_are_counted_and_the_others_get_theirs():
    full, fine = Kept(10, full=True), Kept(10)
    writer = log_writer([full, fine], 1_000)
    for _ in range(3):
        writer.put(entry("x\n"))
    writer.close()
    assert writer.dropped == 3
    assert fine.texts == ["x\n"] * 3


def test_a_line_is_put_together_by_the_thread_that_writes_it():
    kept, threads = Kept(10), []

    def compose(entry):
        threads.append(threading.current_thread())
        return entry.message

    writer = log_writer([kept], 1_000, compose)
    writer.put(entry("first\n"))
    writer.put(entry("late\n"))
    writer.put(entry("too low\n", level=5))
    writer.put(entry("last\n"))
    writer.close()
    assert kept.texts == ["first\n", "late\n", "last\n"]
    assert threading.current_thread() not in threads


def test_a_line_that_cannot_be_put_together_is_told_of_and_costs_no_other():
    kept = Kept(10)
    writer = log_writer([kept], 1_000, Layout("text", str).line)
    writer.put(entry("{}"))
    writer.put(entry("fine"))
    writer.close()
    assert [text.partition(" | ")[2] for text in kept.texts] == [
        "this line could not be made: IndexError\n",
        "fine\n",
    ]


def test_the_thread_sleeps_in_silence_and_the_next_line_wakes_it(monkeypatch):
    monkeypatch.setattr(logwriter, "GATHER", 0.001)
    monkeypatch.setattr(logwriter, "LOOK", 0.001)
    kept = Kept(10)
    writer = log_writer([kept], 1_000)
    for number in range(5):
        writer.put(entry(f"{number}\n"))
        block_until(lambda: not writer.awake)
        assert kept.texts[-1] == f"{number}\n"
    writer.close()


def test_a_line_that_comes_just_when_the_thread_falls_asleep_is_not_left_lying(monkeypatch):
    monkeypatch.setattr(logwriter, "GATHER", 0)
    monkeypatch.setattr(logwriter, "LOOK", 0)
    kept, late = Kept(10), [entry("late\n")]
    writer = log_writer([kept], 1_000)
    clear = writer._some.clear

    def put_meanwhile():
        clear()
        if late:
            writer.put(late.pop())

    monkeypatch.setattr(writer._some, "clear", put_meanwhile)
    writer.put(entry("first\n"))
    block_until(lambda: kept.texts == ["first\n", "late\n"])
    writer.close()


def test_lines_of_several_threads_all_arrive_each_threads_in_order(monkeypatch):
    monkeypatch.setattr(logwriter, "GATHER", 0)
    monkeypatch.setattr(logwriter, "LOOK", 0)
    kept = Kept(10)
    writer = log_writer([kept], 100_000)

    def put(name):
        for number in range(2_000):
            writer.put(entry(f"{name} {number}\n"))
            time.sleep(0)

    threads = [threading.Thread(target=put, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    block_until(lambda: len(kept.texts) == 6_000)
    writer.close()
    for name in "abc":
        mine = [text for text in kept.texts if text.startswith(name)]
        assert mine == [f"{name} {number}\n" for number in range(2_000)]


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=9), max_size=9))
def test_lines_are_kept_whole_and_in_order_over_any_rotation(tmp_path_factory, batches):
    path = tmp_path_factory.mktemp("tier") / "app.log"
    file = LogFile(path, 10, rotation=100, retention=1_000)
    lines = [[f"{'é' * size}\n" for size in batch] for batch in batches]
    for batch in lines:
        file.write([Line(20, text) for text in batch])
    file.close()
    closed = sorted(path.parent.glob("app.*.gz"))
    parts = [gzip.decompress(each.read_bytes()).decode() for each in closed]
    assert "".join([*parts, path.read_text(encoding="utf-8")]) == "".join(
        "".join(batch) for batch in lines
    )
    assert all(len(part.encode()) <= 100 or part.count("\n") == 1 for part in parts)
    assert path.stat().st_size < 100


def test_a_file_goes_on_where_an_earlier_process_left_it(tmp_path):
    path = tmp_path / "app.log"
    for _ in range(2):
        file = LogFile(path, 10, rotation=100, retention=2)
        file.write([Line(20, "x" * 59 + "\n")])
        file.close()
    assert len(list(tmp_path.glob("app.*.gz"))) == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_person_sees_colours_and_a_pipe_does_not(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown, piped = Terminal(), io.StringIO()
    for stream in (shown, piped):
        monkeypatch.setattr(sys, "stderr", stream)
        Console(20).write([Line(40, "grave\n"), Line(20, "plain\n")])
    assert shown.getvalue() == "\x1b[1;31mgrave\x1b[0m\n\x1b[1mplain\x1b[0m\n"
    assert piped.getvalue() == "grave\nplain\n"
