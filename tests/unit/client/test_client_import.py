"""The client stands alone: it can be used where the server's libraries are not."""

from __future__ import annotations

import subprocess
import sys

LISTING = "import sys, relay.client.__main__; print(*sys.modules)"


def test_importing_the_client_brings_neither_the_server_nor_its_libraries() -> None:
    run = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True)
    loaded = set(run.stdout.split())
    assert "relay.client" in loaded
    assert {name for name in loaded if name.startswith("relay.") and "client" not in name} == set()
    heavy = {"aiohttp", "pydantic", "msgspec", "loguru", "openai", "anthropic", "google"}
    assert loaded & heavy == set()
