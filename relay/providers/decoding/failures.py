"""Decides whether a JSON object that an upstream sent reports a failure; pure.

Vendors and the gateways in front of them share no format for this. The formats read here were all
seen: `error` of OpenAI and Google, `detail` of FastAPI, `base_resp` of MiniMax, a bare `code` and
`message` of Alibaba, a `success` that is false.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_SAYING = (
    "message",
    "msg",
    "detail",
    "error_message",
    "error_msg",
    "errorMessage",
    "status_msg",
    "err_msg",
)
"""The fields that may hold a vendor's message, in an object that reports a failure."""
_FINE = frozenset({"", "0", "200", "ok", "success", "succeeded", "none", "null", "false"})
"""Codes and statuses that mean no failure, in lower case."""
_BAD = frozenset({"error", "exception", "failed", "failure", "fail"})
_LIFE = frozenset({"ping", "pong", "heartbeat", "keepalive", "keep-alive", "keep_alive"})


def failure(value: dict[str, Any]) -> Any:
    """The error that `value` reports: an object, or the vendor's text; None if it reports none.
    Only for objects that are no part of an answer."""
    for name in ("error", "errors"):
        if error := value.get(name):
            return error[0] if isinstance(error, list) else error
    if (response := base_response(value.get("base_resp"))) is not None:
        return response
    if error := next(_inside(value), None):
        return error
    if _is_failed(value) or (message(value) and not is_sign_of_life(value)):
        return value
    return None


def _inside(value: dict[str, Any]) -> Iterator[Any]:
    """The errors one level down, as in Groq's `x_groq`, and in the choices. A content filter that
    itself failed (in Azure's `content_filter_results`) is no break."""
    for name, inner in value.items():
        if "filter" in name:
            continue
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict):
                delta = each.get("delta")
                yield from filter(None, (each.get("error"), _error_of(delta)))


def _error_of(value: object) -> Any:
    return value.get("error") if isinstance(value, dict) else None


def base_response(response: object) -> dict[str, Any] | None:
    """The error object for MiniMax' own status, `base_resp`; None if it reports success."""
    if not isinstance(response, dict) or _is_fine(response.get("status_code")):
        return None
    return {"code": f"base_resp_{response['status_code']}", "message": message(response)}


def message(error: dict[str, Any]) -> str:
    """The message of an error object; empty if it has none."""
    said = (_text(error.get(name)) for name in _SAYING)
    return next((text for text in said if text), "")


def is_sign_of_life(value: dict[str, Any]) -> bool:
    """Whether an object is only a sign of life or reports success."""
    named = (*value.keys(), value.get("type"), value.get("object"), value.get("event"))
    return any(map(is_life, named)) or _is_well(value)


def is_life(word: object) -> bool:
    """Whether a word is one that servers send only as a sign of life."""
    return isinstance(word, str) and word.lower() in _LIFE


def _is_well(value: dict[str, Any]) -> bool:
    """Whether the object states explicitly that nothing failed."""
    codes = [value.get(name) for name in ("code", "status_code", "status") if name in value]
    return value.get("success") is True or any(code and _is_fine(code) for code in codes)


def _text(said: object) -> str:
    """The text, or that of a list of faults, each with its place (FastAPI's `detail`)."""
    if isinstance(said, list):
        return "; ".join(_text(each) for each in said)
    if isinstance(said, dict):
        places = said.get("loc")
        where = ".".join(map(str, places)) if isinstance(places, list) else ""
        return f"{where}: {said.get('msg', '')}".strip(": ")
    return said if isinstance(said, str) else ""


def _is_failed(value: dict[str, Any]) -> bool:
    if value.get("success") is False or value.get("ok") is False:
        return True
    if any(_lower(value.get(name)) in _BAD for name in ("object", "type", "status", "event")):
        return True
    return not all(_is_fine(value.get(name)) for name in ("code", "status_code", "err_code"))


def _is_fine(code: object) -> bool:
    return code is None or code is True or _lower(code) in _FINE


def _lower(value: object) -> str:
    return str(value).lower() if isinstance(value, str | int) else ""
