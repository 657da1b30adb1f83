"""The operator's settings: every environment variable, read once and frozen.

Each field is the one source of its variable: name, default, unit, what it takes and what it is for.
`.env.example` and the table in `docs/configuration.md` are generated from the fields by
`scripts/generate_configuration.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasGenerator,
    ByteSize,
    Field,
    PlainSerializer,
    SecretStr,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from relay.answering.continuation import CONTINUATION_PROMPT
from relay.configuration.environment import (
    MIN_TOKEN_LENGTH,
    PROVIDER_SUFFIXES,
    provider_names,
    variable_prefix,
)
from relay.configuration.variables import (
    Fallbacks,
    LogFormat,
    LogLevel,
    Networks,
    Origins,
    Providers,
    RedisUrl,
    RescueMode,
    Stripped,
    Tokens,
    Variable,
    count,
    describe,
    provider_variable,
    seconds,
    setting,
    size,
    switch,
)
from relay.providers.registry import VENDORS, Vendor, vendor_of

BUILT_IN_PROVIDERS = (*(vendor.provider for vendor in VENDORS), "local")
"""Provider names that need no base URL; every other name is an OpenAI-compatible one."""

NO_FILES = "none"
"""The value of `LOG_DIR` that means: the console only."""

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "PORT": "Server",
        "SUPPORTED_PROVIDERS": "Providers and routes",
        "OPENAI_API_KEY": "Keys and models",
        "FIRST_TOKEN_TIMEOUT": "Answers and fallback",
        "RESUME_GRACE": "Streams and sessions",
        "REDIS_URL": "Several nodes",
        "RELAY_TOKENS": "Security",
        "LOG_DIR": "Logs",
    }
)
"""The documentation's headings, each with the first variable below it."""


def _frozen(
    said: Mapping[str, Mapping[str, str | SecretStr]],
) -> Mapping[str, Mapping[str, str | SecretStr]]:
    return MappingProxyType({name: MappingProxyType({**held}) for name, held in said.items()})


