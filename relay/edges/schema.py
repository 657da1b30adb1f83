"""Machine-readable descriptions of the wire, made from the models: JSON Schema, AsyncAPI,
OpenAPI."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from relay.edges.openai import schema as openai_schema
from relay.protocol.openapi import OPENAPI_PATH, openapi
from relay.protocol.schema import ASYNCAPI_PATH, SCHEMA_PATH, Json, asyncapi, json_schema


def schema_routes() -> list[web.RouteDef]:
    """The routes to add to the application. Each document is made on the first request for it."""
    return [
        web.get(SCHEMA_PATH, _serve(json_schema, "application/schema+json")),
        web.get(ASYNCAPI_PATH, _serve(asyncapi, "application/json")),
        web.get(OPENAPI_PATH, _serve(document, "application/json")),
    ]


def document() -> Json:
    """Every HTTP route of the application except the page and these documents (OpenAPI 3.1)."""
    made = openapi()
    components = made["components"]
    schemas = components["schemas"] | openai_schema.schemas()
    return made | {
        "paths": made["paths"] | openai_schema.paths(),
        "components": components | {"schemas": schemas},
    }


def _serve(make: Callable[[], Json], content_type: str) -> Handler:
    body: bytes = b""

    async def serve(request: web.Request) -> web.StreamResponse:
        nonlocal body
        body = body or msgspec.json.encode(make())
        return web.Response(body=body, content_type=content_type)

    return serve
