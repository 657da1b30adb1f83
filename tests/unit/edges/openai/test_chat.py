"""The chunks of Chat Completions, byte for byte."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.events import Reasoning, Record, Start, Text
from relay.core.records import Chunk, encode
from relay.edges.openai.chat import ChunkEncoder
from relay.edges.openai.response import OpenAIChunk, OpenAIChunkChoice, OpenAIDelta


def encoded(encoder: ChunkEncoder, record: Record) -> bytes:
    kind, body = encode(record)
    return encoder.encode(Chunk(kind, 0, 0, body))


@pytest.mark.parametrize(
    ("kind", "field"), [(Text, "content"), (Reasoning, "reasoning_content")], ids=["text", "think"]
)
@given(model=st.text() | st.just('m"delta":{}'), text=st.text(min_size=1))
def test_text_that_is_spliced_in_is_what_the_struct_is_encoded_as(
    kind: type[Text | Reasoning], field: str, model: str, text: str
) -> None:
    encoder = ChunkEncoder("chatcmpl-1", 1_700_000_000, include_usage=False)
    encoded(encoder, Start("stream", "gpt", model))
    chunk = OpenAIChunk(
        id="chatcmpl-1",
        object="chat.completion.chunk",
        created=1_700_000_000,
        model=model,
        choices=[OpenAIChunkChoice(0, OpenAIDelta(**{field: text}), None, None)],
    )
    assert encoded(encoder, kind(text)) == b"data: %b\n\n" % msgspec.json.encode(chunk)
