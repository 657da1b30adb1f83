"""What every test has in common: the gate against silent skips, and the order."""

from __future__ import annotations

import pytest

from tests import skip_gate


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: runs after all others, because it takes long")
    allowed = skip_gate.parse(skip_gate.ALLOWED.read_text(encoding="utf-8"))
    config.pluginmanager.register(skip_gate.Gate(allowed), "skip-gate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
