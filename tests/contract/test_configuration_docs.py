"""Code, `.env.example` and docs/configuration.md say the same."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dotenv import dotenv_values

from relay.configuration.load import load_settings
from relay.configuration.routes import Rules, build_routes
from relay.configuration.settings import variables
from tests.by_default import by_default

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / ".env.example"
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def run(*arguments, cwd=ROOT):
    script = ROOT / "scripts" / "generate_configuration.py"
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=cwd, capture_output=True, text=True
    )


def test_the_generated_files_are_in_step_with_the_code():
    result = run("--check")
    assert result.returncode == 0, result.stderr


def test_the_example_names_every_variable_once_and_no_other():
    named = re.findall(r"^#([A-Z_]+)=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert named == list(variables())


def test_the_table_names_every_variable_once_and_no_other():
    named = re.findall(r"^\| `([A-Z_]+)` \|", DOCUMENT, re.MULTILINE)
    assert named == list(variables())


def test_every_default_of_the_example_is_the_codes_own(monkeypatch, tmp_path):
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    uncommented = re.sub(r"^#([A-Z_]+=)", r"\1", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)
    env_file = tmp_path / ".env"
    env_file.write_text(uncommented, encoding="utf-8")
    assert set(dotenv_values(env_file)) == set(variables())
    assert load_settings(env_file) == load_settings(None)


def test_every_variable_in_the_prose_exists():
    environment = set(variables())
    further = {"GOOGLE_API_KEY", "OPENAI", "MISTRAL", "OLLAMA", "MY_VLLM"}
    prose = DOCUMENT.split("<!-- variables: generated -->")[0]
    for name in re.findall(r"\b([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)=", prose):
        assert name in environment or name.startswith(tuple(further)), name


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL))
def test_the_documents_routes_are_good(block):
    assert tomllib.loads(block)
    models = {"gpt": ("g",), "gemini": ("m",), "claude": ("c",)}
    assert "support" in build_routes(models, {}, {}, by_default(Rules), block).on


@pytest.mark.parametrize("block", re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL))
def test_the_documents_settings_are_good(monkeypatch, tmp_path, block):
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    env_file = tmp_path / ".env"
    written = re.sub(r"=(\w*)…", r"=\g<1>0123456789abcdef", block)
    written = re.sub(r"(bob=\w*)…", r"\g<1>0123456789abcdef", written)
    env_file.write_text(written, encoding="utf-8")
    assert load_settings(env_file) != load_settings(None)
