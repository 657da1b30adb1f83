"""What reaches a terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.answer import Answer, ClientError, Done, Fallback, Reasoning, Text, ToolCall
from relay.client.terminal import Printer, as_json, explain, footnote, plain
from relay.client.transport import websocket_url

BACK = Fallback("x", "x1", "y", "y1", "provider_timeout", keep=False)


def printed(*events: object, **options: bool) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    printer = Printer(out, err, **options)
    for event in events:
        printer.show(event)  # type: ignore[arg-type]
    return out.getvalue(), err.getvalue()


@given(st.text())
def test_no_control_character_passes_but_newline_and_tab(text: str) -> None:
    left = plain(text)
    assert not any((ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in left)
    assert "".join(c for c in left if c.isprintable()) == "".join(
        c for c in text if c.isprintable()
    )


def test_text_goes_to_out_and_the_rest_to_err() -> None:
    call = ToolCall("c", "f", {"x": "\x1b"})
    out, err = printed(Text("hi"), call, Done("claude", "m\x1b[2J", "length"))
    assert out == "hi\n"
    assert err == '[calls f({"x": "\\u001b"})]\n[claude m[2J · length]\n'


def test_thinking_is_shown_only_when_asked_for() -> None:
    assert printed(Reasoning("hm")) == ("", "")
    assert printed(Reasoning("hm"), reasoning=True) == ("", "hm")


def test_a_discarded_beginning_is_said_to_be_discarded() -> None:
    out, err = printed(Text("wrong"), BACK, Text("right"))
    assert out == "wrong\nright"
    assert err == "[provider_timeout: discard the text above, y y1 starts over]\n"


def test_a_fallback_before_any_text_discards_nothing() -> None:
    assert printed(BACK)[1] == "[provider_timeout: y y1 answers]\n"


def test_a_fallback_that_keeps_the_text_goes_on_with_it() -> None:
    kept = replace(BACK, keep=True)
    assert printed(Text("so far"), kept)[1] == "[provider_timeout: y y1 goes on]\n"


def test_an_explanation_is_one_line_that_says_what_to_do() -> None:
    line = explain(ClientError("unauthorized", "no\nnewline \x1b[1m"))
    assert line == "unauthorized: no newline [1m - give a valid token with --token or RELAY_TOKEN"
    assert explain(ClientError("internal", "x", retryable=True, retry_after=3)).endswith(
        "ask again (after 3 s)"
    )


def test_the_footnote_names_model_time_tokens_and_cost() -> None:
    usage = {"input_tokens": 1, "output_tokens": 9, "estimated": True}
    done = Done("gpt", "m", "stop", usage, [], {"total_ms": 1500}, 0.0012)
    assert footnote(done) == "gpt m · 1.5 s · ~9 tokens · $0.0012"


def test_json_is_ascii_and_named_as_on_the_wire() -> None:
    _, event = Answer("a", {}).apply({"type": "token", "seq": 0, "text": "é\x1b"})
    assert event is not None
    assert as_json(event) == '{"type": "token", "seq": 0, "text": "\\u00e9\\u001b"}'


def test_a_failure_that_the_client_noticed_has_the_shape_of_an_error_frame() -> None:
    own = {"type": "error", "code": "unreachable", "message": "no relay", "retryable": True}
    assert json.loads(as_json(ClientError("unreachable", "no relay", retryable=True))) == own
    late = ClientError("unreachable", "no relay", retryable=True, retry_after=2)
    assert json.loads(as_json(late)) == {**own, "retry_after": 2}


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("127.0.0.1:3050", "ws://127.0.0.1:3050/ws"),
        ("https://a.example", "wss://a.example/ws"),
        ("ws://[::1]:1/other", "ws://[::1]:1/other"),
    ],
)
def test_an_address_is_completed(given: str, address: str) -> None:
    assert websocket_url(given) == address


@pytest.mark.parametrize("given", ["ftp://a", "ws://", "", "a:99999", "a:x"])
def test_what_is_no_address_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(ValueError, match="for example ws://"):
        websocket_url(given)