class Settings(BaseSettings):
    """The configuration of one process. Frozen; secrets never show in its `repr`."""

    model_config = SettingsConfigDict(
        frozen=True,
        case_sensitive=True,
        extra="ignore",
        alias_generator=AliasGenerator(validation_alias=str.upper),
        env_file_encoding="utf-8-sig",
    )

    port: int = setting(
        3050,
        "The port to listen on; 0 takes any free one.",
        takes="a whole number from 0 to 65535",
        ge=0,
        le=65535,
    )
    host: Stripped = setting(
        "127.0.0.1",
        "The address to bind to; beyond loopback it needs `RELAY_TOKENS` or "
        "`RELAY_ALLOW_ANONYMOUS`.",
        takes="a loopback address, or any other together with RELAY_TOKENS",
    )
    workers: int = count(
        1, "How many processes share the port; resuming across them needs `REDIS_URL`."
    )
    heartbeat: float = seconds(
        20,
        "The pause between two pings; a WebSocket that answers none is cut within two pauses.",
    )
    drain_timeout: float = seconds(
        25, "How long running answers may go on after SIGTERM.", zero=True
    )
    write_timeout: float = seconds(
        30,
        "A reader that accepts nothing for so long is disconnected; it may reconnect.",
    )
    max_frame_bytes: ByteSize = size(
        8 * 1024**2, "The largest frame or body that a client may send."
    )

    supported_providers: Providers = setting(
        BUILT_IN_PROVIDERS,
        "The providers on offer; a further name is an OpenAI-compatible one, set by "
        "`{NAME}_BASE_URL`, `{NAME}_API_KEY`, `{NAME}_MODEL_DEFAULT`, `{NAME}_MODEL_FALLBACKS`.",
        takes="provider names, comma-separated",
    )
    default_provider: Stripped | None = setting(
        None,
        "The provider or route of a chat that names none; unset: the first that is on, "
        "`local` only when no other is.",
        takes="the name of a provider or a route that is on",
    )
    provider_fallbacks: Fallbacks = setting(
        {},
        "Other providers that an answer may fall back to, as in `gpt=claude,gemini;claude=gpt`; "
        "unset: no text goes to another vendor.",
        takes="rules of the form provider=other,other, joined by ';', of supported providers",
    )
    routes_file: Path | None = setting(
        None, "A TOML file of named routes.", takes="the path of a readable file"
    )

    providers: Annotated[
        Mapping[str, Mapping[str, str | SecretStr]], AfterValidator(_frozen), PlainSerializer(dict)
    ] = Field({}, validation_alias="variables of providers", repr=False)
    """The values of the `{NAME}_…` variables: provider → `API_KEY`, `BASE_URL` … → value, only
    those that are set. Its alias has spaces, so that no variable can set it."""

    first_token_timeout: float = seconds(
        120,
        "How long a model may take to its first text, visible reasoning or tool call.",
    )
    token_idle_timeout: float = seconds(
        15, "How long an answer that began may stall before it counts as broken."
    )
    hedge_after: float = seconds(
        8,
        "After so long without content the next target starts beside the first; 0 is off.",
        zero=True,
    )
    hedge_budget: float = setting(
        0.1,
        "The share of answers that may be hedged; the first 10 are free.",
        takes="a number from 0 to 1",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    rescue: RescueMode = setting(
        "continue",
        "What happens to an answer that broke after text was shown: another call continues "
        "it, another call answers from the start, or it ends.",
        takes="continue, restart or off",
    )
    continuation_prompt: Stripped = setting(
        CONTINUATION_PROMPT,
        "The instruction to a model that continues a broken answer.",
        takes="a sentence",
    )
    max_attempts: int = count(6, "How many upstream calls one answer may cost, hedges included.")
    max_output_tokens: int = count(
        8192, "The longest answer; a client that asks for a longer one gets this.", unit="tokens"
    )
    retry_after_max: float = seconds(
        3,
        "The longest wait for a rate limit; beyond it the next target is tried.",
        zero=True,
    )
    breaker_cooldown: float = seconds(10, "How long a failing model rests before it is probed.")

    resume_grace: float = seconds(300, "How long an answer runs on without a reader.", zero=True)
    resume_window: float = seconds(
        3600,
        "How long a finished answer and an idle session can be taken up again.",
        zero=True,
    )
    retained_bytes: ByteSize = size(
        256 * 1024**2,
        "Memory for finished answers, without Redis; the oldest go first, those still read last.",
    )
    max_streams_per_session: int = count(32, "How many answers may run at once in one session.")

    redis_url: RedisUrl | None = setting(
        None,
        "The Redis (7 or later, or Valkey) that nodes share, so that each serves every stream; "
        "unset: streams live in this process.",
        takes="a URL that begins with redis://, rediss:// or unix://",
        secret=True,
    )
    lease_seconds: float = setting(
        10,
        "With Redis: after so long without renewal another node may take an answer over.",
        takes="a number of seconds, 0.5 or more",
        unit="s",
        ge=0.5,
        allow_inf_nan=False,
    )

    relay_tokens: Tokens = setting(
        (),
        "The tokens that clients send, each with an optional name: `alice=…,bob=…`.",
        takes="token or name=token, comma-separated, each token of at least "
        f"{MIN_TOKEN_LENGTH} visible characters",
        secret=True,
    )
    relay_allow_anonymous: bool = switch(
        "Lets anybody who reaches the port use the keys, also beyond loopback."
    )
    allowed_origins: Origins = setting(
        (),
        "Web origins that may connect besides the relay's own.",
        takes="origins such as https://app.example.com, comma-separated",
    )
    trusted_proxies: Networks = setting(
        (),
        "Proxies whose forwarding headers are trusted.",
        takes="addresses and CIDR blocks, comma-separated",
    )

    log_dir: Stripped = setting(
        "logs",
        f"The folder of the log files; `{NO_FILES}` for the console only.",
        takes=f"a path, or {NO_FILES}",
    )
    log_level: LogLevel = setting(
        "INFO",
        "The console's level; the files keep their own.",
        takes="DEBUG, INFO, WARNING or ERROR",
    )
    log_format: LogFormat = setting(
        "text", "Lines for people, or a JSON object each.", takes="text or json"
    )
    log_content: bool = switch("Lets the text of chats and answers into the logs.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The real environment first, then `.env`; then the providers' variables of both."""
        of_providers = _ProviderSource(settings_cls, dotenv_settings, env_settings)
        return (env_settings, dotenv_settings, of_providers)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        blank = {name for name, value in values.items() if isinstance(value, str)}
        return {n: v for n, v in values.items() if n not in blank or v.strip()}

    def secrets(self) -> tuple[str, ...]:
        """Every key and token, for the logs' redactor only."""
        keys = [said.get("API_KEY") for said in self.providers.values()]
        held = [*keys, *(token.secret for token in self.relay_tokens), self.redis_url]
        return tuple(each.get_secret_value() for each in held if isinstance(each, SecretStr))

    def token_subjects(self) -> dict[str, str]:
        """Each client token with its subject, for the guard only."""
        return {token.secret.get_secret_value(): token.subject for token in self.relay_tokens}


def variables() -> dict[str, Variable]:
    """Every variable with a name of its own, in the order of the documentation."""
    found: dict[str, Variable] = {}
    fields: Mapping[str, FieldInfo] = Settings.model_fields
    for field_name, field in fields.items():
        if field_name == "providers":
            found |= {said.name: said for vendor in VENDORS for said in _of_vendor(vendor)}
        else:
            name = field_name.upper()
            found[name] = describe(name, field)
    return found


def _of_vendor(vendor: Vendor) -> tuple[Variable, ...]:
    """The four variables of a vendor."""
    env, name = vendor.env, vendor.provider
    default, fallbacks = vendor.default_model, ", ".join(vendor.fallback_models)
    convention = "ends in `/v1`" if vendor.kind == "openai" else "without a version"
    return (
        provider_variable(
            f"{env}_API_KEY", f"The key of `{name}`; without it the provider is off."
        ),
        provider_variable(
            f"{env}_BASE_URL", f"The URL of `{name}`, if not its vendor's; {convention}."
        ),
        provider_variable(
            f"{env}_MODEL_DEFAULT", f"The model that `{name}` answers with; unset: `{default}`."
        ),
        provider_variable(
            f"{env}_MODEL_FALLBACKS",
            f"The models that `{name}` falls back to, in this order; unset: `{fallbacks}` "
            "where the default model is unset too, else none.",
        ),
    )


class _ProviderSource(PydanticBaseSettingsSource):
    """Gathers the variables of providers, whatever they are called."""

    def __init__(
        self, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource
    ) -> None:
        super().__init__(settings_cls)
        self._said: dict[str, str] = {}
        for source in sources:
            if isinstance(source, EnvSettingsSource):
                held = source.env_vars.items()
                self._said |= {name: value for name, value in held if value is not None}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        names = BUILT_IN_PROVIDERS
        with suppress(ValueError):  # the field itself refuses a bad list
            names = provider_names(self._said.get("SUPPORTED_PROVIDERS", ",".join(names)))
        return {"variables of providers": {name: self._of(name) for name in names}}

    def _of(self, provider: str) -> Mapping[str, str | SecretStr]:
        env = env_of(provider)
        held = {end: self._said.get(f"{env}_{end}", "").strip() for end in PROVIDER_SUFFIXES}
        return {e: SecretStr(v) if e == "API_KEY" else v for e, v in held.items() if v}


def env_of(provider: str) -> str:
    """What the names of a provider's variables begin with: `gpt` → `OPENAI`."""
    vendor = vendor_of(provider)
    return vendor.env if vendor else variable_prefix(provider)
