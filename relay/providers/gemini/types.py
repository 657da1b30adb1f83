"""The fields of a streamGenerateContent chunk that the decoder reads, as msgspec structs.

In a module of its own because mypyc (`scripts/compile.py`) can't compile classes that msgspec
makes. Source: the official SDK's types (`google.genai.types`).
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Struct

from relay.providers.decoding.tolerant import WORDS, Count


class FunctionCall(Struct, gc=False):
    """A complete tool call."""

    id: str | None = None
    name: Annotated[str, WORDS] = ""
    args: Annotated[dict[str, Any] | None, WORDS] = None


class GeminiPart(Struct, rename="camel", gc=False):
    """A part of the answer."""

    text: Annotated[str | None, WORDS] = None
    thought: bool | None = None
    function_call: Annotated[FunctionCall | None, WORDS] = None
    thought_signature: str | None = None


class Content(Struct, gc=False):
    """What a chunk adds to a candidate."""

    parts: Annotated[list[GeminiPart] | None, WORDS] = None


class Candidate(Struct, rename="camel", gc=False):
    """One of the requested answers."""

    content: Annotated[Content | None, WORDS] = None
    finish_reason: Annotated[str | None, WORDS] = None
    index: int | None = None
    error: Any = None


class Feedback(Struct, rename="camel", gc=False):
    """Why a prompt was not answered."""

    block_reason: Annotated[str | None, WORDS] = None


class GeminiUsage(Struct, rename="camel", gc=False):
    """Tokens used so far."""

    prompt_token_count: Count | None = None
    tool_use_prompt_token_count: Count | None = None
    candidates_token_count: Count | None = None
    thoughts_token_count: Count | None = None
    cached_content_token_count: Count | None = None


class GeminiChunk(Struct, rename="camel", gc=False):
    """One event."""

    candidates: Annotated[list[Candidate] | None, WORDS] = None
    prompt_feedback: Feedback | None = None
    usage_metadata: GeminiUsage | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None
