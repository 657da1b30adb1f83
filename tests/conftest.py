"""What every test has in common: the gate against silent skips, the order, whether the modules
under test are the compiled ones, and that generated examples may take their time."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from relay.process import compiled
from tests import skip_gate

if os.environ.get("RELAY_TEST_COMPILED") and compiled.use() != "compiled":
    pytest.exit("there are no compiled modules of these sources: make compile", returncode=4)

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("shared"), max_examples=10)
settings.load_profile("shared")  # a busy machine is no failure: no test asserts a time


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: runs after all others, because it takes long")
    config.addinivalue_line(
        "markers", "interpreted: breaks a module in a way that a compiled one resists"
    )
    config.addinivalue_line(
        "markers", "slow: starts a process or moves a great deal; `make unit` leaves it out"
    )
    allowed = skip_gate.parse(skip_gate.ALLOWED.read_text(encoding="utf-8"))
    config.pluginmanager.register(skip_gate.Gate(allowed), "skip-gate")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if compiled.state == "compiled":
        left = [item for item in items if item.get_closest_marker("interpreted")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
