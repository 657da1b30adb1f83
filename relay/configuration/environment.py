"""Parsers of environment values.

Pure. Each parser raises a `ValueError` whose message says what is wrong and never repeats a secret.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import urlsplit

from pydantic import SecretStr

from relay.core.addresses import DEFAULT_PORTS, Network, network_of

PROVIDER_SUFFIXES = ("BASE_URL", "API_KEY", "MODEL_DEFAULT", "MODEL_FALLBACKS")
"""What follows `{NAME}_` in the variables of a provider."""

MIN_TOKEN_LENGTH = 16
"""Characters of a client's token at least: shorter ones can be guessed."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUBJECT = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_VENDOR_OF = {"openai": "gpt", "anthropic": "claude", "google": "gemini"}


@dataclass(frozen=True, slots=True)
class Token:
    """A token that clients may send, and the `subject` that it stands for."""

    subject: str
    secret: SecretStr


def comma_list(text: str) -> tuple[str, ...]:
    """`a, b,,c` → (`a`, `b`, `c`)."""
    return tuple(item for part in text.split(",") if (item := part.strip()))


def is_provider_name(text: str) -> bool:
    """Whether `text` may name a provider or a route: it has to fit into a URL's path."""
    return _NAME.fullmatch(text) is not None


def variable_prefix(provider: str) -> str:
    """What the variables of an OpenAI-compatible provider begin with: `my-llm` → `MY_LLM`."""
    return re.sub(r"[^A-Z0-9]", "_", provider.upper())


def provider_names(text: str) -> tuple[str, ...]:
    """`SUPPORTED_PROVIDERS`: names, each once, no two sharing their variables."""
    names = comma_list(text)
    if not names:
        raise ValueError("names no provider")
    owners: dict[str, str] = {}
    for name in names:
        _check_provider_name(name)
        other = owners.setdefault(variable_prefix(name), name)
        if other is not name:
            raise ValueError(f"{name!r} and {other!r} would read the same variables")
    return names


def _check_provider_name(name: str) -> None:
    if name in _VENDOR_OF:
        raise ValueError(f"{name!r} is a vendor; the provider is named {_VENDOR_OF[name]!r}")
    if not is_provider_name(name):
        raise ValueError(f"{name!r} is not a name of letters, digits, '.', '_' and '-'")


def fallback_lists(text: str) -> dict[str, tuple[str, ...]]:
    """`PROVIDER_FALLBACKS`: `gpt=claude,gemini;claude=gpt`."""
    found: dict[str, tuple[str, ...]] = {}
    for rule in filter(None, (part.strip() for part in text.split(";"))):
        provider, equals, others = (piece.strip() for piece in rule.partition("="))
        names = comma_list(others)
        if not equals or not names:
            raise ValueError(f"{rule!r} is not of the form provider=other,other")
        if provider in found:
            raise ValueError(f"{provider!r} occurs twice")
        if provider in names or len(set(names)) < len(names):
            raise ValueError(f"{rule!r} names a provider twice")
        found[provider] = names
    return found


def base_url(text: str) -> str:
    """An absolute http or https URL without query, fragment or credentials."""
    parts = urlsplit(text)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError("is not an http or https URL")
    if parts.username or parts.password:
        raise ValueError("contains credentials; put them into the variable of the key")
    if parts.query or parts.fragment or not _VISIBLE.fullmatch(text):
        raise ValueError("contains a query, a fragment or a space")
    _ = parts.port  # raises ValueError where it is no port
    return text.rstrip("/")


def redis_url(text: str) -> SecretStr:
    """`REDIS_URL`, as redis-py takes it. It may carry a password."""
    parts = urlsplit(text.strip())
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("is not a redis, rediss or unix URL")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError("names no socket" if parts.scheme == "unix" else "names no host")
    _ = parts.port  # raises ValueError where it is no port
    return SecretStr(text.strip())


def api_key(text: str) -> str:
    """A key fit for an HTTP header: visible ASCII, no quotes around it."""
    if text[0] in "\"'":
        raise ValueError("has quotes around it")
    if not _VISIBLE.fullmatch(text):
        raise ValueError("has a space or another character that no key has")
    return text


def tokens(text: str) -> tuple[Token, ...]:
    """`RELAY_TOKENS`: `token` or `name=token`, comma-separated. One name may have several."""
    found = tuple(_token(item, place) for place, item in enumerate(comma_list(text), start=1))
    if len({token.secret.get_secret_value() for token in found}) < len(found):
        raise ValueError("contains one token twice")
    return found


def _token(item: str, place: int) -> Token:
    name, equals, rest = item.partition("=")
    bare = not equals or not rest.strip("=")  # base64 padding is no assignment
    secret = item if bare else rest
    if len(secret) < MIN_TOKEN_LENGTH:
        raise ValueError(f"token {place} has {len(secret)} characters")
    if not _VISIBLE.fullmatch(secret):
        raise ValueError(f"token {place} has a space or another character that no token has")
    if not bare and not _SUBJECT.fullmatch(name):
        raise ValueError(f"the name of token {place} has other characters than A-Za-z0-9._@-")
    return Token(subject_of(secret) if bare else name, SecretStr(secret))


def subject_of(token: str) -> str:
    """The subject of a token without a name: the beginning of a digest, from which the token can't
    be recovered."""
    return "token-" + hashlib.sha256(token.encode()).hexdigest()[:12]


def networks(text: str) -> tuple[Network, ...]:
    """`TRUSTED_PROXIES`: addresses and CIDR blocks."""
    found = []
    for item in comma_list(text):
        try:
            found.append(network_of(item))
        except ValueError:
            raise ValueError(f"{item!r} is not an address or a CIDR block") from None
    return tuple(found)


def origins(text: str) -> tuple[str, ...]:
    """`ALLOWED_ORIGINS`, each as a browser sends it (RFC 6454, section 6.2), or `*`."""
    return tuple(_origin(item) for item in comma_list(text))


def _origin(item: str) -> str:
    parts = urlsplit(item)
    if item == "*":
        return item
    if "*" in item:
        raise ValueError("'*' must be the only entry; otherwise list each origin")
    if not parts.scheme or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"{item!r} is not an origin such as https://app.example.com")
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"{item!r} is more than an origin")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = parts.port is None or parts.port == DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}" + ("" if default else f":{parts.port}")


def misspelt(names: Iterable[str], known: Iterable[str]) -> Mapping[str, str]:
    """Unknown names that look like a known one, each with that one.

    Short names are skipped, because every environment has many of them.
    """
    known = tuple(known)
    strangers = (name for name in names if len(name) >= 8 and name not in known)
    found = ((name, get_close_matches(name, known, n=1, cutoff=0.9)) for name in strangers)
    return {name: matches[0] for name, matches in found if matches}
