"""Every field of every frame of the server reaches who uses a client, in Python and in a
browser, under its name on the wire or the one that `docs/client.md` says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from relay.client import ClientError
from relay.client.answer import Answer, AnswerFailed
from relay.client.session import Problem, Ready, Session, Tell
from relay.client.terminal import as_json
from relay.protocol.frames import SERVER_FRAMES
from relay.protocol.schema import json_schema
from tests.frames import server_frame

ROOT = Path(__file__).parents[2]
DEFINITIONS = json_schema()["$defs"]

BOOKKEEPING = {"type", "id", "seq", "first"}
"""What the clients themselves live by; in Python `event.frame` has it too."""

PYTHON_NAMES = {
    "from": {"from_provider": "provider", "from_model": "model"},
    "to": {"to_provider": "provider", "to_model": "model"},
}
"""Fields of a frame that are several attributes of an event."""

JAVASCRIPT_NAMES = {"retry_after": "retryAfter"}


def sample(schema: dict[str, Any], *, whole: bool) -> Any:
    """A value that fits a schema; `whole`: with every field that there may be."""
    if "$ref" in schema:
        return sample(DEFINITIONS[schema["$ref"].rpartition("/")[2]], whole=whole)
    if forms := schema.get("anyOf") or schema.get("oneOf"):
        return sample(forms[0], whole=whole)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][-1]
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {"any": {"type": "string"}})
            due = fields if whole else schema.get("required", ())
            return {name: sample(fields[name], whole=whole) for name in due}
        case "array":
            return [sample(schema["items"], whole=whole)]
        case "string":
            return "text"
        case "boolean":
            return True
        case "integer":
            return 1
        case "number":
            return 2.5
    raise AssertionError(schema)


def frame(tag: str, *, whole: bool = True) -> dict[str, Any]:
    """A frame of the server, with every field or with none that may be left out."""
    made: dict[str, Any] = sample(DEFINITIONS[SERVER_FRAMES[tag].__name__], whole=whole)
    server_frame.validate_python(made)
    return made


def answer(*, whole: bool, end: str) -> list[dict[str, Any]]:
    """The frames of one answer."""
    tags = ["start", "token", "reasoning", "tool_call", "fallback", end]
    frames = [frame(tag, whole=whole) | {"id": "a", "seq": n} for n, tag in enumerate(tags)]
    return [each | ({"first": each["seq"]} if "first" in each else {}) for each in frames]


def session() -> Session:
    """A Python client's session with the chat `a` under way."""
    made = Session("s" * 24)
    made.add(Answer("a", {}))
    made.opened(1)
    return made


def told(frames: list[dict[str, Any]]) -> list[Any]:
    """The events, and the failure at the end, that the frames of an answer are in Python."""
    played, found = session(), []
    for each in frames:
        (tell,) = (act for act in played.received(1, each) if isinstance(act, Tell))
        found.append(tell.event or tell.answer.failure)
    return found


@pytest.mark.parametrize("end", ["done", "error"])
@pytest.mark.parametrize("whole", [True, False], ids=["every field", "no optional field"])
def test_python_tells_each_frame_as_it_came(whole: bool, end: str) -> None:
    frames = [each | {"a_field_to_come": {"x": None}} for each in answer(whole=whole, end=end)]
    for each, event in zip(frames, told(frames), strict=True):
        assert event.frame == each
        assert json.loads(as_json(event)) == each


@pytest.mark.parametrize("end", ["done", "error"])
def test_python_has_an_attribute_for_each_field(end: str) -> None:
    frames = answer(whole=True, end=end)
    for each, event in zip(frames, told(frames), strict=True):
        for name in each.keys() - BOOKKEEPING:
            for attribute, part in PYTHON_NAMES.get(name, {name: None}).items():
                value = each[name] if part is None else each[name][part]
                assert getattr(event, attribute) == value, (each["type"], name)


def test_python_hands_ready_and_errors_of_no_chat_on_as_they_came() -> None:
    ready, refused = frame("ready"), frame("error") | {"id": "nobody"}
    del refused["seq"]
    assert Ready(ready) in session().received(1, ready)
    (problem,) = session().received(1, refused)
    assert isinstance(problem, Problem)
    assert problem.failure.frame == refused


def test_the_errors_of_python_have_one_shape() -> None:
    for failure in (AnswerFailed.from_frame(frame("error")), ClientError("unreachable", "")):
        for name in ("code", "message", "retryable", "retry_after", "attempts", "frame"):
            assert hasattr(failure, name), (failure, name)


