"""The documents name only what there is: links, variables, routes, options, commands, files."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from aiohttp.test_utils import make_mocked_request

from relay import __version__
from relay.cli import COMMANDS
from relay.configuration.environment import PROVIDER_SUFFIXES
from relay.configuration.load import load_settings
from relay.configuration.settings import variables
from relay.process.app import Relay
from relay.process.serving import catalog_of
from tests.wire.documented import DEPLOYED, DOCUMENTS, LANGUAGES, Block, blocks, examples

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
)
ANY = pytest.mark.parametrize("page", PAGES)

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FOREIGN = frozenset(
    {"PROVIDER_MODELS", "RELAY_TOKEN", "OPENAI_LOG", "ANTHROPIC_LOG", "OPENAI_CUSTOM_HEADERS"}
)
"""Variables of others: of the original server, the command line and the SDKs."""

SYSTEM = ("/etc/", "/opt/", "/proc", "/var/", "/tmp/")
"""How paths of a machine begin, which are no routes."""

PICTURES_BYTES = 300_000
"""What all pictures may weigh together."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", text_of(page))


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", prose, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", LINK.sub("", heading).lower()).replace(" ", "-")
        number = next(n for n in range(100) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return frozenset(found)


def every(kind: str) -> list[Block]:
    """The blocks of all pages in a language."""
    return [block for page in PAGES for block in blocks(page) if block.language == kind]


# Links and files


@ANY
def test_every_link_within_the_project_leads_somewhere(page: str) -> None:
    for target in LINK.findall(INLINE.sub("", prose_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert there.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors_of(there), f"{page}: {target}"


def test_an_anchor_is_made_as_github_makes_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# OpenAI's dialect: `/v1`\n## A\n## A\n```sh\n# no heading\n```\n")
    assert anchors_of(page) == {"openais-dialect-v1", "a", "a-1"}


@ANY
def test_every_file_named_exists(page: str) -> None:
    folders = r"(?:relay|tests|scripts|docs|lab|deploy|requirements)"
    made = {line.strip("/") for line in text_of(".gitignore").splitlines()}
    for named in re.findall(rf"`({folders}/[\w./*-]+)`", prose_of(page)):
        if named.rstrip("/") in made:
            continue  # there only once it is made
        assert list(ROOT.glob(named.rstrip("/"))), f"{page}: {named}"


def test_the_index_has_a_line_for_every_document() -> None:
    lines = re.findall(r"^- \[[\w.-]+\]\(([\w./-]+)\): .+\.$", text_of("docs/README.md"), re.M)
    others = {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"}
    assert sorted(lines) == sorted(others | {"../protocol.md"})


@cache
def members() -> dict[str, set[str]]:
    """The names that the body of each class of the server defines, by the class's name."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "relay").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(map(_defined, node.body))
    return found


def _defined(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return ""


@ANY
def test_every_class_and_method_named_exists(page: str) -> None:
    """As `Class.member`, and in a table behind the file that has it."""
    prose = prose_of(page)
    for name, member in re.findall(r"`([A-Z]\w*[a-z]\w*)\.([a-z][a-z_]*)`", prose):
        assert member in members().get(name, ()), f"{page}: {name}.{member}"
    for file, name in re.findall(r"\| `(relay/[\w/]+\.py)` \| `(\w+)", prose):
        assert re.search(rf"^(?:class|def) {name}\b", text_of(file), re.M), (
            f"{page}: {file}: {name}"
        )


def test_pictures_are_small_and_all_are_shown() -> None:
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert sum(picture.stat().st_size for picture in pictures) <= PICTURES_BYTES
    shown = "".join(map(text_of, PAGES))
    assert [each.name for each in pictures if f"pictures/{each.name}" not in shown] == []


# Variables, routes, commands


@ANY
def test_every_variable_named_is_one(page: str) -> None:
    words = [
        re.match(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", code) for code in INLINE.findall(prose_of(page))
    ]
    named = {word[0] for word in words if word}
    for block in blocks(page):
        if block.language in {"sh", "ini", "text"}:
            named |= set(re.findall(r"^(?:Environment=)?([A-Z][A-Z0-9_]+)=", block.code, re.M))
    unknown = named - {*variables(), *FOREIGN} - capitals_of_the_code()
    assert {name for name in unknown if not name.endswith(PROVIDER_SUFFIXES)} == set()


@cache
def capitals_of_the_code() -> frozenset[str]:
    """What is written in capitals and no variable: constants, and words of the vendors."""
    files = [file for part in ("relay", "tests", "lab") for file in (ROOT / part).rglob("*.py")]
    words = re.compile(r"""^([A-Z][A-Z0-9_]+)(?:: [^=]+)? =|["']([A-Z][A-Z0-9_]+)["']""", re.M)
    found = {a or b for file in files for a, b in words.findall(file.read_text("utf-8"))}
    return frozenset(found - {*variables()})


@pytest.fixture(scope="module")
def relay() -> Relay:
    settings = load_settings(None)
    return Relay(settings, catalog_of(settings))


def routes_named(page: str) -> set[tuple[str, str]]:
    """The routes that a page speaks of: a method, empty where none is said, and a path."""
    found = set()
    for code in INLINE.findall(prose_of(page)):
        if route := re.fullmatch(r"(?:(GET|POST|DELETE) )?(/[\w{}/.-]*)(?:\?\S*)?", code):
            found.add((route[1] or "", route[2]))
    for block in blocks(page):
        found |= {("", path) for path in re.findall(r"localhost:3050(/[\w/.$-]+)", block.code)}
    return {(method, path) for method, path in found if not path.startswith(SYSTEM)}


@ANY
async def test_every_route_named_is_served(page: str, relay: Relay) -> None:
    for method, path in sorted(routes_named(page)):
        if path == "/v1":
            continue  # a base URL
        concrete = re.sub(r"[{}$]", "", path)
        tried = [method] if method else ["GET", "POST", "DELETE"]
        requests = [make_mocked_request(each, concrete) for each in tried]
        matches = [await relay.application.router.resolve(request) for request in requests]
        assert any(m.http_exception is None for m in matches), f"{page}: {method} {path}"


def test_every_route_of_the_app_is_documented(relay: Relay) -> None:
    told = {path for page in PAGES for _, path in routes_named(page)}
    served = {resource.canonical for resource in relay.application.router.resources()}
    own = {path for path in served if not path.startswith(("/web/", "/favicon"))}
    assert own - told == set()


@ANY
def test_every_target_of_make_named_is_one(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE)
    inline = [code for code in INLINE.findall(prose_of(page)) if code.startswith("make ")]
    lines = [line for block in blocks(page) for line in re.findall(r"^make .*", block.code, re.M)]
    for line in [*inline, *lines]:
        named = re.match(r"make ([a-z-]+)", line)
        assert named, f"{page}: {line}"
        assert named[1] in targets, f"{page}: {line}"


def test_both_commands_begin_a_line_of_the_readme_and_ci_runs_the_second() -> None:
    code = "\n".join(block.code for block in blocks("README.md"))
    assert re.search(r"^make run$", code, re.MULTILINE)
    assert re.search(r"^make test$", code, re.MULTILINE)
    run = re.findall(r"^(?:exec )?make (\S+)", text_of(".ci/run"), re.MULTILINE)
    assert run == ["lint", "test"]


def test_every_target_that_help_lists_is_told_of_where_it_belongs() -> None:
    listed = set(re.findall(r"^([a-z-]+):.*## ", text_of("Makefile"), re.MULTILINE))
    told = set(re.findall(r"\bmake ([a-z-]+)", text_of("docs/testing.md") + text_of("README.md")))
    assert listed - told == set()


def test_a_commit_is_checked_as_make_lint_does() -> None:
    hooks = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    recipe = text_of("Makefile").partition("\nlint:")[2].partition("\n\n")[0]
    commands = re.findall(r"^\t(.+)$", recipe, re.MULTILINE)
    assert [hook["entry"] for hook in hooks] == [
        command.replace("$(VENV)", ".venv/bin") for command in commands
    ]


def test_the_changelog_begins_with_what_is_to_come_and_knows_this_version() -> None:
    versions = re.findall(r"^## \[([^\]]+)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert __version__ in versions


@pytest.mark.parametrize(
    ("program", "calls"),
    [
        (["server.py"], r"python server\.py([^\n`|]*)"),
        (["-m", "relay.client"], r"relay\.client( [^\n`|]*)"),
    ],
    ids=["server", "client"],
)
def test_every_option_shown_is_in_the_help(program: list[str], calls: str) -> None:
    command = [sys.executable, *program, "--help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"--[a-z][a-z-]+", said))
    shown = [call for page in PAGES for call in re.findall(calls, text_of(page))]
    used = {option for call in shown for option in re.findall(r"(?<=\s)--[a-z][a-z-]+", call)}
    assert used
    assert used <= options
    if program == ["server.py"]:
        assert options - used == {"--help", "--version"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_shown_with_options_of_its_help(command: str) -> None:
    run = [sys.executable, "-m", "relay", command, "--help"]
    said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    calls = re.compile(rf"(?:^|\s|`)relay {command}\b([^\n`|]*)", re.MULTILINE)
    shown = [call for page in PAGES for call in calls.findall(text_of(page))]
    assert shown
    used = {option for call in shown for option in re.findall(r"(?<=\s)--[a-z][a-z-]+", call)}
    assert used <= set(re.findall(r"--[a-z][a-z-]+", said))


# Blocks of code


@pytest.mark.parametrize("block", every("python"), ids=lambda block: block.document)
def test_python_parses(block: Block) -> None:
    ast.parse(block.code)


@pytest.mark.parametrize("block", every("sh"), ids=lambda block: block.document)
def test_shell_parses(block: Block) -> None:
    ran = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("block", every("json"), ids=lambda block: block.document)
def test_json_parses(block: Block) -> None:
    try:
        json.loads(block.code)
    except ValueError:
        for line in block.code.splitlines():
            json.loads(line)


@pytest.mark.parametrize("block", every("toml"), ids=lambda block: block.document)
def test_toml_parses(block: Block) -> None:
    assert tomllib.loads(block.code)


@pytest.mark.parametrize(
    "block",
    [block for page in DOCUMENTS for block in blocks(page) if block.mark == "settings"],
    ids=lambda block: block.document,
)
def test_settings_are_good(block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / ".env"
    file.write_text(block.code.replace("…", "0123456789abcdef"), encoding="utf-8")
    assert load_settings(file) != load_settings(None)


@pytest.mark.parametrize("page", DOCUMENTS)
def test_every_block_of_code_is_run_or_says_why_not(page: str) -> None:
    for block in blocks(page):
        assert block.mark or block.language == "text", f"nothing stands before\n{block.code}"
        assert block.mark != "unrun" or block.said, f"why is it not run?\n{block.code}"


def test_every_example_has_a_test_that_runs_it() -> None:
    for name, block in examples().items():
        assert block.language in LANGUAGES or name in DEPLOYED, name
