"""What secrets look like, and how they are removed from text that people read. Pure."""

from __future__ import annotations

import re

HIDDEN = "[redacted]"
"""The text that replaces a secret."""

MIN_SECRET_LENGTH = 8
"""Shorter configured keys are placeholders such as `none`; hiding them would damage ordinary words
and protect nothing."""

_SHAPES: tuple[tuple[tuple[str, ...], str], ...] = (
    # RFC 6750, RFC 7617
    (("bearer", "basic"), r"""(?P<scheme>\b(?:bearer|(?-i:Basic))\s+)[^\s"',;]{8,}"""),
    (
        ("api", "access_token", "access_key", "authorization"),
        r"""(?P<field>["']?\b(?:x-api-key|x-goog-api-key|api[-_]?key|access_token
            |secret_access_key|aws_secret_access_key|authorization)
            ["']?\s*[:=]\s*["']?(?:(?:bearer|basic)\s+)?)[^\s"',;&]+""",
    ),
    (
        ("key=", "token=", "secret=", "password=", "sig=", "signature="),
        r"""(?P<query>[?&](?:key|token|secret|client_secret|password|sig|signature)=)
            [^\s"'&\#]+""",
    ),
    # Credentials in a URL, also a name alone: some services take a token as the name.
    (("://",), r"""(?P<user>://)[^\s/?\#"']{1,320}(?=@)"""),
    # OpenAI, Anthropic and most compatible vendors; Cerebras, Groq, xAI, Perplexity, NVIDIA.
    # A vendor that quotes a refused key shows its ends: `sk-proj-****wxyz`, `sk-...wxyz`.
    (
        ("sk-", "rk-", "pk-", "xai-", "pplx-", "nvapi-"),
        r"""\b(?:sk|csk|gsk|rk|pk|xai|pplx|nvapi)-
            (?:[a-z0-9_-]*(?:\*{2,}|\.{3}|…)[a-z0-9_*-]{2,}|[a-z0-9_-]{8,})""",
    ),
    (("key-", "key_"), r"\bkey[-_](?=[a-z]*[0-9])[a-z0-9]{16,}"),
    (("k_live_", "k_test_"), r"\b[spr]k_(?:live|test)_[a-z0-9]{8,}"),
    (("gsk_",), r"\bgsk_[a-z0-9]{8,}"),
    # Hugging Face, GitHub, Replicate, Fireworks
    (
        ("hf_", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "r8_", "fw_"),
        r"\b(?:hf|gh[oprsu]|r8|fw)_[a-z0-9]{16,}",
    ),
    (("github_pat_",), r"\bgithub_pat_[a-z0-9_]{16,}"),
    # Google: API keys, the newer ones, OAuth
    (("aiza",), r"\bAIza[a-z0-9_-]{10,}"),
    (("aq.",), r"\b(?-i:AQ)\.[a-z0-9_-]{20,}"),
    (("ya29.",), r"\bya29\.[a-z0-9_.-]{16,}"),
    # Amazon: the id of a key, a key of Bedrock's
    (("akia", "asia"), r"\b(?-i:AKIA|ASIA)(?-i:[A-Z0-9]{16})\b"),
    (("absk",), r"\b(?-i:ABSK)[a-z0-9+/]{20,}={0,2}"),
    # JSON Web Tokens, signed and encrypted
    (("eyj",), r"\beyJ[a-z0-9_-]{4,999}+\.[a-z0-9_-]{1,9999}(?:\.[a-z0-9_-]*){0,3}"),
)
"""Signs in lower case, and a pattern that ignores case: every text that matches the pattern holds
at least one of its signs. A named group of the pattern is not hidden."""

_SIGNS = tuple(sign for signs, _ in _SHAPES for sign in signs)
_FLAGS = re.VERBOSE | re.IGNORECASE | re.ASCII  # a key may follow a letter that is not ASCII
_ANY = re.compile("|".join(shape for _, shape in _SHAPES), _FLAGS)


def hide_shapes(text: str) -> str:
    """`text` without what looks like a key, a token or a credential."""
    return _ANY.sub(_without_value, text) if _suspicious(text) else text


def _suspicious(text: str) -> bool:
    """Whether a shape may be in it: looking for signs costs a tenth of looking for shapes."""
    small = text.lower()
    return any(sign in small for sign in _SIGNS)


def _without_value(match: re.Match[str]) -> str:
    return f"{match[match.lastgroup] if match.lastgroup else ''}{HIDDEN}"
