"""The vendors' error statuses, bodies and headers."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from lab.upstreams.steps import Refuse, Trouble


class ErrorReply(NamedTuple):
    """An error response as it goes over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


_OPENAI: dict[Trouble, tuple[int, str, str | None, str]] = {
    "rate_limit": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "server_error": (500, "server_error", None, "The server had an error."),
    "overloaded": (503, "service_unavailable", None, "The server is overloaded."),
    "context_length": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens.",
    ),
    "policy": (
        400,
        "invalid_request_error",
        "content_policy_violation",
        "Your request was rejected as a result of our safety system.",
    ),
    "auth": (
        401,
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided: sk-wrong-key-1234567890.",
    ),
    "not_found": (404, "invalid_request_error", "model_not_found", "The model does not exist."),
    "bad_request": (400, "invalid_request_error", None, "Invalid value for 'messages'."),
    "prefill": (400, "invalid_request_error", None, "The last message must be the user's."),
}
_ANTHROPIC: dict[Trouble, tuple[int, str, str]] = {
    "rate_limit": (429, "rate_limit_error", "This request would exceed your rate limit."),
    "quota": (402, "billing_error", "There is an issue with your billing."),
    "server_error": (500, "api_error", "Internal server error"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "context_length": (
        400,
        "invalid_request_error",
        "prompt is too long: 208310 tokens > 200000 maximum",
    ),
    "policy": (400, "invalid_request_error", "Output blocked by content filtering policy"),
    "auth": (401, "authentication_error", "invalid x-api-key sk-ant-wrong-1234567890"),
    "not_found": (404, "not_found_error", "model: claude-none"),
    "bad_request": (400, "invalid_request_error", "messages: at least one message is required"),
    "prefill": (
        400,
        "invalid_request_error",
        "This model does not support assistant message prefill.",
    ),
}
_GEMINI: dict[Trouble, tuple[int, str, str]] = {
    "rate_limit": (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted."),
    "quota": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota."),
    "server_error": (500, "INTERNAL", "An internal error has occurred."),
    "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "context_length": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "policy": (400, "INVALID_ARGUMENT", "The request violates our content policy."),
    "auth": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "not_found": (404, "NOT_FOUND", "models/gemini-none is not found for API version v1."),
    "bad_request": (400, "INVALID_ARGUMENT", "contents is not specified"),
    "prefill": (400, "INVALID_ARGUMENT", "Please ensure that the last turn is a user's."),
}


def reply(vendor: str, refusal: Refuse) -> ErrorReply:
    """The error response of `vendor` for `refusal`."""
    status, body = _BODIES[vendor](refusal)
    headers = {"content-type": "application/json", **refusal.headers}
    if refusal.retry_after is not None and vendor != "gemini":
        headers["retry-after"] = f"{refusal.retry_after:g}"
    own = json.dumps(body).encode()
    return ErrorReply(status, headers, own if refusal.body is None else refusal.body)


def _openai(refusal: Refuse) -> tuple[int, dict[str, Any]]:
    status, kind, code, message = _OPENAI[refusal.trouble]
    return status, {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _anthropic(refusal: Refuse) -> tuple[int, dict[str, Any]]:
    status, kind, message = _ANTHROPIC[refusal.trouble]
    error = {"type": kind, "message": message}
    return status, {"type": "error", "error": error, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def _gemini(refusal: Refuse) -> tuple[int, dict[str, Any]]:
    status, name, message = _GEMINI[refusal.trouble]
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    if details := _details(refusal):
        error["details"] = details
    return status, {"error": error}


def _details(refusal: Refuse) -> list[dict[str, Any]]:
    details: list[dict[str, Any]] = []
    prefix = "type.googleapis.com/google.rpc"
    if refusal.trouble == "auth":
        info = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
        details.append({"@type": f"{prefix}.ErrorInfo", **info})
    if refusal.trouble in ("quota", "rate_limit"):
        span = "PerDay" if refusal.trouble == "quota" else "PerMinute"
        quota = {"quotaId": f"GenerateRequests{span}PerProjectPerModel-FreeTier"}
        details.append({"@type": f"{prefix}.QuotaFailure", "violations": [quota]})
    if refusal.retry_after is not None:
        delay = f"{refusal.retry_after:g}s"
        details.append({"@type": f"{prefix}.RetryInfo", "retryDelay": delay})
    return details


_BODIES = {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini}
