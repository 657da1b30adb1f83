"""The relay put together from its settings as `server.py` does it, in this process."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from unittest import mock

from relay.configuration.catalog import providers_on
from relay.configuration.load import load_settings
from relay.process.app import Relay, listening


@asynccontextmanager
async def served(variables: Mapping[str, str]) -> AsyncIterator[tuple[Relay, str]]:
    """A relay that is serving, and its address. Give it `PORT` 0."""
    with mock.patch.dict(os.environ, variables, clear=True):
        chosen = load_settings(None)
    catalog = providers_on(chosen, local_model="", local_off="it is off")
    relay = Relay(chosen, catalog)
    async with relay, listening(relay) as port:
        yield relay, f"http://127.0.0.1:{port}"
    gc.unfreeze()
