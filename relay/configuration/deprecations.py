"""Which configured models their vendors are about to switch off, as the installed SDKs say.

The lists are read from the SDKs' source files: importing an SDK takes a second, its
providers may be off, and a start should not wait for a warning. A list that has moved or
changed its form yields no warning, never an error.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

_OPENAI_NOTICE = re.compile(
    r"^- (?P<models>(?:\"[^\"]+\"[,\s]*)+):\s*(?P<notice>.+?)(?=^- |\Z)", re.MULTILINE | re.DOTALL
)
_SHUTDOWN = re.compile(r"shutdown date:\s*(\d{4}-\d{2}-\d{2})")


def deprecation_warnings(models: Iterable[str]) -> list[str]:
    """A sentence for each of these models that is on a vendor's list."""
    ends = deprecated_models()
    return [f"model {model} is deprecated: {ends[model]}" for model in models if model in ends]


def deprecated_models() -> dict[str, str]:
    """Every model on a vendor's list, with what the vendor says of its end."""
    return {**dict(_anthropic()), **dict(_openai())}


def _source(package: str, *parts: str) -> ast.Module:
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        return ast.Module([], [])
    try:
        return ast.parse(Path(folders[0], *parts).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return ast.Module([], [])


def _anthropic() -> Iterator[tuple[str, str]]:
    for node in _source("anthropic", "_data", "deprecated_models.py").body:
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Dict):
            for model, end in zip(node.value.keys, node.value.values, strict=True):
                if isinstance(model, ast.Constant) and isinstance(end, ast.Constant):
                    yield str(model.value), f"it is switched off on {end.value!s}"


def _openai() -> Iterator[tuple[str, str]]:
    """OpenAI's list is the text below the type of its models."""
    for node in _source("openai", "types", "shared", "chat_model.py").body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from _notices(str(node.value.value))


def _notices(text: str) -> Iterator[tuple[str, str]]:
    for match in _OPENAI_NOTICE.finditer(text):
        date = _SHUTDOWN.search(match["notice"])
        end = f"it is switched off on {date[1]}" if date else "its vendor no longer lists it"
        for model in re.findall(r"\"([^\"]+)\"", match["models"]):
            yield model, end
