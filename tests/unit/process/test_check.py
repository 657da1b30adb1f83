"""`--check`: one line a provider, and an exit status."""

import asyncio

import pytest
from aiohttp import web
from pydantic import SecretStr

from relay.configuration.catalog import Catalog, ProviderConfig
from relay.configuration.deprecations import deprecated_models
from relay.core.errors import Code, Fault
from relay.process.check import check
from relay.providers.registry import build

GPT = ProviderConfig("gpt", "openai", ("g1", "g2"), "OPENAI", SecretStr("k" * 20))
LOCAL = ProviderConfig("local", "local", ("small",))


class Probed:
    """A provider of which only the probe is asked."""

    def __init__(self, outcome=None):
        self.outcome = outcome

    async def probe(self):
        if callable(self.outcome):
            await self.outcome()
        elif self.outcome is not None:
            raise self.outcome


async def run(outcomes, configs=(GPT, LOCAL), off=None, **options):
    lines = []
    catalog = Catalog({config.name: config for config in configs}, off or {})
    providers = {name: Probed(outcome) for name, outcome in outcomes.items()}
    status = await check(catalog, providers, write=lines.append, **options)
    return status, lines


async def test_all_well_is_zero_with_a_line_each():
    status, lines = await run({"gpt": None, "local": None}, off={"claude": "no ANTHROPIC_API_KEY"})
    assert status == 0
    assert lines[0].startswith("gpt: ok, g1, g2, answered in ")
    assert lines[1].startswith("local: ok, small, ")
    assert lines[2:] == ["claude: off, no ANTHROPIC_API_KEY"]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Fault(Code.PROVIDER_AUTH, "refused"), "provider_auth: refused; check OPENAI_API_KEY"),
        (Fault(Code.PROVIDER_INTERRUPTED, "no route"), "check the network and OPENAI_BASE_URL"),
        (Fault(Code.CONTEXT_LENGTH, "odd"), "context_length: odd; see the message"),
        (ZeroDivisionError("x"), "internal: ZeroDivisionError; see the message"),
    ],
)
async def test_one_that_fails_is_one_and_says_what_to_do(outcome, told):
    status, lines = await run({"gpt": outcome, "local": None})
    assert status == 1
    assert lines[0].startswith("gpt: failed, ")
    assert lines[0].endswith(told)
    assert lines[1].startswith("local: ok")


async def test_a_provider_that_does_not_answer_is_given_up():
    async def silent():
        await asyncio.Event().wait()

    status, lines = await run({"gpt": silent, "local": None}, within=0.01)
    assert status == 1
    assert "no answer within 0.01 s" in lines[0]


async def test_providers_are_probed_at_once():
    meeting = asyncio.Barrier(2)
    status, _ = await run({"gpt": meeting.wait, "local": meeting.wait})
    assert status == 0


async def test_nothing_on_is_one():
    status, lines = await run({}, configs=(), off={"gpt": "no OPENAI_API_KEY"})
    assert status == 1
    assert lines[-1].startswith("no provider is on")


async def test_warnings_and_deprecated_models_come_first():
    old = next(iter(deprecated_models()))
    config = ProviderConfig("gpt", "openai", (old,), "OPENAI", SecretStr("k" * 20))
    status, lines = await run({"gpt": None}, configs=(config,), warnings=["odd\nthing"])
    assert status == 0
    assert lines[0] == r"warning: odd\nthing"
    assert lines[1].startswith(f"warning: model {old} is deprecated")


async def test_a_line_stays_one_and_shows_no_key():
    fault = Fault(Code.PROVIDER_ERROR, "bad\r\nkey sk-abcdefghijklmnop")
    _, lines = await run({"gpt": fault, "local": None})
    assert "sk-abc" not in lines[0]
    assert len(lines[0].splitlines()) == 1


@pytest.mark.parametrize(("answer", "status"), [(200, 0), (401, 1)])
async def test_the_real_client_is_probed_without_a_completion(aiohttp_server, answer, status):
    asked = []

    async def models(request):
        asked.append((request.method, request.path))
        return web.json_response({"object": "list", "data": []}, status=answer)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", models)
    server = await aiohttp_server(app)
    url = str(server.make_url("/v1"))
    config = ProviderConfig("gpt", "openai", ("g1",), "OPENAI", SecretStr("k" * 20), url)
    key = config.api_key.get_secret_value()
    provider = build(config.kind, name=config.name, api_key=key, base_url=config.base_url)
    lines = []
    try:
        told = await check(Catalog({"gpt": config}, {}), {"gpt": provider}, write=lines.append)
    finally:
        await provider.close()
    assert told == status
    assert asked == [("GET", "/v1/models")]
    assert lines[0].endswith("check OPENAI_API_KEY") == (answer == 401)
