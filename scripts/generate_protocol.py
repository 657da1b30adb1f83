"""Writes the tables of `protocol.md` from the frame models, the rules and the codes.

`python scripts/generate_protocol.py` rewrites the text between the markers of the document; with
`--check` it changes nothing and exits with 1 if the document is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from generated import write_or_check  # noqa: E402

from relay.core.errors import Code  # noqa: E402
from relay.edges.relay_v1 import served_socket  # noqa: E402
from relay.protocol import chat, codec, connection, frames  # noqa: E402
from relay.protocol.connection import RULES, ConnectionPhase, Input  # noqa: E402
from relay.protocol.frames import CLIENT_FRAMES, SERVER_FRAMES  # noqa: E402
from relay.protocol.schema import json_schema  # noqa: E402

DOCUMENT = ROOT / "protocol.md"
MARKED = re.compile(
    r"(?P<open><!-- generated: (?P<name>[a-z -]+) -->\n).*?(?P<close><!-- end -->)", re.DOTALL
)
CODES = sorted(code.value for code in Code)

LIMITS: list[tuple[str, object]] = [
    ("characters of an `id`", 64),
    ("turns in `messages`", chat.MAX_MESSAGES),
    ("parts in one `content`", chat.MAX_PARTS),
    ("`tools`, and `tool_calls` of one turn", chat.MAX_TOOLS),
    ("`stop` sequences", chat.MAX_STOP),
    ("characters of a `stop` sequence", chat.MAX_STOP_CHARS),
    ("`max_tokens`", chat.MAX_OUTPUT),
    ("characters of `provider`, `conversation`, `call_id`, and of a text `t`", chat.MAX_NAME_CHARS),
    ("characters of an image's `url`", chat.MAX_URL_CHARS),
    ("characters of a `token`", frames.MAX_TOKEN_CHARS),
    ("streams named in one `hello.resume`", frames.MAX_RESUMED),
    ("levels of nesting", codec.MAX_DEPTH),
    ("brackets and commas of one frame, those in strings left out", codec.MAX_VALUES),
    ("streams that one connection reads at once", connection.MAX_READERS),
    ("streams listed in `ready`", served_socket.MAX_LISTED),
    ("messages in a row that are no frames", connection.MAX_STRIKES),
]


def document_in_step(text: str) -> str:
    """The document with every marked part regenerated."""
    parts = {
        "client frames": _frames(CLIENT_FRAMES),
        "server frames": _frames({k: v for k, v in SERVER_FRAMES.items() if k not in _SHARED}),
        "objects": _objects(),
        "limits": _table(["limit", "at most"], [[name, f"{n:,}"] for name, n in LIMITS]),
        "rules": _rules(),
    }
    return MARKED.sub(
        lambda found: f"{found['open']}\n{parts[found['name']]}\n\n{found['close']}", text
    )


_SHARED = {"ping", "pong"}


def _frames(models: dict[str, Any]) -> str:
    return "\n\n".join(
        f"#### `{tag}`\n\n{_described(model.__name__)}" for tag, model in models.items()
    )


def _objects() -> str:
    tagged = {model.__name__ for model in [*CLIENT_FRAMES.values(), *SERVER_FRAMES.values()]}
    names = [
        name for name, it in _definitions().items() if name not in tagged and "oneOf" not in it
    ]
    return "\n\n".join(f"#### {name}\n\n{_described(name)}" for name in names)


def _definitions() -> dict[str, Any]:
    found: dict[str, Any] = json_schema()["$defs"]
    return found


def _described(name: str) -> str:
    definition = _definitions()[name]
    required = definition.get("required", [])
    rows = [
        [f"`{field}`" + ("" if field in required else "?"), _type(it), it.get("description", "")]
        for field, it in definition["properties"].items()
        if not (field == "type" and "const" in it and name.endswith("Frame"))
    ]
    table = _table(["field", "type", ""], rows) if rows else "No fields."
    return f"{definition['description']}\n\n{table}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells).rstrip()} |" for cells in lines)


def _type(schema: dict[str, Any]) -> str:
    """A JSON Schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if forms := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(form) for form in forms))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return _enum(schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if "patternProperties" in schema:
        ((_, value),) = schema["patternProperties"].items()
        return f"object: id to {_type(value)}"
    return _plain(schema)


def _enum(values: list[str]) -> str:
    if sorted(values) == CODES:
        return "[error code](#error-codes)"
    return ", ".join(f"`{value}`" for value in values)


def _plain(schema: dict[str, Any]) -> str:
    name = schema.get("type", "anything")
    if pattern := schema.get("pattern"):
        return f"string `{pattern}`".replace("|", "\\|")
    low = schema.get("minimum")
    return f"{name} ≥ {low}" if low is not None else str(name)


def _rules() -> str:
    phases = [phase for phase in ConnectionPhase if phase is not ConnectionPhase.CLOSED]
    rows = [[kind.value, *(RULES[phase][kind].value for phase in phases)] for kind in Input]
    return _table(["what comes", *(f"*{phase.value}*" for phase in phases)], rows)


if __name__ == "__main__":
    sys.exit(write_or_check({DOCUMENT: document_in_step(DOCUMENT.read_text(encoding="utf-8"))}))
