"""After the start a connection to each vendor stands ready, and nothing was asked of it."""

import asyncio

import aiohttp
import pytest

from tests.wire.assembled import served

PATIENCE = 30.0


def variables(vendor, port):
    if vendor == "mine":
        return {
            "SUPPORTED_PROVIDERS": "mine",
            "MINE_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "MINE_MODEL_DEFAULT": "m",
            "PORT": "0",
            "HOST": "127.0.0.1",
        }
    name = {"gpt": "OPENAI", "claude": "ANTHROPIC", "gemini": "GEMINI"}[vendor]
    return {
        "SUPPORTED_PROVIDERS": vendor,
        f"{name}_API_KEY": "sk-not-a-real-key",
        f"{name}_BASE_URL": f"http://127.0.0.1:{port}",
        "PORT": "0",
        "HOST": "127.0.0.1",
    }


@pytest.mark.parametrize("vendor", ["gpt", "claude", "gemini", "mine"])
async def test_a_connection_is_opened_after_the_start_and_nothing_is_sent_on_it(vendor):
    came, said = asyncio.Event(), bytearray()

    async def upstream(reader, writer):
        came.set()
        said.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with served(variables(vendor, port)), asyncio.timeout(PATIENCE):
            await came.wait()
        server.close()
    assert not said


async def test_a_vendor_that_is_not_there_costs_the_start_nothing():
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with (
        served(variables("mine", port)) as (_, address),
        aiohttp.ClientSession() as http,
        http.get(f"{address}/livez") as response,
    ):
        assert response.status == 200
