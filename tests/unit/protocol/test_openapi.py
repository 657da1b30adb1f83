"""The OpenAPI document says no more than the server takes."""

from __future__ import annotations

from typing import Any

import pytest

from relay.protocol.openapi import openapi


def parameter(path: str, name: str) -> Any:
    return next(p for p in openapi()["paths"][path]["get"]["parameters"] if p["name"] == name)


@pytest.mark.parametrize("name", ["Last-Event-ID", "after"])
def test_a_place_in_a_stream_is_a_seq_or_minus_one(name: str) -> None:
    schema = parameter("/streams/{stream}", name)["schema"]
    assert schema == {"type": "integer", "minimum": -1}


def test_empty_messages_are_not_promised_to_be_taken() -> None:
    text, turns = openapi()["components"]["schemas"]["ChatBody"]["properties"]["messages"]["oneOf"]
    assert text["minLength"] == turns["minItems"] == 1
