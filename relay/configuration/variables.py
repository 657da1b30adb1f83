"""Declares variables: their types, and fields that carry the texts of the documentation.

`relay.configuration.settings` declares one field a variable with these; `describe` reads them back
for the documentation and for error lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, PlainSerializer, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

from relay.configuration import environment as grammar
from relay.core.addresses import Network
from relay.core.redaction import hide_shapes
from relay.failover.plan import Rescue
from relay.observability.loglayout import Format
from relay.observability.loglines import one_line


def _parsed(parse: Callable[[str], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


Stripped = Annotated[str, _parsed(str.strip)]
Providers = Annotated[tuple[str, ...], NoDecode, _parsed(grammar.provider_names)]
Fallbacks = Annotated[
    Mapping[str, tuple[str, ...]],
    NoDecode,
    _parsed(grammar.fallback_lists),
    AfterValidator(MappingProxyType),
    PlainSerializer(dict),
    Field(validate_default=True),
]
Tokens = Annotated[tuple[grammar.Token, ...], NoDecode, _parsed(grammar.tokens)]
RedisUrl = Annotated[SecretStr, _parsed(grammar.redis_url)]
Networks = Annotated[tuple[Network, ...], NoDecode, _parsed(grammar.networks)]
Origins = Annotated[tuple[str, ...], NoDecode, _parsed(grammar.origins)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], _parsed(str.upper)]
LogFormat = Annotated[Format, _parsed(str.lower)]
RescueMode = Annotated[Rescue, _parsed(str.lower)]

MAX_SHOWN = 120
"""Characters of a bad value that an error line repeats at most."""


class Variable(NamedTuple):
    """One environment variable, as documentation and error lines show it.

    `default` is empty where there is none. `secret` values are never shown.
    """

    name: str
    default: str
    unit: str
    takes: str
    sentence: str
    secret: bool


class SettingsError(Exception):
    """The configuration can't be used. `str()` of it has one line for each bad variable, and no
    secret: print it and exit with status 2."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def refusal(variable: Variable, held: object, reason: str = "") -> str:
    """The line that refuses a value: the variable, what it held, what it takes."""
    shown = one_line(hide_shapes(repr(held))[:MAX_SHOWN])
    if variable.secret:
        shown = f"a secret of {len(str(held))} characters"
    why = f" ({one_line(reason)})" if reason else ""
    return f"{variable.name} holds {shown}{why}; it takes {variable.takes}"


def describe(name: str, field: FieldInfo) -> Variable:
    """The variable `name`, as its field describes it."""
    extra = field.json_schema_extra
    said: dict[str, Any] = extra if isinstance(extra, dict) else {}
    default = _shown(field.get_default(call_default_factory=False))
    sentence = field.description or ""
    return Variable(name, default, said["unit"], said["takes"], sentence, said["secret"])


def _shown(default: object) -> str:
    if default is None or isinstance(default, Mapping):
        return ""
    if isinstance(default, bool):
        return str(int(default))
    if isinstance(default, float):
        return f"{default:g}"
    return ",".join(default) if isinstance(default, tuple) else str(default)


def setting(
    default: Any,
    sentence: str,
    *,
    takes: str,
    unit: str = "",
    secret: bool = False,
    **limits: Any,
) -> Any:
    """A field of `Settings`. `takes` ends the line that refuses a bad value."""
    said: dict[str, Any] = {"takes": takes, "unit": unit, "secret": secret}
    return Field(default, description=sentence, json_schema_extra=said, **limits)


def seconds(default: float, sentence: str, *, zero: bool = False) -> Any:
    """A time in seconds; with `zero` it may be 0."""
    takes = "a number of seconds, 0 or more" if zero else "a number of seconds above 0"
    limits: dict[str, Any] = {"ge": 0} if zero else {"gt": 0}
    return setting(float(default), sentence, takes=takes, unit="s", allow_inf_nan=False, **limits)


def count(default: int, sentence: str, *, unit: str = "") -> Any:
    """A whole number of 1 or more."""
    return setting(default, sentence, takes="a whole number, 1 or more", unit=unit, ge=1)


def size(default: int, sentence: str) -> Any:
    """A number of bytes."""
    takes = "a number of bytes such as 8388608, 8MiB or 256MB, at least 1024"
    return setting(ByteSize(default), sentence, takes=takes, unit="bytes", ge=1024)


def switch(sentence: str) -> Any:
    """An option that is off by default."""
    return setting(False, sentence, takes="1 or 0, true or false, yes or no")


_OF_PROVIDERS = {
    "API_KEY": "a key as it was issued, without quotes",
    "BASE_URL": "an http or https URL without credentials",
    "MODEL_DEFAULT": "a model's name",
    "MODEL_FALLBACKS": "model names, comma-separated",
}


def provider_variable(name: str, sentence: str = "") -> Variable:
    """A variable of one provider, `{NAME}_API_KEY` and the like."""
    suffix = next(suffix for suffix in _OF_PROVIDERS if name.endswith(suffix))
    return Variable(name, "", "", _OF_PROVIDERS[suffix], sentence, suffix == "API_KEY")
