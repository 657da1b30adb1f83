"""Writes the frames' types in `relay/web/relay-client.d.ts` from the frame models.

`python scripts/generate_types.py` rewrites the text between the markers of the file; with
`--check` it changes nothing and exits with 1 if the file is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from generated import write_or_check  # noqa: E402

from relay.core.errors import Code  # noqa: E402
from relay.protocol.frames import CLIENT_FRAMES, SERVER_FRAMES  # noqa: E402
from relay.protocol.schema import json_schema  # noqa: E402

FILE = ROOT / "relay" / "web" / "relay-client.d.ts"
MARKED = re.compile(r"(?P<open>// generated: frames\n).*?(?P<close>// end\n)", re.DOTALL)
CODES = sorted(code.value for code in Code)
HANDLED_BY_CLIENT = frozenset({"ping", "pong", "drain"})
"""Frames that the client handles itself, so that its users don't need their types."""

NAMES = {
    "AttemptReport": "Attempt",
    "ProviderOffer": "Provider",
    "TargetRef": "Target",
    "TimingReport": "Timing",
    "ToolCallPart": "ToolCall",
    "UsageReport": "Usage",
}
"""Models that have a shorter name in the file."""


def file_in_step(text: str) -> str:
    """The file with the marked part regenerated."""
    return MARKED.sub(lambda found: f"{found['open']}\n{_types()}\n\n{found['close']}", text)


def _types() -> str:
    codes = _wrapped("export type ErrorCode =", [_literal(code) for code in CODES])
    return "\n\n".join([codes, *map(_interface, _needed())])


def _needed() -> list[str]:
    """The models that a user of the client needs, each after those that it contains."""
    found: list[str] = []
    roots = [CLIENT_FRAMES["chat"], *(SERVER_FRAMES[tag] for tag in SERVER_FRAMES)]
    for model in roots:
        if model.__name__ not in {SERVER_FRAMES[tag].__name__ for tag in HANDLED_BY_CLIENT}:
            _visit(model.__name__, found)
    return found


def _visit(name: str, found: list[str]) -> None:
    for held in _references(_definition(name)):
        _visit(held, found)
    if name not in found:
        found.append(name)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json_schema()["$defs"][name]
    return found


def _interface(name: str) -> str:
    definition = _definition(name)
    required = definition.get("required", ())
    lines = [*_comment(definition, ""), f"export interface {NAMES.get(name, name)} {{"]
    for field, schema in definition["properties"].items():
        mark = "" if field in required else "?"
        lines += [*_comment(schema, "  "), f"  {field}{mark}: {_type(schema)};"]
    return "\n".join([*lines, "}"])


def _comment(schema: dict[str, Any], indent: str) -> list[str]:
    said = " ".join(schema.get("description", "").split())
    return [f"{indent}/** {said} */"] if said else []


def _type(schema: dict[str, Any]) -> str:
    """A JSON Schema as a type."""
    if "$ref" in schema:
        name: str = schema["$ref"].rpartition("/")[2]
        return NAMES.get(name, name)
    if forms := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(_type(form) for form in forms))
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        codes = sorted(schema["enum"]) == CODES
        return "ErrorCode" if codes else " | ".join(map(_literal, schema["enum"]))
    if schema.get("type") == "array":
        return f"Array<{_type(schema['items'])}>"
    return _plain(schema)


def _plain(schema: dict[str, Any]) -> str:
    """The type of a schema that refers to no other."""
    kind: str = schema.get("type", "unknown")
    names = {"integer": "number", "object": "Record<string, unknown>"}
    return names.get(kind, kind)


def _literal(value: object) -> str:
    return json.dumps(value).replace('"', "'")


def _wrapped(head: str, members: list[str]) -> str:
    return "\n  | ".join([head, *members]) + ";"


if __name__ == "__main__":
    sys.exit(write_or_check({FILE: file_in_step(FILE.read_text(encoding="utf-8"))}))
