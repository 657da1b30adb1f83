"""Three files and the console: levels, context, one line an event, no secret, nothing lost."""

import asyncio
import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from aiohttp.http_exceptions import BadHttpMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger

from relay.core.errors import Code
from relay.core.events import Done, EndedAttempt, Failed, FinishReason, Timing, Usage
from relay.core.records import Shown
from relay.core.request import ChatRequest, Turn
from relay.observability import logs

KEY = "zz-configured-key-0123456789"
SESSION = "session-secret-0123456789"
STREAM = "strm5678-unguessable-rest"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def own_logging():
    """Whatever a test sets up, the next one finds as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.close_logging()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def read(directory, name="debug.log"):
    return (directory / name).read_text(encoding="utf-8").splitlines()


def written(directory, log, name="debug.log", **options):
    logs.configure_logging(directory=directory, **options)
    log()
    logs.close_logging()
    return read(directory, name)


def test_each_file_has_its_tier(tmp_path):
    def log():
        logger.debug("small")
        logger.info("plain")
        logger.error("grave")

    assert len(written(tmp_path, log)) == 3
    assert len(read(tmp_path, "app.log")) == 2
    (line,) = read(tmp_path, "error.log")
    assert "grave" in line


def test_the_console_has_its_own_level(tmp_path, capfd):
    def log():
        logger.info("plain")
        logger.warning("odd")

    written(tmp_path, log, level="WARNING")
    shown = capfd.readouterr().err
    assert "odd" in shown
    assert "plain" not in shown


def test_every_line_carries_connection_session_and_stream(tmp_path):
    def log():
        logger.info("outside")
        with logs.context(connection="c1", session=SESSION, stream=STREAM):
            logger.info("inside")

    outside, inside = written(tmp_path, log)
    assert "connection=- session=- stream=-" in outside
    assert "connection=c1 " in inside
    assert "stream=strm5678 " in inside
    assert SESSION not in inside
    assert STREAM not in inside


async def test_tasks_started_within_a_context_carry_it(tmp_path):
    logs.configure_logging(directory=tmp_path)

    async def work():
        logger.info("from the task")

    with logs.context(connection="c7"):
        task = asyncio.create_task(work())
    await task
    logs.close_logging()
    assert "connection=c7" in read(tmp_path)[0]


@given(
    text=st.text(max_size=60),
    field=st.text(st.sampled_from('ab "{}<>\r\n\x1b\x00\x85\u2028\ud800é'), max_size=20),
    format=st.sampled_from(["text", "json"]),
)
@settings(
    max_examples=2 * settings.default.max_examples // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_one_event_is_one_line_without_secrets_whatever_it_holds(
    tmp_path_factory, text, field, format
):
    directory = tmp_path_factory.mktemp("lines")

    def log():
        logger.bind(field=field).info(text + KEY + text)
        try:
            raise OSError(field + text + KEY)
        except OSError:
            logger.exception("{}", field)

    lines = written(directory, log, format=format, secrets=(KEY,))
    assert len(lines) == 2
    assert not [line for line in lines if KEY in line]
    if format == "json":
        first = json.loads(lines[0])
        assert first["level"] == "INFO"
        assert first["fields"]["field"] == field


def test_a_sink_of_somebody_elses_gets_no_secret(tmp_path):
    seen = []

    def log():
        logger.add(seen.append, format="{message} {extra} {exception}")
        try:
            raise OSError(KEY)
        except OSError:
            logger.bind(field=KEY).exception("failed: {}", KEY)

    (line,) = written(tmp_path, log, secrets=(KEY,))
    (record,) = seen
    assert "failed: [redacted]" in record
    assert KEY not in record
    assert KEY not in line


def test_json_lines_hold_what_was_said(tmp_path):
    def log():
        with logs.context(connection="c1", stream=STREAM):
            logger.bind(count=3).info("a\nb é")
            try:
                raise TypeError("no")
            except TypeError:
                logger.exception("failed")

    first, second = map(json.loads, written(tmp_path, log, format="json"))
    assert first["message"] == "a\nb é"
    assert first["fields"] == {"count": "3"}
    assert (first["connection"], first["session"], first["stream"]) == ("c1", None, "strm5678")
    assert "TypeError: no" in second["traceback"]


def test_a_traceback_shows_no_variable_and_no_quoted_input(tmp_path):
    def log():
        private = "the user's words"
        try:
            raise ValueError(private)
        except ValueError:
            logger.exception("failed")

    (line,) = written(tmp_path, log)
    assert "ValueError" in line
    assert "the user's words" not in line
    (_, line) = written(tmp_path, log, content=True)
    assert "the user's words" in line


def test_message_text_is_logged_only_where_the_operator_asked(tmp_path):
    def log():
        logs.log_asked(STREAM, ChatRequest("gpt", (Turn("user", "the user's words"),)))
        logs.log_answered(STREAM, lambda: Shown("the model's words", "", ()))

    assert written(tmp_path, log) == []
    asked, answered = written(tmp_path, log, content=True)
    assert asked.split(" | ")[1] == 'asked user: "the user\'s words"'
    assert answered.split(" | ")[1] == 'answered text: "the model\'s words"'
    assert all(f" stream={STREAM[:8]} " in line for line in (asked, answered))


def test_without_the_operators_wish_an_answers_text_is_not_even_put_together(tmp_path):
    written(tmp_path, lambda: logs.log_answered(STREAM, lambda: pytest.fail("asked for text")))


@pytest.mark.parametrize("format", ["text", "json"])
def test_message_text_breaks_no_line_and_holds_no_secret(tmp_path, format):
    forged = f'x"\n2026-01-01 ERROR forged\r\x1b[31m\x00\u2028\u202e {KEY} sk-proj-{"a1" * 20}'

    def log():
        logs.log_asked(STREAM, ChatRequest("gpt", (Turn("user", forged),), system=forged))
        logs.log_answered(STREAM, lambda: Shown(forged, forged, ()))

    lines = written(tmp_path, log, content=True, secrets=(KEY,), format=format)
    assert len(lines) == 2
    for line in lines:
        assert not set(line) & set("\r\x1b\x00\u2028\u202e")
        assert line.count("forged") == 2
        assert KEY not in line
        assert "a1a1" not in line


def test_what_libraries_log_comes_in_as_one_line_under_their_name(tmp_path):
    def log():
        logging.getLogger("some.library").warning("a\nb %s", KEY)
        logging.getLogger("some.library").info("chatter")
        logging.getLogger("some.library").error("%d", "not a number")
        logging.getLogger("openai").debug("Request options: the user's words")
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        first, second, third = written(tmp_path, log, secrets=(KEY,))
    assert "some.library" in first
    assert r"a\nb [redacted]" in first
    assert "do not fit" in second
    assert "DeprecationWarning" in third


def test_the_sdks_own_log_switches_are_taken_away(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_LOG", "debug")
    monkeypatch.setenv("ANTHROPIC_LOG", "debug")
    logs.configure_logging(directory=tmp_path)
    assert "OPENAI_LOG" not in os.environ
    assert "ANTHROPIC_LOG" not in os.environ


def test_a_directory_that_cannot_be_written_costs_a_warning(tmp_path, capfd):
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    logs.configure_logging(directory=blocked / "logs")
    logger.info("still here")
    logs.close_logging()
    shown = capfd.readouterr().err
    assert "no log files" in shown
    assert "still here" in shown


def test_without_a_directory_no_file_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logs.configure_logging(directory=None)
    logger.info("x")
    logs.close_logging()
    assert list(tmp_path.iterdir()) == []


def test_a_full_file_is_replaced_compressed_and_bounded_in_number(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "ROTATION", 2_000)
    monkeypatch.setattr(logs, "RETENTION", 2)

    def log():
        for number in range(100):
            logger.info("line {:03d} {}", number, "x" * 100)

    lines = written(tmp_path, log, name="app.log")
    old = sorted(tmp_path.glob("app.*.gz"), key=lambda path: path.stat().st_mtime)
    assert len(old) == 2
    with gzip.open(old[-1], "rt", encoding="utf-8") as file:
        assert len(file.read().splitlines()) > 5
    assert "line 099" in lines[-1]


def test_files_are_closed_to_others(tmp_path):
    written(tmp_path, lambda: None)
    assert (tmp_path / "app.log").stat().st_mode & 0o007 == 0


class Stuck:
    """A sink on a disk that hangs until it is let go."""

    def __init__(self):
        self.go = threading.Event()
        self.entered = threading.Event()
        self.lines = []

    def write(self, line):
        self.entered.set()
        self.go.wait(60)
        self.lines.append(line)


def test_a_disk_that_hangs_stops_neither_log_calls_nor_the_end(monkeypatch, capfd):
    monkeypatch.setattr(logs, "MAX_QUEUED", 5)
    stuck = Stuck()
    monkeypatch.setattr(sys, "stderr", stuck)
    logs.configure_logging(directory=None)
    monkeypatch.undo()
    monkeypatch.setattr(logs, "MAX_QUEUED", 5)
    logger.info("first")
    assert stuck.entered.wait(30)
    for _ in range(8):
        logger.info("further")
    assert logs.dropped_lines() == 3
    logs.close_logging(timeout=0.01)
    shown = capfd.readouterr().err
    assert "could not be written in time" in shown
    assert "3 log lines were dropped" in shown
    stuck.go.set()
    for thread in threading.enumerate():
        if thread.name == "logs":
            thread.join(30)
    assert "".join(stuck.lines).count("\n") == 6


PROGRAM = """
import asyncio, signal, sys
from loguru import logger
from relay.observability.logs import configure_logging

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    for number in range(5000):
        logger.debug("line {}", number)
    print("ready", flush=True)
    await stop.wait()
    logger.info("the last line")

