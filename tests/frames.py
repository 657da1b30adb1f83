"""Reads any frame of one side by its `type`, as a peer would."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from relay.protocol.frames import ClientFrame, ServerFrame

client_frame: TypeAdapter[ClientFrame] = TypeAdapter(
    Annotated[ClientFrame, Field(discriminator="type")]
)
server_frame: TypeAdapter[ServerFrame] = TypeAdapter(
    Annotated[ServerFrame, Field(discriminator="type")]
)