PLAY = """
import { RelayClient } from '%(module)s';
const { answers, ready, problem } = JSON.parse(process.argv[1]);
let socket, sent;
class Played {
  constructor() { socket = this; this.readyState = 1; setTimeout(() => this.onopen()); }
  send() { sent(); }
  close() {}
}
const say = (frame) => socket.onmessage({ data: JSON.stringify(frame) });
const plain = ({ type, error, ...fields }) =>
  error ? { type, ...error, message: error.message } : { type, ...fields };
const out = [];
for (const frames of answers) {
  const client = new RelayClient('ws://test/ws', { WebSocket: Played });
  const other = [];
  client.on('ready', (event) => other.push(event.frame));
  client.on('problem', (event) => other.push(event.frame));
  const chat = client.chat({ id: 'a', messages: 'hi' });
  const live = [];
  chat.on('*', (event) => live.push(plain(event)));
  await new Promise((resolve) => { sent = resolve; });
  say(ready);
  say(problem);
  for (const frame of frames) say(frame);
  const late = [];
  try {
    for await (const event of chat) late.push(event);
  } catch (error) {
    late.push(plain({ type: 'error', error }));
  }
  out.push({ live, late, other, last: chat.answer.last, id: chat.id });
  client.close();
}
console.log(JSON.stringify(out));
process.exit(0);
"""


def played(*answers: list[dict[str, Any]], problem: dict[str, Any]) -> list[dict[str, Any]]:
    """What the browser's client tells of each answer, to who listens from the beginning and
    to who reads it later."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    code = PLAY % {"module": (ROOT / "relay" / "web" / "relay-client.js").as_uri()}
    given = json.dumps({"answers": answers, "ready": frame("ready"), "problem": problem})
    ran = subprocess.run(
        [node, "--input-type=module", "-e", code, given],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    return found


def in_a_browser(each: dict[str, Any]) -> dict[str, Any]:
    """A frame as the browser client's event, by the table of the document."""
    names = {name: name for name in each.keys() - BOOKKEEPING}
    if each["type"] == "error":
        names = {name: JAVASCRIPT_NAMES.get(name, name) for name in names}
    return {new: each[name] for name, new in names.items()} | {"type": EVENTS[each["type"]]}


def documented(column: int) -> dict[str, str]:
    """The table of frames in the clients' document: what each is called in one column."""
    text = (ROOT / "docs" / "client.md").read_text("utf-8")
    table = text.partition("| frame | Python | browser |")[2].partition("\n\n")[0]
    rows = [line.strip("|").split("|") for line in table.strip().splitlines()[1:]]
    return {
        tag: next(iter(re.findall(r"`(\w+)`", cells[column])), "")
        for cells in rows
        for tag in re.findall(r"`(\w+)`", cells[0])
    }


EVENTS = documented(2)


def test_the_document_has_a_row_for_every_frame() -> None:
    assert set(EVENTS) == set(SERVER_FRAMES)


def test_the_document_names_the_events_of_python() -> None:
    names = documented(1)
    for end in ("done", "error"):
        frames = answer(whole=True, end=end)
        for each, event in zip(frames, told(frames), strict=True):
            assert type(event).__name__ == names[each["type"]]


def test_the_browser_tells_every_field_of_every_frame() -> None:
    answers = [answer(whole=whole, end=end) for whole in (True, False) for end in ("done", "error")]
    problem = frame("error") | {"id": "nobody"}
    del problem["seq"]
    for frames, seen in zip(answers, played(*answers, problem=problem), strict=True):
        wanted = [in_a_browser(each) for each in frames]
        for events in (seen["live"], sorted(seen["late"], key=order(wanted))):
            for want, event in zip(wanted, events, strict=True):
                assert {name: event.get(name) for name in want} == want
                if event["type"] == "error":
                    assert event["frame"] == frames[-1]
                else:
                    assert event == want
        assert seen["other"] == [frame("ready"), problem]
        assert (seen["id"], seen["last"]) == ("a", len(frames) - 1)


def order(wanted: list[dict[str, Any]]) -> Any:
    """Sorts the events of a late reader, to whom the text comes as one piece behind the
    fallbacks, as they are sorted on the wire."""
    types = [each["type"] for each in wanted]
    return lambda event: types.index(event["type"])
