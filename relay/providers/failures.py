"""Tells whether a JSON object that an upstream sent speaks of a failure, pure.

Vendors and the gateways before them have no shape for this in common. What is read here was
seen of them: OpenAI's and Google's `error`, FastAPI's `detail`, MiniMax' `base_resp`, Alibaba's
bare `code` and `message`, a `success` that is false.
"""

from __future__ import annotations

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
    if _is_failed(value) or (message(value) and not is_sign_of_life(value)):
        return value
    return None


def base_response(response: object) -> dict[str, Any] | None:
    """The error object that MiniMax' own status, `base_resp`, stands for; None where it says
    that all is well."""
    if not isinstance(response, dict) or _is_fine(response.get("status_code")):
        return None
    return {"code": f"base_resp_{response['status_code']}", "message": message(response)}


def message(error: dict[str, Any]) -> str:
    """What an error object says, empty where it says nothing."""
    said = (error.get(name) for name in _SAYING)
    return next((text for text in said if isinstance(text, str) and text), "")


def is_sign_of_life(value: dict[str, Any]) -> bool:
    """Whether an object only shows that the upstream is there."""
    return any(
        isinstance(word, str) and word.lower() in _LIFE
        for word in (*value.keys(), value.get("type"), value.get("object"), value.get("event"))
    )


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
