"""Routes from settings and from a file, and what they let through."""

import msgspec
import pytest

from relay.answering.routing import Route, apply_route
from relay.configuration.routes import RoutesError, Rules, build_routes
from relay.core.errors import Code, RelayError
from relay.core.events import Target
from relay.core.request import ChatRequest, ImageContent, OfferedTool, TextContent, Turn
from tests.by_default import by_default, open_route

MODELS = {"gpt": ("g1", "g2"), "claude": ("c1", "c2"), "ollama": ("llama3:8b",)}
OFF = {"gemini": "no GEMINI_API_KEY"}


def build(text="", fallbacks=None, rules=None):
    return build_routes(MODELS, OFF, fallbacks or {}, rules or by_default(Rules), text, "r.toml")


def refusal(text):
    with pytest.raises(RoutesError) as error:
        build(text)
    return str(error.value)


def names(route):
    return [f"{target.provider}:{target.model}" for target in route.targets]


def test_each_provider_is_a_route_of_its_own_models():
    routes = build()
    assert {name: names(route) for name, route in routes.on.items()} == {
        "gpt": ["gpt:g1", "gpt:g2"],
        "claude": ["claude:c1", "claude:c2"],
        "ollama": ["ollama:llama3:8b"],
    }
    assert routes.off == OFF


def test_other_providers_follow_with_their_default_model_only_and_not_theirs():
    routes = build(fallbacks={"gpt": ("claude", "gemini"), "claude": ("ollama",)})
    assert names(routes.on["gpt"]) == ["gpt:g1", "gpt:g2", "claude:c1"]
    assert names(routes.on["claude"]) == ["claude:c1", "claude:c2", "ollama:llama3:8b"]
    assert list(routes.warnings) == ["gpt can't fall back to gemini: no GEMINI_API_KEY"]


def test_nothing_goes_to_another_vendor_unless_listed():
    assert {target.provider for target in build().on["gpt"].targets} == {"gpt"}


def test_a_file_names_targets_with_and_without_a_model():
    route = build('[routes.a]\ntargets = ["claude:c2", "gpt", "ollama:qwen:7b"]').on["a"]
    assert route.targets == (
        Target("claude", "c2"),
        Target("gpt", "g1"),
        Target("ollama", "qwen:7b"),
    )


def test_a_route_may_set_everything_and_else_takes_the_rules():
    rules = Rules(1, 2, 3, 4)
    text = """
[routes.plain]
targets = ["gpt"]
[routes.full]
targets = ["gpt"]
first_token_timeout = 10
token_idle_timeout = 20.5
hedge_after = 0
system = "Be short."
client_system = "forbid"
client_tools = false
max_output_tokens = 7
"""
    on = build(text, rules=rules).on
    target = (Target("gpt", "g1"),)
    assert on["plain"] == Route("plain", target, 1, 2, 3, None, "allow", True, 4)
    assert on["full"] == Route("full", target, 10, 20.5, 0, "Be short.", "forbid", False, 7)


def test_the_operators_prompt_stays_unless_the_route_says_otherwise():
    text = '[routes.a]\ntargets = ["gpt"]\nsystem = "x"\n'
    assert build(text).on["a"].client_system == "append"
    assert build(text + 'client_system = "allow"').on["a"].client_system == "allow"


def test_a_target_that_is_off_is_passed_over_with_a_warning():
    routes = build('[routes.a]\ntargets = ["gemini:x", "gpt", "gemini"]')
    assert names(routes.on["a"]) == ["gpt:g1"]
    assert list(routes.warnings) == ["route a skips gemini: no GEMINI_API_KEY"]


def test_a_route_with_no_target_left_is_off_and_says_why():
    routes = build('[routes.a]\ntargets = ["gemini"]')
    assert "a" not in routes.on
    assert routes.off["a"] == "gemini: no GEMINI_API_KEY"


