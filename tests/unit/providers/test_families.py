from __future__ import annotations

import pytest

from relay.core.provider import Form
from relay.providers.families import ASKED_TO, CONTINUES, FAMILIES, family


@pytest.mark.parametrize(
    ("vendor", "model", "forms"),
    [
        ("anthropic", "claude-sonnet-5-5", ASKED_TO),
        ("anthropic", "claude-haiku-5-5", ASKED_TO),
        ("anthropic", "claude-opus-4-6", ASKED_TO),
        ("anthropic", "claude-sonnet-4-6", ASKED_TO),
        ("anthropic", "claude-opus-4-8", ASKED_TO),
        ("anthropic", "claude-mythos-preview", ASKED_TO),
        ("anthropic", "claude-sonnet-4-5", CONTINUES),
        ("anthropic", "claude-sonnet-4-5-20250929", CONTINUES),
        ("anthropic", "claude-haiku-4-5-20251001", CONTINUES),
        ("anthropic", "claude-opus-4-20250514", CONTINUES),
        ("anthropic", "claude-3-7-sonnet-latest", CONTINUES),
        ("gemini", "gemini-3.8-flash", ASKED_TO),
        ("gemini", "gemini-3.6-flash", ASKED_TO),
        ("gemini", "gemini-3.5-flash-lite", ASKED_TO),
        ("gemini", "gemini-4-argon", ASKED_TO),
        ("gemini", "gemini-flash-latest", ASKED_TO),
        ("gemini", "gemini-3-pro-preview", CONTINUES),
        ("gemini", "gemini-3.1-flash", CONTINUES),
        ("gemini", "models/gemini-2.5-pro", CONTINUES),
        ("openai", "gpt-6-luna", ASKED_TO),
        ("openai", "gpt-4o", ASKED_TO),
        ("compatible", "anything/at-all", ASKED_TO),
    ],
)
def test_a_model_continues_as_its_family_does(vendor, model, forms):
    assert family(vendor, model).forms == forms


def test_every_vendor_has_a_row_for_models_it_does_not_know_that_promises_no_prefill():
    for vendor, rows in FAMILIES.items():
        assert family(vendor, "unheard-of-9").forms == ASKED_TO
        assert all(row.forms[-1] is Form.RESTART for row in rows)
