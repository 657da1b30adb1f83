"""What the installed SDKs say of models that are about to go."""

import sys

import pytest

from relay.configuration import deprecations
from relay.configuration.deprecations import deprecated_models, deprecation_warnings
from relay.providers.registry import VENDORS


def test_both_vendors_lists_are_found_where_the_installed_sdks_keep_them():
    found = deprecated_models()
    assert any(model.startswith("claude-") for model in found)
    assert any(model.startswith("gpt-") for model in found)


def test_every_model_of_openais_list_has_its_own_date():
    text = '''"""Deprecated values:

- "a", "b-2",
  "c": Announced shutdown date: 2027-04-01. See
  https://example.com for details.
- "d": Not a supported model ID.
"""'''
    found = dict(deprecations._notices(text))
    assert found == {
        "a": "it is switched off on 2027-04-01",
        "b-2": "it is switched off on 2027-04-01",
        "c": "it is switched off on 2027-04-01",
        "d": "its vendor no longer lists it",
    }


def test_no_built_in_model_is_deprecated():
    models = [m for vendor in VENDORS for m in (vendor.default_model, *vendor.fallback_models)]
    assert deprecation_warnings(models) == []


def test_a_deprecated_model_earns_a_sentence_and_an_unknown_one_none():
    model, end = next(iter(deprecated_models().items()))
    assert deprecation_warnings([model, "my-own"]) == [f"model {model} is deprecated: {end}"]


@pytest.mark.parametrize("spec", [None, "elsewhere"])
def test_a_list_that_is_gone_is_no_error(monkeypatch, tmp_path, spec):
    class Moved:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(deprecations, "find_spec", lambda name: Moved if spec else None)
    assert deprecated_models() == {}


def test_no_sdk_is_imported_for_it(monkeypatch):
    for name in ("openai", "anthropic"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    deprecated_models()
    assert not {"openai", "anthropic"} & set(sys.modules)