def test_one_target_written_twice_in_different_words_is_tried_once():
    assert names(build('[routes.a]\ntargets = ["gpt", "gpt:g1"]').on["a"]) == ["gpt:g1"]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[routes.a\n", 1, "Expected ']'"),
        ('[routes.a]\ntargets = ["gpt"\n', 2, "Unclosed array"),
        ("\n\nroute = 1", 3, "'route' is unknown"),
        ("routes = 3", 1, "a route begins with [routes.NAME]"),
        ("[[routes]]\nname = 1", 1, "a route begins with [routes.NAME]"),
        ("[routes]\na = 1", 2, "'a' is not a table"),
        ("[routes.a]\n# nothing", 1, "route 'a' has no targets"),
        ('[routes."a b"]\ntargets = ["gpt"]', 1, "'a b' is not a name"),
        ('[routes.gpt]\ntargets = ["gpt"]', 1, "'gpt' is a provider already"),
        ('[routes.gemini]\ntargets = ["gpt"]', 1, "'gemini' is a provider already"),
        ("[routes.a]\ntargets = []", 2, "targets takes a list"),
        ("[routes.a]\ntargets = [1]", 2, "targets takes a list"),
        ('[routes.a]\ntargets = "gpt"', 2, "targets takes a list"),
        ('[routes.a]\ntargets = ["mistral"]', 2, "'mistral' names no supported provider"),
        ('[routes.a]\ntargets = [\n  "gpt",\n  "gtp:x",\n]', 4, "'gtp:x' names no supported"),
        ('[routes.a]\ntargets = ["gpt:"]', 2, "'gpt:' names no model"),
        ('[routes.a]\ntargets = ["gpt", "gpt"]', 2, "'gpt' occurs twice"),
        ('[routes.a]\ntargets = ["gpt"]\n\ntimeout = 3', 4, "timeout is not a key"),
        ('[routes.a]\ntargets = ["gpt"]\nfirst_token_timeout = 0', 3, "above 0"),
        ('[routes.a]\ntargets = ["gpt"]\ntoken_idle_timeout = true', 3, "above 0"),
        ('[routes.a]\ntargets = ["gpt"]\nhedge_after = -1', 3, "0 for off"),
        ('[routes.a]\ntargets = ["gpt"]\nhedge_after = nan', 3, "0 for off"),
        ('[routes.a]\ntargets = ["gpt"]\nsystem = " "', 3, "a text that is not empty"),
        ('[routes.a]\ntargets = ["gpt"]\nclient_system = "deny"', 3, "forbid, append or allow"),
        ('[routes.a]\ntargets = ["gpt"]\nclient_tools = "no"', 3, "true or false"),
        ('[routes.a]\ntargets = ["gpt"]\nmax_output_tokens = 0', 3, "a whole number"),
        ('[routes.a]\ntargets = ["gpt"]\nmax_output_tokens = 1.5', 3, "a whole number"),
        (
            '[routes.a]\nsystem = """\ntargets = 1\n"""\ntargets = ["gpt"]\n[routes.b]\nx = 1',
            7,
            "x is not",
        ),
        ('routes.a.targets = ["gpt"]\r\nroutes.a.x = 1', 2, "x is not"),
        ('[routes]\na = {targets = ["gpt"], x = 1}', 2, "x is not"),
    ],
)
def test_a_bad_file_is_refused_with_its_line_and_reason(text, line, reason):
    told = refusal(text)
    assert told.startswith(f"r.toml:{line}: ")
    assert reason in told


def test_the_example_is_a_good_file():
    with open("docs/routes.example.toml", encoding="utf-8") as file:
        text = file.read()
    models = {"gpt": ("g",), "claude": ("c",), "gemini": ("m",)}
    routes = build_routes(models, {}, {}, by_default(Rules), text)
    assert {"fast", "deep", "support"} <= set(routes.on)
    assert not routes.warnings


TARGET = (Target("gpt", "g1"),)


def chat(**fields):
    return ChatRequest("a", (Turn("user", "hi"),), **fields)


def route(**fields):
    return open_route("a", *TARGET, **fields)


def test_the_routes_prompt_is_used_where_the_client_has_none():
    for rule in ("forbid", "append", "allow"):
        for absent in (None, "", "  "):
            request = apply_route(chat(system=absent), route(system="S", client_system=rule))
            assert request.system == "S"


def test_a_clients_prompt_is_refused_where_the_route_forbids_it():
    with pytest.raises(RelayError) as error:
        apply_route(chat(system="mine"), route(system="S", client_system="forbid"))
    assert error.value.code is Code.BAD_REQUEST
    assert error.value.message.startswith("system: ")
    assert "mine" not in error.value.message


def test_a_system_turn_counts_as_the_clients_prompt():
    turns = (Turn("user", "hi"), Turn("system", (TextContent("mine"),)))
    request = ChatRequest("a", turns)
    with pytest.raises(RelayError, match=r"^messages\.1\.role: "):
        apply_route(request, route(client_system="forbid"))
    assert apply_route(request, route(system="S", client_system="append")).system == "S"
    allowed = apply_route(request, route(system="S", client_system="allow"))
    assert (allowed.system, allowed.messages) == (None, turns)


def test_an_empty_system_turn_forbids_nothing():
    turns = (Turn("system", ""), Turn("user", (ImageContent("image/png", data="x"),)))
    assert apply_route(ChatRequest("a", turns), route(client_system="forbid")).messages == turns


def test_a_clients_prompt_goes_behind_the_routes_or_in_its_place():
    asked = chat(system="mine")
    appended = apply_route(asked, route(system="S", client_system="append"))
    assert appended.system == "S\n\nmine"
    assert apply_route(asked, route(system="S", client_system="allow")).system == "mine"
    assert apply_route(asked, route(client_system="append")).system == "mine"


def test_tools_are_refused_where_the_route_forbids_them():
    with pytest.raises(RelayError, match=r"^tools: ") as error:
        apply_route(chat(tools=(OfferedTool("f"),)), route(client_tools=False))
    assert error.value.code is Code.BAD_REQUEST
    assert apply_route(chat(tools=(OfferedTool("f"),)), route()).tools


@pytest.mark.parametrize(("asked", "given"), [(None, 10), (5, 5), (10, 10), (11, 10)])
def test_an_answer_is_never_longer_than_the_route_allows(asked, given):
    assert apply_route(chat(max_tokens=asked), route(max_output_tokens=10)).max_tokens == given


def test_nothing_else_of_a_chat_is_touched():
    request = chat(stop=("x",), conversation="c", fallback=False, can_unsay=False)
    passed = apply_route(request, route())
    assert msgspec.structs.replace(passed, max_tokens=None) == request
