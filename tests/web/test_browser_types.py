"""`relay-client.d.ts` says what the frames and the module are."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from relay.protocol.frames import SERVER_FRAMES
from relay.protocol.schema import json_schema
from tests.node_packages import fetched, node

ROOT = Path(__file__).parents[2]
WEB = ROOT / "relay" / "web"
TYPES = WEB / "relay-client.d.ts"
TEXT = TYPES.read_text("utf-8")
PROGRAMS = ("types.ts", "module.ts")
OPTIONS = ["--noEmit", "--allowJs", "--strict", "--exactOptionalPropertyTypes"]
OPTIONS += ["--noUncheckedIndexedAccess", "--target", "es2022", "--module", "es2022"]
OPTIONS += ["--moduleResolution", "bundler"]
INNER = {"emit", "tell", "constructor"}
"""Members that are there for the client itself."""


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """`scripts/generate_types.py` as a module."""
    spec = importlib.util.spec_from_file_location(
        "generate_types", ROOT / "scripts" / "generate_types.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_types_of_the_frames_are_in_step(generator: ModuleType) -> None:
    assert generator.file_in_step(TEXT) == TEXT, "run python scripts/generate_types.py"


@pytest.mark.parametrize(
    ("now", "drifted"),
    [("  content?: string", "  content: string"), ("  description?: ", "  describes?: ")],
)
def test_a_type_that_drifted_is_noticed(now: str, drifted: str, generator: ModuleType) -> None:
    changed = TEXT.replace(now, drifted)
    assert changed != TEXT
    assert generator.file_in_step(changed) == TEXT


def members(declared: str) -> dict[str, bool]:
    """The fields of an interface or a class in the file, and whether each may be left out."""
    found = re.search(rf"^export (?:interface|class) {declared}\b.*?^}}$", TEXT, re.M | re.S)
    assert found, declared
    lines = re.findall(r"^  (?:readonly )?(\w+)(\??)[:(<]", found[0], re.M)
    return {name: mark == "?" for name, mark in lines if name != "constructor"}


def test_what_is_required_on_the_wire_is_required_in_the_types(generator: ModuleType) -> None:
    """Read back from the file, so that the generator itself is held too."""
    definitions = json_schema()["$defs"]
    handled = {SERVER_FRAMES[tag].__name__ for tag in generator.HANDLED_BY_CLIENT}
    frames = {model.__name__ for model in SERVER_FRAMES.values()} - handled
    for name in {"ChatFrame", "Message", "Tool", "AttemptReport", "TimingReport"} | frames:
        required = definitions[name].get("required", ())
        fields = {field: field not in required for field in definitions[name]["properties"]}
        assert members(generator.NAMES.get(name, name)) == fields, name


EXPORTS = """
import * as module from '%s';
class Played { close() {} }
const client = new module.RelayClient('ws://test/ws', { WebSocket: Played });
const chat = client.chat({ messages: 'hi' });
const error = new module.RelayError({ code: 'internal', message: '' });
const objects = { RelayClient: client, Chat: chat, Answer: chat.answer, RelayError: error };
const ends = [Object.prototype, Error.prototype];
function members(object) {
  const names = Object.keys(object);
  for (let at = Object.getPrototypeOf(object); !ends.includes(at); at = Object.getPrototypeOf(at))
    names.push(...Object.getOwnPropertyNames(at));
  return names;
}
const found = Object.entries(objects).map(([name, object]) => [name, members(object)]);
console.log(JSON.stringify({ exports: Object.keys(module), members: Object.fromEntries(found) }));
process.exit(0);
"""


def test_the_types_name_what_the_module_has() -> None:
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    code = EXPORTS % (WEB / "relay-client.js").as_uri()
    ran = subprocess.run(
        [program, "--input-type=module", "-e", code], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    there = json.loads(ran.stdout)
    values = re.findall(r"^export (?:class|function) (\w+)", TEXT, re.M)
    assert sorted(values) == sorted(there["exports"])
    inherited = {"Answer": {"apply", "end"}, "RelayError": {"name"}}
    for name, found in there["members"].items():
        assert members(name).keys() == set(found) - INNER - inherited.get(name, set()), name


def compiled(folder: Path, compiler: Path, declarations: str) -> str:
    """What the compiler has against `declarations` in the programs that are written for them."""
    (folder / TYPES.name).write_text(declarations, "utf-8")
    for program in PROGRAMS:
        shutil.copy(Path(__file__).with_name(program), folder)
    (folder / "module").mkdir(exist_ok=True)
    for module in WEB.glob("relay-*.js"):
        shutil.copy(module, folder / "module")
    ran = subprocess.run(
        [node(), compiler, *OPTIONS, *PROGRAMS],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert bool(ran.returncode) == bool(ran.stdout), ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def compiler(request: pytest.FixtureRequest) -> Path:
    """TypeScript's own."""
    return fetched(request.config) / "node_modules" / "typescript" / "bin" / "tsc"


def test_a_program_compiles_and_the_module_is_as_declared(compiler: Path, tmp_path: Path) -> None:
    assert compiled(tmp_path, compiler, TEXT) == ""


def test_declarations_that_drift_from_the_module_do_not_compile(
    compiler: Path, tmp_path: Path
) -> None:
    number = "export function randomName(length: number): "
    drifted, wanted = TEXT, []
    for declaration, changed, said in (
        ("  nudge(): void;", "", """'"nudge"'"""),
        ("  readonly url: string;", "  readonly url: string; address: string;", "'address'"),
        (
            "  readonly finished: boolean;\n  readonly answer",
            "  readonly answer",
            """'"finished"'""",
        ),
        ("  readonly last: number;", "  readonly last: string;", "'last'"),
        (f"{number}string", f"{number}number", "'(length: number) => number'"),
    ):
        assert drifted.count(declaration) == 1, declaration
        drifted = drifted.replace(declaration, changed)
        wanted.append(said)
    found = compiled(tmp_path, compiler, drifted)
    assert [each for each in wanted if each not in found] == [], found
