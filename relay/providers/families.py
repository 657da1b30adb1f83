"""Capabilities of model families, as a table.

One row a family; the first match counts. A model that no row matches gets the last row of its
vendor, which has the fewest capabilities.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal, NamedTuple

from relay.core.provider import Form

VendorFamily = Literal["openai", "anthropic", "gemini", "compatible"]

CONTINUES = (Form.PREFILL, Form.TURN, Form.RESTART)
ASKED_TO = (Form.TURN, Form.RESTART)


class Family(NamedTuple):
    """A row: models whose name begins with a match of `pattern` (case ignored).

    `forms` are the ways to continue an unfinished answer, best first. `effort` is the
    `reasoning_effort` to send always, `effort_with_tools` the one to send with tools; empty for
    none. `developer`: the system prompt's role is `developer`. `signed_calls`: a tool call in the
    history has to carry a thought signature.
    """

    pattern: str
    forms: tuple[Form, ...] = ASKED_TO
    effort: str = ""
    effort_with_tools: str = ""
    developer: bool = False
    signed_calls: bool = False


FAMILIES: dict[VendorFamily, tuple[Family, ...]] = {
    "openai": (
        Family(r"gpt-6-luna", effort="none", effort_with_tools="none", developer=True),
        Family(r"gpt-(5\.6|[6-9])", effort_with_tools="none", developer=True),
        Family(r"gpt-5|o\d", developer=True),
        Family(""),
    ),
    "anthropic": (
        Family(r"claude-([123]\b|instant)", forms=CONTINUES),
        Family(r"claude-(opus|sonnet|haiku)-4(-[015])?(-\d{8})?$", forms=CONTINUES),
        Family(""),
    ),
    "gemini": (
        Family(r"gemini-[12]\b", forms=CONTINUES),
        Family(r"gemini-3(\.[0-4])?(?![.\d])", forms=CONTINUES, signed_calls=True),
        Family(r"gemma", forms=ASKED_TO),
        Family("", signed_calls=True),
    ),
    "compatible": (Family(""),),
}


@cache
def family(vendor: VendorFamily, model: str) -> Family:
    """The row of `model`; path prefixes such as `models/` are ignored. Results are cached: model
    names come from the configuration only, so there are few."""
    name = model.rpartition("/")[2]
    return next(row for row in FAMILIES[vendor] if re.match(row.pattern, name, re.IGNORECASE))
