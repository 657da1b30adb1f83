"""Tells whether a JSON object that an upstream sent speaks of a failure, pure.

Vendors and the gateways before them have no shape for this in common. What is read here was
seen of them: OpenAI's and Google's `error`, FastAPI's `detail`, MiniMax' `base_resp`, Alibaba's
bare `code` and `message`, a `success` that is false.
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
"""Where a vendor's message stands in an object that tells of a failure."""
_FINE = frozenset({"", "0", "200", "ok", "success", "succeeded", "none", "null", "false"})
"""Codes and statuses that tell of no failure, in lower case."""
_BAD = frozenset({"error", "exception", "failed", "failure", "fail"})
_LIFE = frozenset({"ping", "pong", "heartbeat", "keepalive", "keep-alive", "keep_alive"})


def failure(value: dict[str, Any]) -> Any:
    """The error that `value` tells of: an object, or a vendor's words; None where it tells
    of none. To be asked of objects that are no part of an answer."""
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
    """The errors one level down, as in Groq's `x_groq`, and in the choices. What a filter that
    failed says of itself breaks nothing (Azure's `content_filter_results`)."""
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
    """The error object that MiniMax' own status, `base_resp`, stands for; None where it says
    that all is well."""
    if not isinstance(response, dict) or _is_fine(response.get("status_code")):
        return None
    return {"code": f"base_resp_{response['status_code']}", "message": message(response)}


def message(error: dict[str, Any]) -> str:
    """What an error object says, empty where it says nothing."""
    said = (_text(error.get(name)) for name in _SAYING)
    return next((text for text in said if text), "")


def is_sign_of_life(value: dict[str, Any]) -> bool:
    """Whether an object only shows that the upstream is there, or that all is well."""
    named = (*value.keys(), value.get("type"), value.get("object"), value.get("event"))
    return any(map(is_life, named)) or _is_well(value)


def is_life(word: object) -> bool:
    """Whether a word is one by which servers only show that they are there."""
    return isinstance(word, str) and word.lower() in _LIFE


def _is_well(value: dict[str, Any]) -> bool:
    """Whether it says in so many words that nothing failed."""
    codes = [value.get(name) for name in ("code", "status_code", "status") if name in value]
    return value.get("success") is True or any(code and _is_fine(code) for code in codes)


def _text(said: object) -> str:
    """Words, or those of a list of faults, each with its place (FastAPI's `detail`)."""
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