configure_logging(directory=sys.argv[1], level="ERROR")
asyncio.run(main())
"""


def test_at_the_end_on_sigterm_no_line_is_lost(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
    lines = read(tmp_path)
    assert len(lines) == 5001
    assert "the last line" in lines[-1]


DONE = Done(
    "gpt",
    "gpt-6-luna",
    FinishReason.STOP,
    Usage(3, 4, False),
    [EndedAttempt("gpt", "gpt-6-luna", "ok", 9)],
    Timing(5, 9),
)


def test_an_answers_end_is_one_line_at_the_level_of_its_gravity(tmp_path):
    def log():
        logs.log_stream_end(STREAM, DONE)
        logs.log_stream_end(STREAM, Failed(Code.CONTENT_POLICY, "no", False))
        logs.log_stream_end(STREAM, Failed(Code.PROVIDERS_EXHAUSTED, "no", True, attempts=[]))

    done, refused, failed = written(tmp_path, log)
    assert "done stop: 3 + 4 tokens" in done
    assert [line.split()[1] for line in (done, refused, failed)] == ["INFO", "INFO", "ERROR"]
    assert not [line for line in (done, refused, failed) if STREAM in line]


def test_requests_and_attempts_have_their_lines(tmp_path):
    def log():
        logs.log_request("GET", "/streams/{stream}", 200, 0.0123, "10.0.0.1")
        logs.log_attempt(STREAM, EndedAttempt("gpt", "m", "provider_timeout", 7, hedge=True))
        logs.log_attempt(STREAM, EndedAttempt("gpt", "m", "ok", 7))

    request, failed, fine = written(tmp_path, log)
    assert "GET /streams/{stream} 200 in 12 ms client=10.0.0.1" in request
    assert "WARNING" in failed
    assert "attempt provider_timeout (hedge) after 7 ms target=gpt:m" in failed
    assert "DEBUG" in fine


def test_the_probes_of_an_orchestrator_are_said_only_to_who_debugs(tmp_path):
    def log():
        for route in ("/livez", "/readyz", "/health"):
            logs.log_request("GET", route, 200, 0.001, "10.0.0.1")

    levels = [line.split()[1] for line in written(tmp_path, log)]
    assert levels == ["DEBUG", "DEBUG", "INFO"]


@pytest.mark.parametrize(
    ("code", "level"),
    [
        ("draining", "INFO"),
        ("cancelled", "INFO"),
        ("context_length", "INFO"),
        ("internal", "ERROR"),
    ],
)
def test_only_what_the_relay_could_not_do_is_an_error(tmp_path, code, level):
    def log():
        logs.log_stream_end(STREAM, Failed(Code(code), "why", retryable=True))

    (line,) = written(tmp_path, log)
    assert line.split()[1] == level


def test_connections_have_their_lines(tmp_path):
    def log():
        logs.log_greeting("c1", resumed=False)
        logs.log_greeting("c1", resumed=True)
        logs.log_refusal("c1", Code.BAD_REQUEST)
        logs.log_disconnection("c1", 1000, 2.34, "10.0.0.1")
        logs.log_disconnection("c1", None, 0, "2001:db8::7")

    lines = written(tmp_path, log)
    assert [line.split(" | ")[1] for line in lines] == [
        "session opened",
        "session resumed",
        "refused: bad_request",
        "/ws closed 1000 after 2.3 s client=10.0.0.1",
        "/ws closed without a close frame after 0.0 s client=2001:db8::7",
    ]
    assert [line.split()[1] for line in lines] == ["DEBUG", "DEBUG", "INFO", "INFO", "INFO"]
    assert all(" connection=c1 session=- stream=- " in line for line in lines)


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_secret_passes_in_what_answers_and_requests_say(tmp_path, format):
    served = Done(KEY, f"m-{KEY}", FinishReason.STOP, Usage(3, 4, False), [], Timing(None, 9))

    def log():
        logs.log_stream_start(STREAM, KEY)
        logs.log_attempt(STREAM, EndedAttempt(KEY, KEY, KEY, 7))
        logs.log_stream_end(STREAM, served)
        logs.log_request(KEY, "/", 200, 0.1, KEY)
        logs.log_request("Bearer 0123456789", "/", 200, 0.1, "sk-abcdefgh12345678")

    lines = written(tmp_path, log, secrets=(KEY,), format=format)
    assert len(lines) == 5
    assert all("[redacted]" in line for line in lines)
    assert not [line for line in lines if KEY in line or "abcdefgh" in line or "01234" in line]


@pytest.mark.parametrize("format", ["text", "json"])
def test_what_an_answer_says_stands_in_order_among_the_other_lines_and_looks_like_them(
    tmp_path, format
):
    def log():
        with logs.context(connection="c1", session=SESSION):
            with logs.context(stream=STREAM):
                logger.info("accepted a chat for gpt")
            logs.log_stream_start(STREAM, "gpt")
            with logs.context(stream=STREAM):
                logger.info("accepted a chat for gpt")
        logs.log_stream_start(STREAM, "gpt")
        with logs.context(stream=STREAM):
            logger.info("accepted a chat for gpt")

    lines = written(tmp_path, log, format=format)
    assert ["relay.observability.logs" in line for line in lines] == [
        *(False, True, False),
        *(True, False),
    ]
    if format == "json":
        told = [json.loads(line) for line in lines]
        times = [each.pop("time") for each in told]
        for each in told:
            del each["source"]
        assert told[0] == told[1] == told[2]
        assert told[3] == told[4]
    else:
        times = [line.split()[0] for line in lines]
        told = [line.split()[3:] for line in lines]
        assert told[0] == told[1] == told[2]
        assert told[3] == told[4]
    assert times == sorted(times)
    assert len({time[19:20] + time[23:] for time in times}) == 1


def test_a_line_that_no_output_takes_is_not_even_noted(monkeypatch, capfd):
    logs.configure_logging(directory=None, level="INFO")
    monkeypatch.setattr(logs, "LogEntry", None)
    logs.log_greeting("c1", resumed=False)
    logs.log_attempt(STREAM, EndedAttempt("gpt", "m", "ok", 7))
    with pytest.raises(TypeError):
        logs.log_stream_end(STREAM, DONE)
    logs.close_logging()
    assert capfd.readouterr().err == ""


def test_a_context_ends_with_its_block_and_also_where_the_block_raises(tmp_path):
    def log():
        with pytest.raises(KeyError), logs.context(connection="c1"):
            raise KeyError
        logs.log_stream_start(STREAM, "gpt")
        logger.info("outside")

    assert all("connection=- " in line for line in written(tmp_path, log))


def test_what_is_no_http_costs_one_calm_line_and_no_trace(tmp_path):
    def log():
        try:
            raise BadHttpMessage("\x16\x03\x01")
        except BadHttpMessage:
            logging.getLogger("aiohttp.server").exception("Error handling request")

    (line,) = written(tmp_path, log)
    assert "INFO" in line
    assert "Traceback" not in line


def test_a_token_that_a_client_offers_as_a_subprotocol_is_not_logged(tmp_path):
    def log():
        logging.getLogger("aiohttp.websocket").warning("Client protocols %r", ["token.SECRET"])
        logs.log_request("GET", "/ws", 101, 0.1, "10.0.0.1")

    assert "SECRET" not in "".join(written(tmp_path, log))
