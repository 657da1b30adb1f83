from __future__ import annotations

import pytest

from relay.core.errors import Code
from relay.providers.decoding.verdicts import (
    MALFORMED,
    MISSING,
    OUT_OF_QUOTA,
    OVERLOADED,
    RATE_LIMITED,
    REFUSED,
    TIMED_OUT,
    TOO_LONG,
    UNAUTHENTIC,
    UNSUPPORTED,
    by_code,
    by_status,
    by_words,
)


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (400, Code.BAD_REQUEST, "none"),
        (401, Code.PROVIDER_AUTH, "fallback"),
        (402, Code.PROVIDER_RATE_LIMITED, "fallback"),
        (403, Code.PROVIDER_AUTH, "fallback"),
        (404, Code.PROVIDER_ERROR, "fallback"),
        (405, Code.PROVIDER_ERROR, "fallback"),
        (408, Code.PROVIDER_TIMEOUT, "retry"),
        (409, Code.PROVIDER_ERROR, "retry"),
        (410, Code.PROVIDER_ERROR, "fallback"),
        (413, Code.CONTEXT_LENGTH, "fallback"),
        (418, Code.PROVIDER_ERROR, "fallback"),
        (422, Code.BAD_REQUEST, "none"),
        (424, Code.PROVIDER_ERROR, "retry"),
        (425, Code.PROVIDER_ERROR, "retry"),
        (429, Code.PROVIDER_RATE_LIMITED, "retry"),
        (451, Code.PROVIDER_ERROR, "fallback"),
        (498, Code.PROVIDER_OVERLOADED, "retry"),
        (499, Code.PROVIDER_INTERRUPTED, "retry"),
        (307, Code.PROVIDER_ERROR, "fallback"),
        (500, Code.PROVIDER_ERROR, "retry"),
        (502, Code.PROVIDER_ERROR, "retry"),
        (503, Code.PROVIDER_OVERLOADED, "retry"),
        (504, Code.PROVIDER_TIMEOUT, "retry"),
        (529, Code.PROVIDER_OVERLOADED, "retry"),
        (599, Code.PROVIDER_ERROR, "retry"),
    ],
)
def test_a_status_alone_has_a_code_and_a_remedy(status, code, remedy):
    assert by_status(status)[:2] == (code, remedy)


def test_only_what_is_surely_the_clients_fault_ends_the_answer():
    final = [status for status in range(300, 600) if by_status(status).remedy == "none"]
    assert final == [400, 422]


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("Throttling.RateQuota", RATE_LIMITED),
        ("TooManyRequests", RATE_LIMITED),
        ("InvalidApiKey", UNAUTHENTIC),
        ("data_inspection_failed", REFUSED),
        ("Arrearage", OUT_OF_QUOTA),
        ("engine_overloaded_error", OVERLOADED),
        ("capacity_exceeded", OVERLOADED),
        ("ContextLengthExceeded", TOO_LONG),
        ("RequestTimeOut", TIMED_OUT),
        ("ModelNotFound", MISSING),
        ("invalid_request_error", None),
        ("", None),
        (1302, None),
        (None, None),
    ],
)
def test_a_codes_name_tells_what_it_means(code, verdict):
    assert by_code(code) is verdict


TOO_LONG_SAID = [
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 3000",
    "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
    "Prompt exceeds max length",
    "Your request exceeded model token limit: 8192 (requested: 9000)",
    "Range of input length should be [1, 30720]",
    "too many tokens: the total number of tokens in the prompt cannot exceed 4081",
    "the request exceeds the available context size. try increasing the context size",
    "prompt is too long: 201000 tokens > 200000 maximum",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Please reduce the length of the messages or completion: 9000 tokens.",
    "输入长度超过限制",
]
OTHERS_SAID = [
    ("max_tokens is too large: 100000. This model supports at most 4096 tokens.", UNSUPPORTED),
    (
        "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens",
        UNSUPPORTED,
    ),
    ("Invalid 'tools[0].function.name': string too long, expected at most 64", MALFORMED),
    ("messages.0: image size exceeds the maximum of 5 MB", MALFORMED),
    ("'temperature' must be less than 2", MALFORMED),
    ("messages.2.content: image is not valid base64", MALFORMED),
    ("Conversation roles must alternate user/assistant/user", UNSUPPORTED),
    ("This model does not support image input", UNSUPPORTED),
    ("This model does not support assistant message prefill.", MALFORMED),
    ('"auto" tool choice requires --enable-auto-tool-choice to be set', UNSUPPORTED),
    ("Unrecognized request argument supplied: stream_options", UNSUPPORTED),
    ("stream_options: Extra inputs are not permitted", UNSUPPORTED),
    ("Incorrect API key provided: xa***", UNAUTHENTIC),
    ("Your credit balance is too low", OUT_OF_QUOTA),
    ("The model `grok-0` does not exist", MISSING),
    ("foo/bar is not a valid model ID", MISSING),
    ("The service is temporarily overloaded, try again later", OVERLOADED),
    ("Rate limit reached for this model", RATE_LIMITED),
    ("blocked by our content management policy", REFUSED),
    (None, MALFORMED),
]


@pytest.mark.parametrize("words", TOO_LONG_SAID)
def test_a_conversation_that_does_not_fit_is_told_by_words(words):
    assert by_words(MALFORMED, words) is TOO_LONG


@pytest.mark.parametrize(("words", "verdict"), OTHERS_SAID)
def test_words_tell_what_a_bad_request_hides(words, verdict):
    assert by_words(MALFORMED, words) is verdict


def test_words_do_not_overrule_a_status_that_says_enough():
    assert by_words(RATE_LIMITED, "prompt is too long") is RATE_LIMITED
