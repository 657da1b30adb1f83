"""The client stands alone: it can be used where the server's libraries are not."""

from __future__ import annotations

import subprocess
import sys

import pytest

PACKAGES = {"relay", "websockets"}
"""All that the client loads beside Python's own library."""

IMPORTED = "import relay.client"
ASKED = "from relay.cli import main; assert main(['chat', '--url', 'ws://127.0.0.1:9', 'hi', "
ASKED += "'--give-up-after', '0']) == 3"
"""A chat with nobody at the other end: it goes all the way to the connection."""


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after `code`, but for those of its start."""
    program = f"import sys; before = set(sys.modules); {code}; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("code", [IMPORTED, ASKED], ids=["import", "relay chat"])
def test_the_client_loads_neither_the_server_nor_its_libraries(code: str) -> None:
    loaded = loaded_by(code)
    assert "relay.client.client" in loaded
    packages = {name.partition(".")[0] for name in loaded}
    assert packages - sys.stdlib_module_names <= PACKAGES
    own = {name for name in loaded if name.startswith("relay.") and "client" not in name}
    assert own <= {"relay.cli", "relay.process", "relay.process.compiled"}


def test_the_server_does_not_load_the_client() -> None:
    loaded = loaded_by("from relay.cli import main; main(['check'])")
    assert "relay.process.serving" in loaded
    assert {name for name in loaded if name.startswith("relay.client")} == set()
