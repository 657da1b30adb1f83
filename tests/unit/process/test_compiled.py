"""When compiled modules are used: only where they are of these very sources."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from relay.process import compiled

ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with twins of these sources, as far as its manifest says."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(compiled, "state", "interpreted")
    told(tmp_path)
    (tmp_path / f"relay.core.records{compiled.SUFFIX}").touch()
    return tmp_path


def told(home: Path, **changes: object) -> None:
    manifest = {
        "sources": compiled.sources(),
        "suffix": compiled.SUFFIX,
        "modules": ["relay.core.records"],
        **changes,
    }
    (home / compiled.MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compile", ROOT / "scripts" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_twins_of_these_sources_are_used(home: Path) -> None:
    assert compiled.use(home) == compiled.state == "compiled"
    found = sys.meta_path[0].find_spec("relay.core.records", None)
    assert found is not None
    assert found.origin == str(home / f"relay.core.records{compiled.SUFFIX}")
    assert sys.meta_path[0].find_spec("relay.core.events", None) is None


def test_without_twins_the_modules_run_as_they_are_written(tmp_path: Path) -> None:
    finders = list(sys.meta_path)
    assert compiled.use(tmp_path / "nowhere") == "interpreted"
    assert sys.meta_path == finders


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": "others"},
        {"suffix": ".cpython-300-other.so"},
        {"sources": None},
        {"modules": ["relay.core.records", "relay.gone"]},
    ],
    ids=["other_sources", "other_python", "no_sources", "a_file_is_gone"],
)
def test_twins_of_something_else_are_outdated_and_left_out(
    home: Path, changes: dict[str, object]
) -> None:
    told(home, **changes)
    finders = list(sys.meta_path)
    assert compiled.use(home) == "outdated"
    assert sys.meta_path == finders


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_manifest_that_is_none_is_as_good_as_no_twins(home: Path, text: str) -> None:
    (home / compiled.MANIFEST).write_text(text)
    assert compiled.use(home) == "interpreted"


def test_they_are_left_out_on_request(home: Path) -> None:
    assert compiled.use(home, ["server.py", compiled.INTERPRETED]) == "interpreted"


def test_a_change_to_any_module_is_a_change_of_the_sources(tmp_path: Path) -> None:
    copy = tmp_path / "relay"
    shutil.copytree(compiled.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert compiled.sources(copy) == compiled.sources()
    module = copy / "edges" / "http.py"
    module.write_text(module.read_text() + "\n")
    changed = compiled.sources(copy)
    assert changed != compiled.sources()
    module.rename(copy / "edges" / "other.py")
    assert compiled.sources(copy) != changed


def test_what_is_compiled_is_there_and_makes_no_structs(script: ModuleType) -> None:
    assert list(script.HOT) == sorted(set(script.HOT))
    for name in script.HOT:
        text = (ROOT / f"{name.replace('.', '/')}.py").read_text("utf-8")
        assert "(Struct" not in text, f"{name}: msgspec's classes don't survive compiling"


def awaits_in_handlers(tree: ast.AST) -> list[int]:
    """Lines that await within an `except` or a `finally`."""
    handled = [
        statement
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for block in (node.finalbody, *(handler.body for handler in node.handlers))
        for statement in block
    ]
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)
    return [
        inner.lineno
        for statement in handled
        for inner in ast.walk(statement)
        if isinstance(inner, waits)
    ]


def test_an_await_within_a_handler_is_found() -> None:
    text = "async def f():\n try:\n  await g()\n except E:\n  await h()\n finally:\n  await i()\n"
    assert sorted(awaits_in_handlers(ast.parse(text))) == [5, 7]


def test_nothing_compiled_awaits_while_it_handles_an_exception(script: ModuleType) -> None:
    """mypyc's coroutines leave the exception with the thread while they wait, where other
    tasks find it as their exceptions' context."""
    for name in script.HOT:
        text = (ROOT / f"{name.replace('.', '/')}.py").read_text("utf-8")
        assert not awaits_in_handlers(ast.parse(text)), name


def test_what_was_built_is_found_as_twins_of_what_it_was_built_from(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, built = tmp_path / "home", tmp_path / "built"
    for folder in ("core", "edges/relay_v1"):
        (built / "relay" / folder).mkdir(parents=True)
    for file in ("relay/core/records", "relay/edges/relay_v1/sse", "0123__mypyc"):
        (built / f"{file}{compiled.SUFFIX}").touch()
    monkeypatch.setattr(script.compiled, "HOME", home)
    script.install(built, "a digest")
    manifest = json.loads((home / compiled.MANIFEST).read_text())
    assert manifest["sources"] == "a digest"
    assert manifest["modules"] == ["0123__mypyc", "relay.core.records", "relay.edges.relay_v1.sse"]
    assert (home / f"relay.edges.relay_v1.sse{compiled.SUFFIX}").is_file()


def test_a_machine_without_a_compiler_is_told_what_is_missing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    assert "apt-get install gcc" in script.missing()
    monkeypatch.setenv("CC", "true")
    monkeypatch.setattr(script.sysconfig, "get_path", lambda name: "/nowhere")
    assert "python3-dev" in script.missing()


@pytest.mark.slow
def test_the_server_takes_the_argument_that_leaves_them_out() -> None:
    program = "from relay.process import compiled; import server; print(compiled.state)"
    command = [sys.executable, "-c", program, compiled.INTERPRETED]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "interpreted\n"


def test_a_worker_has_none_of_the_compiled_modules_before_it_uses_the_twins(
    script: ModuleType,
) -> None:
    """What it loads to read its task: the parent's module, and the function that it is to run."""
    listing = "import sys, relay.cli, relay.process.workers; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True)
    loaded = set(run.stdout.split())
    assert "relay.process.workers" in loaded
    assert loaded & {*script.HOT, "relay.process.serving"} == set()
