"""What of a streamGenerateContent chunk the decoder reads, as msgspec decodes it.

Apart from the decoder, because compiling it (`scripts/compile.py`) is not for classes that
msgspec makes. Source: the official SDK's types (`google.genai.types`).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class FunctionCall(Struct, gc=False):
    """A tool call, whole."""

    id: str | None = None
    name: str = ""
    args: dict[str, Any] | None = None


class Part(Struct, rename="camel", gc=False):
    """A part of the answer."""

    text: str | None = None
    thought: bool | None = None
    function_call: FunctionCall | None = None
    thought_signature: str | None = None


class Content(Struct, gc=False):
    """What a chunk adds to a candidate."""

    parts: list[Part] | None = None


class Candidate(Struct, rename="camel", gc=False):
    """One of the answers asked for."""

    content: Content | None = None
    finish_reason: str | None = None
    index: int | None = None


class Feedback(Struct, rename="camel", gc=False):
    """Why a prompt was not answered."""

    block_reason: str | None = None


class Counts(Struct, rename="camel", gc=False):
    """What the answer cost so far, in tokens."""

    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None


class Chunk(Struct, rename="camel", gc=False):
    """One event."""

    candidates: list[Candidate] | None = None
    prompt_feedback: Feedback | None = None
    usage_metadata: Counts | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None
