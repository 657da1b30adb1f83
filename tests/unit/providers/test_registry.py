from __future__ import annotations

import os
import subprocess
import sys

import pytest

from relay.providers.registry import VENDORS, build, vendor_of


@pytest.mark.slow
def test_the_registry_loads_no_sdk_and_a_vendor_only_its_own():
    code = (
        "import sys; from relay.providers.registry import build;"
        "sdks = {'openai', 'anthropic', 'google.genai', 'httpx2'};"
        "assert not sdks & set(sys.modules), 'registry';"
        "build('openai', name='gpt', api_key='k', base_url=None);"
        "assert sdks & set(sys.modules) == {'openai', 'httpx2'}, 'openai'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_the_wires_load_no_sdk():
    names = [
        f"relay.providers.{v}.{part}"
        for v in ("openai", "anthropic", "gemini")
        for part in ("decoder", "body")
    ]
    code = (
        f"import sys, importlib; [importlib.import_module(n) for n in {names!r}];"
        "assert not {'openai', 'anthropic', 'google.genai', 'httpx2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.kind)
async def test_every_row_builds_a_provider_with_forms_for_its_models(vendor):
    provider = build(vendor.kind, name=vendor.provider, api_key="k", base_url=None)
    assert provider.name == vendor.provider
    for model in (vendor.default_model, *vendor.fallback_models):
        assert provider.forms(model)
    await provider.close()


def test_default_models_are_ones_that_the_sdks_know():
    from typing import get_args

    from anthropic.types import model
    from openai.types.shared import chat_model

    known = {*get_args(chat_model.ChatModel), *get_args(get_args(model.Model)[0])}
    for vendor in VENDORS:
        if vendor.kind != "gemini":
            assert {vendor.default_model, *vendor.fallback_models} <= known


@pytest.mark.parametrize(
    ("kind", "key", "url", "says"),
    [
        ("nonsense", "k", None, "not a kind"),
        ("openai", None, None, "API key"),
        ("anthropic", "", None, "API key"),
        ("compatible", "k", None, "base URL"),
    ],
)
def test_what_cannot_be_built_says_why(kind, key, url, says):
    with pytest.raises(ValueError, match=says):
        build(kind, name="x", api_key=key, base_url=url)


def test_a_provider_is_a_vendors_row_or_a_compatible_one():
    assert vendor_of("claude").kind == "anthropic"
    assert vendor_of("mistral") is None


@pytest.mark.slow
def test_no_sdk_logs_requests_whatever_its_variables_say():
    code = (
        "import logging;"
        "from relay.providers.registry import build;"
        "kinds = ('openai', 'anthropic', 'gemini');"
        "[build(kind, name=kind, api_key='k', base_url=None) for kind in kinds];"
        "names = ('openai', 'anthropic', 'google_genai', 'httpx2', 'httpcore2');"
        "levels = {logging.getLogger(name).getEffectiveLevel() for name in names};"
        "assert min(levels) >= logging.WARNING, levels"
    )
    loud = {"OPENAI_LOG": "debug", "ANTHROPIC_LOG": "debug"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, **loud})
